"""Facts of a training as metadata of Dagster's pages."""

from typing import Any

import dagster as dg


def shown(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as metadata: folders as paths, pictures and text of several lines as Markdown."""

    def value(name: str, fact: Any) -> Any:
        if name == "folder":
            return dg.MetadataValue.path(fact)
        rich = isinstance(fact, str) and (fact.startswith("![") or "\n" in fact)
        return dg.MetadataValue.md(fact) if rich else fact

    return {name: value(name, fact) for name, fact in facts.items()}
