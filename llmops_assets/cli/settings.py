"""`llmops settings`: every setting, what it is now, and what it means."""

import re

from llmops_assets.cli.common import Json, print_json, show, wiring
from llmops_assets.specs.settings import Settings

_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*@")


def rows(settings: Settings) -> list[dict[str, str]]:
    """One row a setting: its variable, its value (passwords in URLs hidden), and its meaning."""
    return [
        {
            "variable": f"LLMOPS_{name.upper()}",
            "value": _shown(getattr(settings, name)),
            "default": _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: object) -> str:
    return "" if value is None else _PASSWORD.sub(r"\1***@", str(value))


def settings(json: Json = False) -> None:
    """Show every setting: its environment variable, its value here, and what it means.

    Example: `LLMOPS_HOME=/srv/llmops llmops settings`
    """
    found = rows(wiring().settings)
    if json:
        print_json(found)
    else:
        show("", ["variable", "value", "meaning"], [[r["variable"], r["value"], r["meaning"]] for r in found])
