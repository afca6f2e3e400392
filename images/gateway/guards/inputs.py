"""Judges a request before a model is asked: what is masked in it, and why it is refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from images.gateway.guards import injection, measures
from images.gateway.guards.judges import INLINE_CHARACTERS, Judges
from images.gateway.guards.texts import Found, alone, changed, texts
from images.gateway.guards.verdict import Verdict, figure_of
from llmops_assets.specs.guards import (
    HarmGuard,
    InjectionGuard,
    InputGuards,
    LanguageGuard,
    LengthGuard,
    PersonalDataGuard,
)


@dataclass
class Judged:
    """A request as it may go on, and what was decided about it; a refusal among `verdicts` ends it."""

    body: dict[str, Any]
    query: str
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def refusal(self) -> Verdict | None:
        return next((verdict for verdict in self.verdicts if verdict.outcome == "refuse"), None)


async def judge_request(guards: InputGuards, judges: Judges, body: dict[str, Any], query: str) -> Judged:
    """Hold a request to its endpoint's guards, the cheap ones first; nothing more is looked at after a refusal.

    GuardUnavailable when one cannot judge.
    """
    judged = Judged(body, query)
    found = texts(body)
    is_long = sum([_EACH + len(text) for _, text in found]) > INLINE_CHARACTERS + _EACH
    for name, step, is_dear in _STEPS:
        if (guard := getattr(guards, name)) is None:
            continue
        if is_dear is not None and (is_long or is_dear(guard, judges)):
            await judges.run(partial(step, guard, judges, judged, found), is_dear=True)
        else:
            step(guard, judges, judged, found)
        if judged.verdicts[-1].outcome == "refuse":
            break
    return judged


_EACH = 20
"""Characters of a text that its judging takes as long as, whatever is in it."""
_NO_PERSONAL_DATA = Verdict("personal_data", "in", "pass", None, 0.0)
_NO_INJECTION = Verdict("injection", "in", "pass", None, 0.0)


def _length(guard: LengthGuard, judges: Judges, judged: Judged, found: Found) -> None:
    texts = alone(found)
    characters = sum(map(len, texts))
    size = sum([len(text.encode("utf-8", "replace")) for text in texts]) if guard.max_tokens is not None else 0
    reason = measures.too_long(guard, characters, size)
    outcome = "refuse" if reason is not None and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("length", "in", outcome, reason, float(characters)))


def _language(guard: LanguageGuard, judges: Judges, judged: Judged, found: Found) -> None:
    share = measures.language_share(guard, measures.letters(judged.query))
    reason = None
    if share is not None and share < guard.min_share:
        reason = f"{share:.0%} of the letters are of {' or '.join(guard.allowed)}, less than {guard.min_share:.0%}"
    outcome = "refuse" if reason is not None and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("language", "in", outcome, reason, figure_of(share)))


def _personal_data(guard: PersonalDataGuard, judges: Judges, judged: Judged, found: Found) -> None:
    masker = judges.masker(names=guard.names)
    # Arguments of a call are looked at by what is in them, and not as they are written.
    if not any([path.endswith(".arguments") for path, _ in found]) and not masker.may_find([t for _, t in found]):
        judged.verdicts.append(_NO_PERSONAL_DATA)
        return
    counts: Counter[str] = Counter()
    where: list[str] = []

    def change(path: str, text: str) -> str:
        masked = masker.mask(text)
        if masked.found:
            counts.update(masked.found)
            where.append(path)
        return masked.text

    masked = changed(judged.body, change)
    if not counts:
        judged.verdicts.append(_NO_PERSONAL_DATA)
        return
    reason = ", ".join(f"{kind} ×{count}" for kind, count in sorted(counts.items()))
    outcome = {"mask": "mask", "refuse": "refuse", "flag": "pass"}[guard.action]
    judged.verdicts.append(
        Verdict("personal_data", "in", outcome, reason, float(counts.total()), where[0] if where else None)
    )
    if guard.action == "mask":
        judged.body = masked
        judged.query = judges.masker(names=guard.names).mask(judged.query).text


def _injection(guard: InjectionGuard, judges: Judges, judged: Judged, found: Found) -> None:
    if not guard.classifier and not injection.may_be_one([text for _, text in found]):
        judged.verdicts.append(_NO_INJECTION)
        return
    attempt, where = None, None
    for path, text in found:
        this = judges.injection(text, with_classifier=guard.classifier)
        if attempt is None or this.score > attempt.score:
            attempt, where = this, path
        if this.is_one:
            break
    if attempt is None or not attempt.is_one:
        figure = 0.0 if attempt is None else attempt.score
        judged.verdicts.append(Verdict("injection", "in", "pass", None, figure_of(figure)))
        return
    outcome = "refuse" if guard.action == "refuse" else "pass"
    judged.verdicts.append(
        Verdict("injection", "in", outcome, "; ".join(attempt.reasons), figure_of(attempt.score), where)
    )


def _harm(guard: HarmGuard, judges: Judges, judged: Judged, found: Found) -> None:
    groups = judges.harm([text for _, text in found])
    offended = {path: named for (path, _), named in zip(found, groups, strict=True) if named}
    reason = ", ".join(sorted({group for named in offended.values() for group in named})) or None
    outcome = "refuse" if offended and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("harm", "in", outcome, reason, float(len(offended)), next(iter(offended), None)))


_Step = Callable[[Any, Judges, Judged, Found], None]
_STEPS: tuple[tuple[str, _Step, Callable[[Any, Judges], bool] | None], ...] = (
    ("length", _length, None),
    ("language", _language, None),
    ("personal_data", _personal_data, lambda guard, _: guard.names),
    ("injection", _injection, lambda guard, _: guard.classifier),
    ("harm", _harm, lambda _, judges: judges.harm_is_dear),
)
"""The guards in the order in which they are asked, and when one takes long whatever the length; None: never."""
