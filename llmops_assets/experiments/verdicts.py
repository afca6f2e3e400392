"""What the checks say about an A/B report: passed or not, and what to do."""

from collections.abc import Callable
from typing import Any

from llmops_assets.experiments.decision import MAX_INCONSTANT_SHARE, QUIET_SPLIT_P
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.verdict import Verdict


def _of_each(record: AbReportRecord, judged: Callable[[dict[str, Any]], Verdict]) -> Verdict:
    """The verdict over all treatments: passed when each one's is, with the words of those that are not."""
    several = record.figures.get("comparisons") or {}
    if not several:
        return judged(record.figures)
    found = {treatment: judged(figures) for treatment, figures in several.items()}
    failed = {treatment: verdict for treatment, verdict in found.items() if not verdict.passed}
    text = "; ".join(f"{treatment}: {verdict.text}" for treatment, verdict in (failed or found).items())
    metadata = {f"{treatment}, {k}": v for treatment, verdict in found.items() for k, v in verdict.figures.items()}
    return Verdict(not failed, text, metadata)


def sample_ratio(record: AbReportRecord) -> Verdict:
    """Whether the sequential sample ratio test is quiet, of each treatment's users and the control's."""
    return _of_each(record, _sample_ratio)


def _sample_ratio(figures: dict[str, Any]) -> Verdict:
    p, limit, arms = figures["srm_p"], figures["plan"]["srm_p"], figures["arms"]
    users = {f"users, {name}": arm["users"] for name, arm in arms.items()}
    metadata = {"p": p, "limit": limit, **users}
    if figures.get("dropped"):
        # Its users have the control, so the control alone meets new ones: that is no loss of anybody's.
        return Verdict(True, "it has no users any more, so the split is not tested from then on", metadata)
    if p >= limit:
        now = figures.get("srm_fixed_p", 1.0)
        if min(p, now) < QUIET_SPLIT_P:
            text = (
                f"users may not be split as intended (p = {p:.2g} over all looks, {now:.2g} now): nothing is promoted"
            )
            return Verdict(True, text, metadata)
        return Verdict(True, f"users are split as intended (p = {p:.3g})", metadata)
    return Verdict(
        False,
        f"users are not split as intended (p = {p:.2g}, below {limit:g}): {arms['control']['users']} on control, "
        f"{arms['treatment']['users']} on treatment. Look for requests that one arm loses before they are logged, and "
        "start a new experiment once that is mended",
        metadata,
    )


def stickiness(record: AbReportRecord) -> Verdict:
    """Whether hardly any user was assigned both models within one phase."""
    return _of_each(record, _stickiness)


def _stickiness(figures: dict[str, Any]) -> Verdict:
    both = figures["not_counted"]["users_with_both_models"]
    users = sum(arm["users"] for arm in figures["arms"].values()) + both
    share = both / users if users else 0.0
    metadata = {"users with both models": both, "users": users}
    if share <= MAX_INCONSTANT_SHARE:
        text = f"{both} users were assigned both models and are left out" if both else "every user has one model"
        return Verdict(True, text, metadata)
    return Verdict(
        False,
        f"{both} of {users} users were assigned both models within one phase. Look for gateways that disagree on the "
        "routes or on the salt of the endpoint",
        metadata,
    )


def guardrails(record: AbReportRecord) -> Verdict:
    """Whether no guardrail is worse on the treatment beyond chance."""
    return _of_each(record, _guardrails)


def _guardrails(figures: dict[str, Any]) -> Verdict:
    entries = figures["guardrails"]
    metadata: dict[str, float | int | str] = {}
    worse, parts = [], []
    for name, g in entries.items():
        words = name.replace("_", " ")
        state = "worse" if g["deteriorated"] else "within the margin" if g["non_inferior"] else "not yet certain"
        parts.append(f"{words}: {state} ({g['low']:+.1%} to {g['high']:+.1%}, {g['margin']:.1%} is allowed)")
        metadata |= {f"{words}, difference": g["difference"], f"{words}, high": g["high"], f"{words}, state": state}
        worse += [words] if g["deteriorated"] else []
    if not entries:
        return Verdict(True, "too few users so far", metadata)
    if worse:
        return Verdict(False, f"the treatment does harm. {'; '.join(parts)}", metadata)
    return Verdict(True, "; ".join(parts), metadata)


def guardrail(record: AbReportRecord, name: str) -> Verdict:
    """Whether one guardrail is not worse on the treatment beyond chance; within its margin or not stands beside it."""
    return _of_each(record, lambda figures: _guardrail(figures, name))


def _guardrail(found: dict[str, Any], name: str) -> Verdict:
    entry, words = found["guardrails"].get(name), name.replace("_", " ")
    if entry is None:
        return Verdict(True, "too few users so far")
    figures = {key: entry[key] for key in ("difference", "low", "high", "margin")}
    interval = (
        f"{entry['difference']:+.2%} ({entry['low']:+.2%} to {entry['high']:+.2%}), {entry['margin']:.2%} allowed"
    )
    if entry["deteriorated"]:
        return Verdict(
            False, f"more {words} on the treatment: {interval}. Look into its server before it goes on", figures
        )
    state = "within the margin" if entry["non_inferior"] else "not yet certain to be within the margin"
    return Verdict(True, f"{words}: {state}, {interval}", figures)
