"""What the checks of a day of traffic say: nothing personal is left, nothing missing, nothing without consent."""

from collections.abc import Callable, Mapping

import polars as pl

from llmops_assets.traffic.consent import has_agreed
from llmops_assets.traffic.days import TEXTS
from llmops_assets.verdict import Verdict
from resources.traffic.context import texts

_MOST_SHOWN = 20


def nothing_personal(frame: pl.DataFrame, finds: Callable[[str], list[str]]) -> tuple[Verdict, list[dict[str, str]]]:
    """Whether no text of a day holds personal data by pattern; `finds` names what a text holds. The rows that do."""
    rows = [
        {"request_id": request_id, "column": name, "found": ", ".join(sorted(set(found)))}
        for name in TEXTS
        for request_id, text in zip(frame["request_id"], frame[name], strict=True)
        if text is not None
        and (found := [one for part in (texts(text) if name == "context" else (text,)) for one in finds(part)])
    ]
    text = f"{frame.height:,} requests hold no personal data that a pattern knows"
    if rows:
        text = f"{len(rows)} texts hold personal data after masking: see the rows, and mend the recognizer"
    return Verdict(not rows, text, {"requests": frame.height, "texts with personal data": len(rows)}), rows[
        :_MOST_SHOWN
    ]


def no_gap(gaps: Mapping[str, int], entries: int) -> Verdict:
    """Whether the numbers of the log of each worker follow each other; `gaps`: what is missing by worker."""
    lost = sum(gaps.values())
    text = f"the numbers of {entries:,} entries follow each other"
    if lost:
        by_worker = ", ".join(f"{worker}: {count}" for worker, count in sorted(gaps.items())[:5])
        text = (
            f"{lost} entries of the log are missing ({by_worker}): the spool was full, damaged, or refused them; the "
            "gateway's and the shipper's logs and llmops_gateway_exposures_dropped_total say which"
        )
    return Verdict(not lost, text, {"entries": entries, "missing": lost})


def with_consent(frame: pl.DataFrame, *, is_required: bool) -> Verdict:
    """Whether there is no text of a user who refused, nor, where the policy asks for consent, of one who gave none."""
    agreed = has_agreed(is_required=is_required)
    has_text = pl.any_horizontal(pl.col(name).is_not_null() for name in TEXTS[:-1])
    without = frame.filter(~agreed & has_text).height
    text = "no text is kept of users who did not agree"
    if without:
        text = f"{without} requests are kept with their texts without consent: nothing of them may be trained on"
    return Verdict(not without, text, {"requests": frame.height, "without consent": without})
