"""Analyses any log of an experiment as the platform analyses its own: every treatment against one control, decided."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from llmops_assets.experiments import inference
from llmops_assets.experiments.analysis import Analysis, analyse_sums
from llmops_assets.experiments.comparisons import Comparison, comparisons, overall
from llmops_assets.experiments.decision import MAX_INCONSTANT_SHARE, Decision
from llmops_assets.experiments.log_columns import Columns, LogError, columns_of
from llmops_assets.experiments.log_files import Log, read_log
from llmops_assets.experiments.log_outcomes import MILLISECONDS
from llmops_assets.experiments.log_rows import Rows, rows_of, sums_of
from llmops_assets.experiments.multiplicity import benjamini_hochberg
from llmops_assets.experiments.plan import FAILED, SLOW, Plan
from llmops_assets.experiments.user_sums import UserSums

CONTROLS = (
    "control", "ctrl", "baseline", "base", "a", "old", "reference", "default", "0", "false", "champion",
    "대조군", "대조",
)  # fmt: skip
"""How the arm in place is usually called, without case; where none is there, the first name in order."""
MAX_UNUSABLE_SHARE = 0.01
"""Share of rows that may be no number, infinite or without a variant before the comparison means nothing."""
LEAST_USERS = 2
"""Users of each arm from which an interval is shown; nothing is decided on so few (`Question.users_per_arm`)."""
_MEASURED_BY = {SLOW: "slow", FAILED: "failed"}
_NAMED_BY = {SLOW: "--latency", FAILED: "--status or --failed"}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_OLDEST = datetime(2000, 1, 1, tzinfo=UTC)
_PRE_P = 0.001


@dataclass(frozen=True)
class Question:
    """What is asked of a log. Levels, margins and numbers of users are to be chosen before the data are looked at.

    columns: names by role (`log_columns.ROLES`), None to guess; split: intended shares, by variant or in the order of
    the arms with the control first, None for equal ones; margins: of guardrails, which hold where the log has data for
    them; needed: guardrails that were asked for, without whose data there is no answer; latency_unit: ms, s, us or ns,
    None to take it from the column's name.
    """

    columns: Mapping[str, str | None] = field(default_factory=dict)
    control: str | None = None
    alpha: float = 0.05
    users_per_arm: int = 200
    expected_users: int | None = None
    srm_p: float = 0.001
    slow_ms: float = 2000.0
    margins: Mapping[str, float] = field(default_factory=lambda: {SLOW: 0.05, FAILED: 0.01})
    needed: Sequence[str] = ()
    latency_unit: str | None = None
    minimum_effect: float | None = None
    higher_is_better: bool = True
    split: Mapping[str, float] | Sequence[float] | None = None
    secondary: Sequence[str] = ()


@dataclass(frozen=True)
class LogAnalysis:
    """What a log says: every comparison, the first of which is the deciding one."""

    question: Question
    columns: Columns
    rows: Rows
    variants: tuple[str, ...]
    control_guessed: bool
    comparisons: tuple[Comparison, ...]
    decision: Decision
    split_tested: bool
    log_bayes_factor: float | None
    sums: UserSums
    secondary: Mapping[str, tuple[Analysis, float | None]]
    notes: tuple[str, ...]

    @property
    def deciding(self) -> Comparison:
        return self.comparisons[0]


def analyse_log(path: Path, question: Question) -> LogAnalysis:
    """Read a log and compare its arms; raises LogError where it cannot be read or has fewer than two arms."""
    return _analyse(read_log(path), question)


def analyse_rows(log: pl.DataFrame, question: Question, path: Path, notes: Sequence[str] = ()) -> LogAnalysis:
    """The same for rows that are in memory; `path` is what messages call them."""
    return _analyse(Log.of(log, path, notes), question)


def _analyse(log: Log, question: Question) -> LogAnalysis:
    try:
        return _compare(log, question)
    except pl.exceptions.PolarsError as error:
        fault = str(error).splitlines()[0]
        raise LogError(f"{log.path} holds what no log of an experiment does: {fault}") from error


def _compare(log: Log, question: Question) -> LogAnalysis:
    _check(question)
    path = log.path
    columns = columns_of(log.columns, question.columns)
    rows = rows_of(log, columns, question.slow_ms, question.latency_unit)
    for name in question.needed:
        if _MEASURED_BY[name] not in rows.has:
            raise LogError(
                f"{path} does not tell of {name}, for which a margin was given: name the column with "
                f"{_NAMED_BY[name]} COLUMN, or leave the margin out"
            )
    variants, guessed = _variants(rows, question, path)
    sums = sums_of(rows, variants)
    shares = _shares(question, variants)
    split_tested = question.split is not None or len(rows.phases) == 1
    srm, fixed, log_factor = _split(sums, shares, rows) if split_tested else (1.0, 1.0, None)
    now = _now(rows)
    analyses = [
        _compared(sums, arm, variants, question, rows, path, now, (srm, fixed)) for arm in range(1, len(variants))
    ]
    decided = comparisons(analyses, question.alpha, higher_is_better=question.higher_is_better)
    unusable = sum(rows.left_out.values()) - sum(n for reason, n in rows.left_out.items() if "there" in reason)
    decision = _whole(decided, rows, unusable)
    torn = any(one.analysis.inconstant_share > MAX_INCONSTANT_SHARE for one in decided)
    if decision.outcome == "invalid" and len(variants) > 2 and srm < question.srm_p and not torn:
        decision = replace(decision, reason=_broken_split(decided, variants, srm, question))
    secondary = _secondary(log, question, columns, variants, now, (srm, fixed))
    found = [*log.notes, *rows.notes, *_times_told(now), *_before_told(sums)]
    if not split_tested:
        found.append(
            "whether users are split as intended was not tested: the log has several phases, and only you know the "
            "shares of each (--split, where they were the same in all)"
        )
    if len(variants) == 2 and guessed and variants[0].casefold() not in CONTROLS:
        found.append(f"{variants[0]!r} is taken for the control, as the first name in order: --control names another")
    found += _alike(variants)
    return LogAnalysis(
        question, columns, rows, variants, guessed, decided, decision, split_tested, log_factor, sums, secondary,
        tuple(found),
    )  # fmt: skip


def _broken_split(compared: Sequence[Comparison], variants: Sequence[str], p: float, question: Question) -> str:
    users = {arm.model: arm.users for one in compared for arm in one.analysis.arms}
    counts = ", ".join(f"{users[name]:,} on {name}" for name in variants)
    return (
        f"sample ratio mismatch: {counts} is not the intended split (p = {p:.2g} < {question.srm_p:g}). Users are lost "
        "or logged twice on one arm, or a name is no arm: find out which before comparing anything"
    )


def _times_told(last: datetime) -> list[str]:
    """A note where the times of a log are hardly those of a test that was run."""
    if last == _NEVER or _OLDEST <= last <= datetime.now(UTC) + timedelta(days=1):
        return []
    when = "in the future" if last > _OLDEST else "long ago"
    return [f"the last time of the log is {when} ({last:%Y-%m-%d %H:%M} UTC): is the column in another unit?"]


def _before_told(sums: UserSums) -> list[str]:
    """A note where values from before the test differ by arm: what the treatment changed was not there before."""
    told = sums.frame.select("user", "arm", "pre_values", "pre_total").filter(pl.col("pre_values") > 0)
    known = told.unique("user", maintain_order=True)
    means = known.with_columns((pl.col("pre_total") / pl.col("pre_values")).alias("pre"))
    arms = [means.filter(pl.col("arm") == arm)["pre"].to_numpy() for arm in means["arm"].unique().sort()]
    if len(arms) < 2 or min(map(len, arms)) < LEAST_USERS:
        return []
    p = min(inference.welch(arms[0], other, 0.05).p or 1.0 for other in arms[1:])
    if p >= _PRE_P:
        return []
    return [
        f"values from before the test differ between the arms (p = {p:.2g}): were they measured before users were "
        "assigned? If not, CUPED takes the effect away with them"
    ]


def _alike(variants: Sequence[str]) -> list[str]:
    """A note for arms whose names differ by case alone: one arm that was logged in two ways splits its users."""
    by_name: dict[str, list[str]] = {}
    for name in variants:
        by_name.setdefault(name.casefold(), []).append(name)
    return [
        f"{' and '.join(map(repr, sorted(names)))} differ by case alone, and are taken for {len(names)} arms: write "
        "them alike if they are one"
        for names in by_name.values()
        if len(names) > 1
    ]


def _check(question: Question) -> None:
    if not 0 < question.alpha < 1:
        raise LogError(f"alpha must lie between 0 and 1; got {question.alpha:g}")
    if question.users_per_arm < 2:
        raise LogError(f"nothing can be decided on {question.users_per_arm} users: at least 2")
    if question.expected_users is not None and question.expected_users < 1:
        raise LogError(f"the expected number of users must be at least 1; got {question.expected_users}")
    for name, margin in question.margins.items():
        if name not in (SLOW, FAILED):
            raise LogError(f"there is no guardrail {name!r}; there are {SLOW} and {FAILED}")
        if not 0 <= margin <= 1:
            raise LogError(f"the margin of {name} is a share of requests, between 0 and 1; got {margin:g}")
    if question.latency_unit is not None and question.latency_unit not in MILLISECONDS:
        raise LogError(f"a latency's unit is one of {', '.join(MILLISECONDS)}; got {question.latency_unit!r}")
    if question.minimum_effect is not None and not question.minimum_effect > 0:
        raise LogError(f"the minimum effect must be above 0; got {question.minimum_effect:g}")


def _variants(rows: Rows, question: Question, path: Path) -> tuple[tuple[str, ...], bool]:
    """The arms, the control first, and whether the control was guessed."""
    counts = rows.sums.group_by("variant").agg(pl.col("user").n_unique().alias("users")).sort("variant")
    names = counts["variant"].to_list()
    if question.control is not None and question.control not in names:
        raise LogError(f"{path} has no variant {question.control!r}; it has {', '.join(map(repr, names))}")
    if len(names) < 2:
        raise LogError(
            f"{path} has one arm only, {names[0]!r} with {counts['users'][0]:,} users: a comparison needs two"
        )
    plain = {name.casefold(): name for name in reversed(names)}
    usual = next((plain[name] for name in CONTROLS if name in plain), names[0])
    control = question.control or usual
    return (control, *(name for name in names if name != control)), question.control is None


def _shares(question: Question, variants: Sequence[str]) -> tuple[float, ...]:
    split = question.split
    if split is None:
        return tuple(1.0 for _ in variants)
    if isinstance(split, Mapping):
        if set(split) != set(variants):
            raise LogError(f"--split names {', '.join(split)}, and the log has the arms {', '.join(variants)}")
        found = tuple(float(split[name]) for name in variants)
    else:
        found = tuple(map(float, split))
    if len(found) != len(variants) or min(found) <= 0:
        raise LogError(
            f"--split needs a share above 0 for each of the {len(variants)} arms ({', '.join(variants)}, in this order)"
        )
    return found


def _split(sums: UserSums, shares: tuple[float, ...], rows: Rows) -> tuple[float, float, float]:
    """p of the sequential and of Pearson's test of the split over all arms, and the log Bayes factor now."""
    frame = sums.frame.select("user", "phase", "arm", "first_at")
    if "at" in rows.has:
        frame = frame.sort("first_at", nulls_last=True, maintain_order=True)
    # Who was given two arms in one phase is in none.
    torn = frame.group_by("user", "phase").agg(pl.col("arm").n_unique().alias("n")).filter(pl.col("n") > 1)
    frame = frame.join(torn.select("user").unique(), on="user", how="anti", maintain_order="left")
    first = frame.sort("phase", maintain_order=True).unique("user", keep="first", maintain_order=True)
    arms, phases = first["arm"].to_numpy(), np.ones(first.height, dtype=np.int64)
    counts = [int((arms == arm).sum()) for arm in range(len(shares))]
    log_factor = float(inference.srm_log_bayes_factor(counts, shares))
    # Without times the order of the rows says nothing of who came first: a log may be sorted by arm.
    looks = inference.sequential_srm(arms, phases, {1: shares}) if "at" in rows.has else math.exp(-max(0.0, log_factor))
    return looks, inference.fixed_srm(arms, phases, {1: shares}), log_factor


