"""Attempts to make a model disregard its instructions: how surely a text holds one, and by which rule."""

from collections.abc import Iterable
from dataclasses import dataclass

from images.gateway.guards import normalise
from images.gateway.guards.injection_rules import rules_for

THRESHOLD = 0.6
"""Score from which a text is an attempt."""
# What is encoded is rarely harmless once it reads like an attempt.
_DISGUISED = 0.1


@dataclass(frozen=True, slots=True)
class Attempt:
    """How surely (0 to 1) a text is an attempt, and what of it says so; empty `reasons` where nothing does."""

    score: float
    reasons: tuple[str, ...]

    @property
    def is_one(self) -> bool:
        return self.score >= THRESHOLD


NONE = Attempt(0.0, ())


def may_be_one(texts: Iterable[str]) -> bool:
    """Whether a rule may match one of some texts, in any form: nearly always none does, and one look says so."""
    return bool(rules_for("\n".join([form for text in texts for _, form in normalise.forms(text)])))


def judge(text: str) -> Attempt:
    """What the rules say of a text, as it is written and as it reads once it is decoded.

    Independent signs add up: the score is one less the product of what each leaves open.
    """
    best, forms = NONE, normalise.forms(text)
    # Nearly always none holds anything, which one look at all of them together says.
    if not rules_for("\n".join([form for _, form in forms])):
        return best
    for how, form in forms:
        found: dict[str, float] = {}
        for rule in rules_for(form):
            if rule.expression.search(form):
                found[rule.name] = max(rule.weight, found.get(rule.name, 0.0))
        if not found:
            continue
        left = 1.0
        for weight in found.values():
            left *= 1 - weight
        score = min(1.0, 1 - left + (_DISGUISED if how else 0.0))
        if score > best.score:
            best = Attempt(score, tuple(f"{name} ({how})" if how else name for name in sorted(found)))
    return best
