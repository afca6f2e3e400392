"""Judges a request before a model is asked: what is masked in it, and why it is refused."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from images.gateway.guards import measures
from images.gateway.guards.judges import INLINE_CHARACTERS, Judges
from images.gateway.guards.texts import changed, texts
from images.gateway.guards.verdict import Verdict
from llmops_assets.specs.guards import InputGuards


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
    size = sum(len(text) for _, text in found)
    is_dear = size > INLINE_CHARACTERS
    for step in (_length, _language, _personal_data, _injection, _harm):
        await step(guards, judges, judged, found, is_dear)
        if judged.refusal is not None:
            break
    return judged


Found = list[tuple[str, str]]


async def _length(guards: InputGuards, judges: Judges, judged: Judged, found: Found, is_dear: bool) -> None:
    if (guard := guards.length) is None:
        return
    # Parts that stand beside each other are one text besides: counted once.
    alone = [text for path, text in found if path.rpartition(".")[2] != "content" or not _has_parts(path, found)]
    characters = sum(map(len, alone))
    reason = measures.too_long(guard, characters, sum(len(text.encode("utf-8", "replace")) for text in alone))
    outcome = "refuse" if reason is not None and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("length", "in", outcome, reason, float(characters)))


def _has_parts(path: str, found: Found) -> bool:
    return any(other.startswith(f"{path}[") for other, _ in found)


async def _language(guards: InputGuards, judges: Judges, judged: Judged, found: Found, is_dear: bool) -> None:
    if (guard := guards.language) is None:
        return
    share = measures.language_share(guard, measures.letters(judged.query))
    reason = None
    if share is not None and share < guard.min_share:
        reason = f"{share:.0%} of the letters are of {' or '.join(guard.allowed)}, less than {guard.min_share:.0%}"
    outcome = "refuse" if reason is not None and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("language", "in", outcome, reason, share))


async def _personal_data(guards: InputGuards, judges: Judges, judged: Judged, found: Found, is_dear: bool) -> None:
    if (guard := guards.personal_data) is None:
        return
    counts: Counter[str] = Counter()
    where: list[str] = []

    def look() -> dict[str, Any]:
        masker = judges.masker(names=guard.names)
        # Arguments of a call are looked at by what is in them, and not as they are written.
        is_plain = not any(path.endswith(".arguments") for path, _ in found)
        if is_plain and not any(masker.finds(text) for _, text in found):
            return judged.body

        def change(path: str, text: str) -> str:
            masked = masker.mask(text)
            if masked.found:
                counts.update(masked.found)
                where.append(path)
            return masked.text

        return changed(judged.body, change)

    masked = await judges.run(look, is_dear=is_dear or guard.names)
    if not counts:
        judged.verdicts.append(Verdict("personal_data", "in", "pass", None, 0.0))
        return
    reason = ", ".join(f"{kind} ×{count}" for kind, count in sorted(counts.items()))
    outcome = {"mask": "mask", "refuse": "refuse", "flag": "pass"}[guard.action]
    judged.verdicts.append(
        Verdict("personal_data", "in", outcome, reason, float(counts.total()), where[0] if where else None)
    )
    if guard.action == "mask":
        judged.body = masked
        judged.query = judges.masker(names=guard.names).mask(judged.query).text


async def _injection(guards: InputGuards, judges: Judges, judged: Judged, found: Found, is_dear: bool) -> None:
    if (guard := guards.injection) is None:
        return

    def look() -> tuple[str | None, Any]:
        best, where = None, None
        for path, text in found:
            attempt = judges.injection(text, with_classifier=guard.classifier)
            if best is None or attempt.score > best.score:
                best, where = attempt, path
            if attempt.is_one:
                break
        return where, best

    where, attempt = await judges.run(look, is_dear=is_dear or guard.classifier)
    if attempt is None or not attempt.is_one:
        figure = 0.0 if attempt is None else attempt.score
        judged.verdicts.append(Verdict("injection", "in", "pass", None, figure))
        return
    outcome = "refuse" if guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("injection", "in", outcome, "; ".join(attempt.reasons), attempt.score, where))


async def _harm(guards: InputGuards, judges: Judges, judged: Judged, found: Found, is_dear: bool) -> None:
    if (guard := guards.harm) is None:
        return
    groups = await judges.run(lambda: judges.harm([text for _, text in found]), is_dear=is_dear or judges.harm_is_dear)
    offended = {path: named for (path, _), named in zip(found, groups, strict=True) if named}
    reason = ", ".join(sorted({group for named in offended.values() for group in named})) or None
    outcome = "refuse" if offended and guard.action == "refuse" else "pass"
    judged.verdicts.append(Verdict("harm", "in", outcome, reason, float(len(offended)), next(iter(offended), None)))
