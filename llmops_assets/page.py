"""Tells Dagster what was found: a verdict as the result of a check, facts as the metadata of a page."""

from typing import Any

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


def shown(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as metadata: folders as paths, pictures and text of several lines as Markdown."""

    def value(name: str, fact: Any) -> Any:
        if name == "folder":
            return dg.MetadataValue.path(fact)
        rich = isinstance(fact, str) and (fact.startswith("![") or "\n" in fact)
        return dg.MetadataValue.md(fact) if rich else fact

    return {name: value(name, fact) for name, fact in facts.items()}
