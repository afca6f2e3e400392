"""Tells Dagster what was found: a verdict as the result of a check, facts as the metadata of a page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from llmops_assets.verdict import Verdict
from resources.stored_paths import StoredPaths

CELL = 80
"""Characters of a table's cell on a page: four such columns fit beside each other."""


def check_result(
    verdict: Verdict,
    *,
    warn: bool = False,
    rows: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    name: str | None = None,
) -> dg.AssetCheckResult:
    """The verdict as the result of an asset check; `warn` shows a failed one as a warning, `name` is for an asset that
    gives its own.

    `rows` are tables by name, such as the rows that made it fail, with long cells cut; an empty one is left out.
    """
    tables = {
        name: dg.MetadataValue.table([dg.TableRecord({k: _cut(v) for k, v in row.items()}) for row in found])
        for name, found in (rows or {}).items()
        if found
    }
    return dg.AssetCheckResult(
        passed=verdict.passed,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
        description=verdict.text,
        metadata={**verdict.figures, **tables},
    )


def _cut(cell: Any) -> Any:
    return f"{cell[: CELL - 1]}…" if isinstance(cell, str) and len(cell) > CELL else cell


def link(label: str, address: str) -> dg.MetadataValue:
    """A link to a page of another program of this installation, with the host that it was made for.

    A page keeps what it was given: where that program listens elsewhere by now, the host says so at a glance. The
    address itself is not shown: Dagster makes the whole page as wide as its longest word, and cuts off what is beyond.
    """
    return dg.MetadataValue.md(f"[{label}]({address}) at {address.split('//', 1)[-1].partition('/')[0]}")


def stored_path(path: str | Path, paths: StoredPaths) -> dg.PathMetadataValue:
    """A path as metadata, by the root of the installation that it lies under: a page outlives the machine."""
    return dg.MetadataValue.path(paths.stored(path))


def shown(facts: dict[str, Any], paths: StoredPaths) -> dict[str, Any]:
    """Facts as metadata: folders as paths, pictures and text of several lines as Markdown."""

    def value(name: str, fact: Any) -> Any:
        if name == "folder":
            return stored_path(fact, paths)
        rich = isinstance(fact, str) and (fact.startswith("![") or "\n" in fact)
        return dg.MetadataValue.md(fact) if rich else fact

    return {name: value(name, fact) for name, fact in facts.items()}
