"""Words by which people make a model disregard its instructions, in Korean and English: `injection_rules.yaml`."""

import re
from dataclasses import dataclass
from functools import cache
from operator import add
from pathlib import Path

import yaml

from images.gateway.guards.needed_words import needed_words

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
def _by_beginning() -> tuple[dict[str, list[str]], list[str]]:
    """The words that rules need by their first two characters, and those that are one character."""
    words = sorted({word for rule in rules() for needed in rule.needed for word in needed})
    found: dict[str, list[str]] = {}
    for word in words:
        if len(word) > 1:
            found.setdefault(word[:2], []).append(word)
    return found, [word for word in words if len(word) == 1]


def words_in(text: str) -> set[str]:
    """Of the words that rules need, those that a text holds: only of those that begin as some of its pairs is asked."""
    by_beginning, single = _by_beginning()
    pairs = by_beginning.keys() & set(map(add, text, text[1:]))
    present = {word for pair in pairs for word in by_beginning[pair] if word in text}
    present.update(word for word in single if word in text)
    return present
