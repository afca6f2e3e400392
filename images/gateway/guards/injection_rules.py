"""Words by which people make a model disregard its instructions, in Korean and English: `injection_rules.yaml`."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from images.gateway.guards.needed_words import needed_words
from llmops_assets.privacy.needed import WordIndex
from llmops_assets.privacy.prefilter import Prefilter, prefilter

_FILE = Path(__file__).with_name("injection_rules.yaml")
_WORDS = re.compile("%([A-Z_]+)%")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to attack; `weight` is how surely a text with it is an attempt.

    A text that holds no word of one of `needed` is not searched.
    """

    name: str
    weight: float
    expression: re.Pattern[str]
    needed: tuple[frozenset[str], ...]


@cache
def rules() -> tuple[Rule, ...]:
    """The rules, read and compiled once."""
    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    found = []
    for rule in content["rules"]:
        expression = _WORDS.sub(lambda match: content["words"][match[1]], rule["expression"])
        found.append(Rule(rule["name"], rule["weight"], re.compile(expression), needed_words(expression)))
    return tuple(found)


@cache
def _prefilter() -> Prefilter:
    return prefilter(tuple(rule.expression.pattern for rule in rules()))


@cache
def _index() -> tuple[WordIndex, dict[str, list[int]], list[int]]:
    """All words that rules need; the rules by the words of the first set that each needs, and those that need none."""
    by_word: dict[str, list[int]] = {}
    always = []
    for place, rule in enumerate(rules()):
        if not rule.needed:
            always.append(place)
        for word in rule.needed[0] if rule.needed else ():
            by_word.setdefault(word, []).append(place)
    return WordIndex(word for rule in rules() for needed in rule.needed for word in needed), by_word, always


def rules_for(text: str) -> list[Rule]:
    """The rules that may match a text, in their order: no other does."""
    places = _prefilter().may_match(text)
    return by_words(text) if places is None else [rules()[place] for place in places]


def by_words(text: str) -> list[Rule]:
    """The rules whose words a text holds: the same where there is no automaton."""
    index, by_word, always = _index()
    present = index.found(text)
    places = {place for word in present for place in by_word.get(word, ())}
    found, every = sorted({*always, *places}), rules()
    return [every[place] for place in found if all(not needed.isdisjoint(present) for needed in every[place].needed)]
