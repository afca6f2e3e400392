"""What a candidate said to copies of an endpoint's requests, beside what its users got."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from llmops_assets.operations.access import allowed
from llmops_assets.operations.errors import Refused
from llmops_assets.privacy.masker import Masker
from llmops_assets.replay.compare import EVEN, Answer, changed_most, compare
from llmops_assets.replay.sample import Asked
from llmops_assets.specs.access import READ_TEXTS
from llmops_assets.traffic.consent import agreed
from llmops_assets.wiring import Wiring
from resources.traffic.context import sent_of

MOST_PAIRS = 1000


@dataclass(frozen=True)
class ShadowReport:
    """What copies of an endpoint's requests came to. Of `copied` the candidate `answered` some; of these `pairs` have
    the answer that a user got of the endpoint's model beside them, and what follows is of them, as (then, now).

    agreement: of the texts, 1 for alike; same: the share that is the same but for white space; win_share: as a replay
    has it (mean over users of how often the candidate's is better), with its always-valid interval; None below two
    users. `changed` are the answers that changed most: question, then, now.

    What users or models wrote (`changed`, and `errors`, in which servers quote it) is there where `has_texts` alone.
    """

    endpoint: str
    candidate: str
    model_ref: str
    days: int
    copied: int
    answered: int
    refused: int
    failed: int
    has_texts: bool = False
    errors: list[tuple[str, int]] = field(default_factory=list)
    pairs: int = 0
    users: int = 0
    agreement: float | None = None
    same: float | None = None
    win_share: tuple[float, float, float] | None = None
    latency_ms: tuple[float, float] | None = None
    length: tuple[float, float] | None = None
    refusals: tuple[int, int] = (0, 0)
    empty: tuple[int, int] = (0, 0)
    cut: tuple[int, int] = (0, 0)
    personal: int = 0
    changed: list[dict[str, str]] = field(default_factory=list)


def shadow_report(
    wiring: Wiring, actor: str, endpoint: str, *, candidate: str | None = None, days: int = 7
) -> ShadowReport:
    """What was copied in the last `days`, to the candidate that was asked last where none is named; of its model that
    answered most. Refused where nothing was copied. Texts are for who may read what users write, counts for all."""
    catalog, policy = wiring.catalog, wiring.policy
    has_texts = allowed(wiring, actor, READ_TEXTS)
    catalog.endpoint(endpoint)
    since = datetime.now(UTC) - timedelta(days=days)
    known = catalog.shadows.candidates(endpoint, since)
    if not known or (candidate is not None and candidate not in known):
        named = f"to {candidate} " if candidate is not None else ""
        raise Refused(
            f"no request of {endpoint} was copied {named}in the last {days} days: name a candidate in its spec, as in "
            "shadow: {endpoint: NAME, percent: 10}, and see llmops_gateway_shadows_total"
            + (f"; copied to were {', '.join(known)}" if known else "")
        )
    candidate = candidate or known[0]
    by_model: dict[str, dict[int, int]] = {}
    for (model, status), count in catalog.shadows.outcomes(endpoint, candidate, since).items():
        by_model.setdefault(model, {})[status] = count
    model = max(by_model, key=lambda one: (by_model[one].get(200, 0), sum(by_model[one].values()), one))
    outcomes = by_model[model]
    plain: dict[str, Any] = {
        "endpoint": endpoint,
        "candidate": candidate,
        "model_ref": model,
        "days": days,
        "copied": sum(outcomes.values()),
        "answered": outcomes.get(200, 0),
        "refused": sum(count for status, count in outcomes.items() if 400 <= status < 500),
        "failed": sum(count for status, count in outcomes.items() if status >= 500),
        "has_texts": has_texts,
        "errors": catalog.shadows.errors(endpoint, candidate, since) if has_texts else [],
    }
    rows = catalog.shadows.pairs(endpoint, candidate, model, since, MOST_PAIRS)
    required = policy.traffic.consent == "required"
    rows = [
        row
        for row in rows
        if row["then_source"] in (None, "model") and agreed(row["then_consent"], is_required=required)
    ]
    if not rows:
        return ShadowReport(**plain)
    asked = [
        Asked(
            request_id=row["request_id"],
            user=row["then_user"],
            query=row["then_query"] or "",
            answer=row["then_response"],
            model_ref=row["then_model_ref"],
            finish_reason=row["then_finish_reason"],
            latency_ms=row["then_latency_ms"],
            prompt_tokens=row["then_prompt_tokens"] or 0,
            messages=_messages(row),
        )
        for row in rows
    ]
    answers = [
        Answer(row["response"], row["completion_tokens"] or 0, row["finish_reason"], row["latency_ms"] / 1000)
        for row in rows
    ]
    found = compare(
        asked,
        answers,
        alpha=policy.experiments.alpha,
        expected_users=max(2, len({one.user for one in asked})),
        judged={},
        personal=Masker.of(policy).types,
    )
    share, changes = found.win_share, [pair.change for pair in found.pairs]
    return ShadowReport(
        **plain,
        pairs=len(rows),
        users=found.users,
        agreement=1 - sum(changes) / len(changes),
        same=sum(change == 0 for change in changes) / len(changes),
        win_share=None
        if share is None
        else (EVEN + share.difference, max(0, EVEN + share.low), min(1, EVEN + share.high)),
        latency_ms=(median(r["then_latency_ms"] for r in rows), median(r["latency_ms"] for r in rows)),
        length=found.length,
        refusals=(found.refusals.only_second + found.refusals.both, found.refusals.only_first + found.refusals.both),
        empty=found.empty,
        cut=found.cut,
        personal=found.personal,
        changed=[
            {"question": pair.asked.conversation, "then": pair.asked.answer, "now": pair.answer.text}
            for pair in (changed_most(found.pairs, 5) if has_texts else ())
        ],
    )


def _messages(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """All that the model was sent; nothing where it is not on record, which leaves the question alone."""
    sent = sent_of({name: row[f"then_{name}"] for name in ("turns", "context")} | {"query": row["then_query"] or ""})
    return tuple(sent.messages)
