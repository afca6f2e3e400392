"""A sample of a day's answers as another model judged them, beside what people say of some of them."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from llmops_assets import plots
from llmops_assets.evaluation.judge_error import Calibration, Corrected, corrected_share
from llmops_assets.records.traffic import JudgedTrafficRecord
from llmops_assets.traffic.agreement import cohen_kappa
from llmops_assets.traffic.feedback import decide, normal
from resources.catalog.reviews import Review
from resources.traffic.context import sent_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def chosen(frame: pl.DataFrame, share: float, most: int) -> pl.DataFrame:
    """The answers of a day that are judged: `share` of those with a text, by their ids, `most` at most."""
    has_text = frame.filter(
        pl.col("query").is_not_null(), pl.col("response").is_not_null(), pl.col("status") < 400
    ).with_columns(place=pl.col("request_id").map_elements(_place, return_dtype=pl.Float64))
    return has_text.filter(pl.col("place") < share).sort("place").head(most).drop("place").sort("at", "request_id")


def pairs_of(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """What was asked, with all that came before it, and what was answered, of each row of traffic.

    Where the log does not have what came before, the question stands alone.
    """
    found = []
    for row in rows:
        sent = sent_of(row)
        found.append((row["query"] if sent.missing else sent.conversation, row["response"] or ""))
    return found


def _place(request_id: str) -> float:
    return int.from_bytes(hashlib.sha256(f"judge:{request_id}".encode()).digest()[:6]) / 2**48


def by_people(frame: pl.DataFrame, reviews: Mapping[str, Sequence[Review]], quorum: int) -> dict[str, bool]:
    """Of the requests that reviewers decided on, whether the answer itself was good: it was accepted as it stands."""
    found = {}
    for answer in frame.filter(pl.col("request_id").is_in(list(reviews))).iter_rows(named=True):
        decision = decide(answer, reviews[answer["request_id"]], quorum)
        if decision.state in ("accept", "fix"):
            found[answer["request_id"]] = normal(decision.text or "") == normal(answer["response"] or "")
        elif decision.state == "reject":
            found[answer["request_id"]] = False
    return found


@dataclass(frozen=True)
class Summary:
    """What all judged days of an endpoint say together, by model."""

    judged: int
    called_good: int
    calibration: Calibration
    corrected: Corrected | None
    kappa: float | None


def summary(records: Sequence[JudgedTrafficRecord], model_ref: str | None = None) -> Summary:
    """The judge's verdicts on the sample of some days, corrected by every answer that people judged too.

    Answers that people judged are those that users complained of and a sample; what a judge gets wrong of good ones and
    of bad ones is taken to be the same elsewhere.
    """
    verdicts = [
        one
        for record in records
        for one in record.verdicts
        if one.good is not None and model_ref in (None, one.model_ref)
    ]
    sample = [one for one in verdicts if one.sampled]
    both = [
        (one.people, one.good)
        for record in records
        for one in record.verdicts
        if one.people is not None and one.good is not None
    ]
    calibration = Calibration.of(both)
    good = sum(bool(one.good) for one in sample)
    return Summary(
        len(sample),
        good,
        calibration,
        corrected_share(good, len(sample), calibration),
        cohen_kappa([(str(people), str(judge)) for people, judge in both]),
    )


def facts(record: JudgedTrafficRecord, every: Sequence[JudgedTrafficRecord]) -> dict[str, float | int | str]:
    """What the page of a day shows: the day's own share, and what all days say, corrected."""
    own, total = summary([record]), summary(every)
    found: dict[str, float | int | str] = {
        "judge": record.judge,
        "judged": own.judged,
        "called good": own.called_good,
        "neither": sum(one.good is None for one in record.verdicts),
        "judged, all days": total.judged,
        "judged by people too": total.calibration.good + total.calibration.bad,
        "agreement with people (Cohen's κ)": "not enough" if total.kappa is None else round(total.kappa, 3),
    }
    if total.calibration.sensitivity is not None:
        found["of good answers it calls good"] = total.calibration.sensitivity
    if total.calibration.specificity is not None:
        found["of bad answers it calls bad"] = total.calibration.specificity
    for model in sorted({one.model_ref for record in every for one in record.verdicts if one.sampled}):
        of_model = summary(every, model)
        share = of_model.called_good / of_model.judged if of_model.judged else 0.0
        corrected = of_model.corrected
        text = f"{share:.1%} of {of_model.judged} called good"
        if corrected is not None:
            text += f"; corrected {corrected.share:.1%} ({corrected.low:.1%} to {corrected.high:.1%})"
        else:
            text += "; not corrected: people have to judge good and bad ones too, and the judge be better than chance"
        found[f"good answers of {model}"] = text
    return found


def over_time(every: Sequence[JudgedTrafficRecord]) -> "Figure":
    """The share of answers called good by day, and as it is corrected by all that people judged."""
    calibration = summary(every).calibration
    days = sorted((record for record in every if any(one.sampled for one in record.verdicts)), key=lambda one: one.day)
    fig, ax = plots.figure()
    parts = [summary([record]) for record in days]
    names = [record.day for record in days]
    ax.plot(names, [p.called_good / p.judged if p.judged else float("nan") for p in parts], marker="o",
            color=plots.PALETTE[0], label="called good")  # fmt: skip
    corrected = [corrected_share(part.called_good, part.judged, calibration) for part in parts]
    if all(one is not None for one in corrected):
        known = [one for one in corrected if one is not None]
        ax.plot(names, [one.share for one in known], marker="o", color=plots.PALETTE[1], label="corrected")
        ax.fill_between(names, [o.low for o in known], [o.high for o in known], alpha=0.2, color=plots.PALETTE[1])
    ax.set_ylim(0, 1)
    ax.set_title("good answers")
    ax.legend(frameon=False)
    fig.autofmt_xdate()
    return fig
