"""Logs of experiments that ran anywhere: analysed by the rule and the policy of this platform."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring

if TYPE_CHECKING:
    from llmops_assets.experiments.log_analysis import LogAnalysis


def analyse_file(
    wiring: Wiring,
    path: Path,
    *,
    columns: Mapping[str, str | None],
    control: str | None,
    alpha: float | None,
    expected_users: int | None,
    users_per_arm: int | None,
    minimum_effect: float | None,
    margins: Sequence[str],
    latency_unit: str | None,
    split: str | None,
    secondary: Sequence[str],
    higher_is_better: bool,
) -> "LogAnalysis":
    """What a log says, by the policy's levels where none are given.

    margins: `guardrail=share` each; split: `90:10` or `name=share,…`. Raises Refused, LogError or FileNotFoundError.
    """
    from llmops_assets.experiments.log_analysis import Question, analyse_log
    from llmops_assets.experiments.plan import FAILED, SLOW

    policy = wiring.policy.experiments
    allowed = {SLOW: policy.guardrails.slow_requests.margin, FAILED: policy.guardrails.failed_requests.margin}
    asked = dict(_pair(text, "--margin") for text in margins)
    question = Question(
        columns=columns,
        control=control,
        alpha=policy.alpha if alpha is None else alpha,
        users_per_arm=policy.users_per_arm if users_per_arm is None else users_per_arm,
        expected_users=expected_users,
        srm_p=policy.srm_p,
        slow_ms=policy.latency_threshold_ms,
        margins=allowed | asked,
        needed=[name for name in asked if name in allowed],
        latency_unit=latency_unit,
        minimum_effect=minimum_effect,
        higher_is_better=higher_is_better,
        split=None if split is None else _shares(split),
        secondary=secondary,
    )
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    return analyse_log(path, question)


def json_of(found: "LogAnalysis") -> dict[str, Any]:
    """The analysis for programs."""
    from llmops_assets.experiments.log_report import as_json

    return as_json(found)


def table_of(found: "LogAnalysis") -> list[tuple[str, str]]:
    """The analysis for people: figure and text."""
    from llmops_assets.experiments.log_report import table

    return table(found)


def _shares(text: str) -> dict[str, float] | list[float]:
    if "=" in text:
        return dict(_pair(part, "--split") for part in text.split(","))
    return [_share(part, text, "--split") for part in text.replace(",", ":").replace("/", ":").split(":")]


def _pair(text: str, option: str) -> tuple[str, float]:
    name, equals, share = text.rpartition("=")
    if not equals:
        raise Refused(f"{option} {text!r}: write NAME=SHARE")
    return name.strip(), _share(share, text, option)


def _share(part: str, text: str, option: str) -> float:
    try:
        return float(part)
    except ValueError:
        raise Refused(f"{option} {text!r}: {part.strip()!r} is no number") from None