def _now(rows: Rows) -> datetime:
    last = rows.sums["last_at"].max() if "at" in rows.has else None
    return last if isinstance(last, datetime) else _NEVER


def _compared(
    sums: UserSums,
    arm: int,
    variants: Sequence[str],
    question: Question,
    rows: Rows,
    path: Path,
    now: datetime,
    split: tuple[float, float],
) -> Analysis:
    """One treatment against the control, at α divided by the number of treatments (Bonferroni's intervals)."""
    plan = Plan(
        experiment=path.name,
        control=variants[0],
        treatment=variants[arm],
        started_at=None,
        ends_at=None,
        rating_window=timedelta(0),
        min_users=question.users_per_arm,
        expected_users=question.expected_users or 2 * question.users_per_arm,
        alpha=question.alpha / (len(variants) - 1),
        srm_p=question.srm_p,
        slow_ms=question.slow_ms,
        margins={name: margin for name, margin in question.margins.items() if _MEASURED_BY[name] in rows.has},
        scale=None,
        success_metric="the value",
        minimum_effect=question.minimum_effect,
        higher_is_better=question.higher_is_better,
    )
    pair = sums.arms(0, arm)
    phases = pair.frame["phase"].unique().to_list()
    found = analyse_sums(pair, plan, {phase: (1.0, 1.0) for phase in phases}, now, least_users=LEAST_USERS)
    return replace(found, srm_p=split[0], srm_fixed_p=split[1])


