"""Tells Dagster what a check found."""

import dagster as dg

from llmops_assets.verdict import Verdict


def check_result(verdict: Verdict, *, warn: bool = False) -> dg.AssetCheckResult:
    """The verdict as the result of an asset check; `warn` shows a failed one as a warning."""
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=verdict.text,
        metadata=dict(verdict.figures),
    )
