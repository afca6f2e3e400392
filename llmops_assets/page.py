"""Tells Dagster what was found: a verdict as the result of a check, facts as the metadata of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from llmops_assets.verdict import Verdict


def check_result(
    verdict: Verdict, *, warn: bool = False, rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None
) -> dg.AssetCheckResult:
    """The verdict as the result of an asset check; `warn` shows a failed one as a warning.

    `rows` are tables by name, such as the rows that made it fail; an empty one is left out.
    """
    tables = {
        name: dg.MetadataValue.table([dg.TableRecord(row) for row in found])
        for name, found in (rows or {}).items()
        if found
    }
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=verdict.text,
        metadata={**verdict.figures, **tables},
    )


def link(name: str, address: str) -> dict[str, dg.MetadataValue]:
    """A link to a page of another program of this installation, and its path there.

    A page keeps what it was given, and an installation may listen on another port later: then the path is still right.
    """
    below = address.split("//", 1)[-1].partition("/")[2]
    return {name: dg.MetadataValue.url(address), f"{name}_path": dg.MetadataValue.text(f"/{below}")}


def shown(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as metadata: folders as paths, pictures and text of several lines as Markdown."""

    def value(name: str, fact: Any) -> Any:
        if name == "folder":
            return dg.MetadataValue.path(fact)
        rich = isinstance(fact, str) and (fact.startswith("![") or "\n" in fact)
        return dg.MetadataValue.md(fact) if rich else fact

    return {name: value(name, fact) for name, fact in facts.items()}