def _whole(compared: Sequence[Comparison], rows: Rows, unusable: int) -> Decision:
    """The decision over all treatments: the best one that may be promoted, else what stands in the way."""
    if unusable > MAX_UNUSABLE_SHARE * rows.height:
        what = "; ".join(f"{n:,} {reason} ({rows.examples[reason]})" for reason, n in rows.left_out.items())
        return Decision(
            "invalid",
            f"{unusable:,} of {rows.height:,} rows ({unusable / rows.height:.1%}) say nothing usable, too many to "
            f"compare arms without them: {what}",
            compared[0].analysis.at,
        )
    return overall(compared)


def _secondary(
    log: Log,
    question: Question,
    columns: Columns,
    variants: Sequence[str],
    now: datetime,
    split: tuple[float, float],
) -> dict[str, tuple[Analysis, float | None]]:
    """Other columns, the deciding treatment's kind of comparison for each; p by Benjamini & Hochberg over them all."""
    found: dict[str, Analysis] = {}
    for name in question.secondary:
        mine = columns_of(log.columns, {**columns.names, "value": name})
        rows = rows_of(log, mine, question.slow_ms, question.latency_unit)
        sums = sums_of(rows, variants)
        for arm in range(1, len(variants)):
            label = name if len(variants) == 2 else f"{name}, {variants[arm]}"
            found[label] = _compared(sums, arm, variants, question, rows, log.path, now, split)
    known = {label: a.rating.p for label, a in found.items() if a.rating is not None}
    adjusted = dict(zip(known, map(float, benjamini_hochberg(list(known.values()))), strict=True))
    return {label: (analysis, adjusted.get(label)) for label, analysis in found.items()}
