"""Finds suites that one answer to every question would pass, and models that give one."""

from collections import Counter
from collections.abc import Mapping, Sequence

from llmops_assets.evaluation.judge import normalise
from llmops_assets.evaluation.letters import LETTERS
from llmops_assets.evaluation.suites import Scored
from llmops_assets.records.evaluation import OneAnswer

ENOUGH = 20
"""Items with fewer of which chance may give all of them one answer."""
ONE_ANSWER = 0.95
"""Share of the items that get one and the same answer."""
ONE_PLACE = 0.98
"""Share of the items whose right choice stands at one and the same place."""
_SHOWN = 80


def one_answers(scored: Mapping[str, Sequence[Scored]]) -> dict[str, OneAnswer]:
    """By suite, what stands for every answer of it; nothing of suites in which answers go by the question.

    The place of the right choice counts where items have choices of their own, or letters for them. Where they are
    labels, always in the same order, one label may well be the commonest.
    """
    return {suite: one for suite, group in scored.items() if (one := _of_suite(group)) is not None}


def _of_suite(group: Sequence[Scored]) -> OneAnswer | None:
    asked = [one for one in group if one.answer is not None]
    if len(asked) < ENOUGH:
        return None
    if all(one.item.judge.kind in ("multiple_choice", "letter") for one in asked):
        choices = {one.item.choices for one in asked}
        own = len({frozenset(some) for some in choices}) > 1
        lettered = all(len(choice) == 1 for some in choices for choice in some)
        places = (
            Counter(_place(one.item.choices, one.item.references) for one in asked) if own or lettered else Counter()
        )
        place, count = places.most_common(1)[0] if places else (None, 0)
        if place is not None and count >= ONE_PLACE * len(asked):
            return OneAnswer(kind="right choice", text=f"number {place + 1}", items=count, of=len(asked), right=count)
    text, count = Counter(one.judged for one in asked).most_common(1)[0]
    wanted = sum(text in {normalise(reference) for reference in one.item.references} for one in asked)
    # Where nearly all items want that answer, giving it is right.
    if not text or count < ONE_ANSWER * len(asked) or wanted >= ONE_ANSWER * len(asked):
        return None
    return OneAnswer(kind="answer", text=text[:_SHOWN], items=count, of=len(asked), right=wanted)


def _place(choices: Sequence[str], references: Sequence[str]) -> int | None:
    """Where the right choice stands, from 0: by its letter where the question lists its choices itself."""
    wanted = {normalise(reference) for reference in references}
    named = choices or [normalise(letter) for letter in LETTERS[:10]]
    return next((n for n, choice in enumerate(named) if normalise(choice) in wanted), None)
