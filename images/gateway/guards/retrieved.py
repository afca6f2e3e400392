"""Judges passages before a model reads them: who writes a document could else command the model."""

from collections.abc import Sequence
from typing import Any

from images.gateway.guards.judges import INLINE_CHARACTERS, Judges
from images.gateway.guards.verdict import Verdict, figure_of
from llmops_assets.specs.guards import InputGuards

Passage = dict[str, Any]


async def judge_passages(
    guards: InputGuards, judges: Judges, passages: Sequence[Passage]
) -> tuple[list[Passage], list[Verdict]]:
    """The passages as the model may read them, and what was decided, each verdict naming its passage.

    What a request would be refused for, a passage is left out for: its question is somebody else's. Personal data is
    masked where the endpoint masks it. Length and language are rules for those who ask. GuardUnavailable when a guard
    cannot judge.
    """
    if not passages or (guards.personal_data is None and guards.injection is None and guards.harm is None):
        return list(passages), []
    is_dear = (
        sum(len(passage["text"]) for passage in passages) > INLINE_CHARACTERS
        or (guards.personal_data is not None and guards.personal_data.names)
        or (guards.injection is not None and guards.injection.classifier)
        or (guards.harm is not None and judges.harm_is_dear)
    )
    return await judges.run(lambda: _judged(guards, judges, passages), is_dear=is_dear)


def _judged(guards: InputGuards, judges: Judges, passages: Sequence[Passage]) -> tuple[list[Passage], list[Verdict]]:
    kept: list[Passage] = []
    verdicts: list[Verdict] = []
    for passage in passages:
        own = [*_injection(guards, judges, passage), *_harm(guards, judges, passage)]
        masked = passage
        if not any(verdict.outcome == "refuse" for verdict in own):
            masked, of_masking = _personal_data(guards, judges, passage)
            own += of_masking
        verdicts += own
        if not any(verdict.outcome == "refuse" for verdict in own):
            kept.append(masked)
    return kept, verdicts


def _injection(guards: InputGuards, judges: Judges, passage: Passage) -> list[Verdict]:
    if (guard := guards.injection) is None:
        return []
    attempt = judges.injection(passage["text"], with_classifier=guard.classifier)
    reason = "; ".join(attempt.reasons) if attempt.is_one else None
    outcome = "refuse" if attempt.is_one and guard.action == "refuse" else "pass"
    return [Verdict("injection", "retrieved", outcome, reason, figure_of(attempt.score), passage["id"])]


def _harm(guards: InputGuards, judges: Judges, passage: Passage) -> list[Verdict]:
    if (guard := guards.harm) is None:
        return []
    groups = judges.harm([passage["text"]])[0]
    outcome = "refuse" if groups and guard.action == "refuse" else "pass"
    return [Verdict("harm", "retrieved", outcome, ", ".join(sorted(groups)) or None, float(len(groups)), passage["id"])]


def _personal_data(guards: InputGuards, judges: Judges, passage: Passage) -> tuple[Passage, list[Verdict]]:
    if (guard := guards.personal_data) is None:
        return passage, []
    masked = judges.masker(names=guard.names).mask(passage["text"])
    if not masked.found:
        return passage, [Verdict("personal_data", "retrieved", "pass", None, 0.0, passage["id"])]
    reason = ", ".join(f"{kind} ×{count}" for kind, count in sorted(masked.found.items()))
    outcome = {"mask": "mask", "refuse": "refuse", "flag": "pass"}[guard.action]
    verdict = Verdict("personal_data", "retrieved", outcome, reason, float(masked.found.total()), passage["id"])
    return ({**passage, "text": masked.text} if guard.action == "mask" else passage), [verdict]
