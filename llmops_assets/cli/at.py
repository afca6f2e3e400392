"""`llmops at`: what an endpoint served at a moment."""

from dataclasses import asdict
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, out, print_json, show, time_of, when, wiring


def at(
    moment: Annotated[str, typer.Argument(metavar="T", help="ISO 8601; without a zone, this machine's.")],
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint, also of one that was deleted.")],
    json: Json = False,
) -> None:
    """Show what an endpoint served at a moment: models with their shares and data, the prompt, the index.

    Example: `llmops at 2026-11-30T09:00 desk`
    """
    from llmops_assets.operations.history import served_at

    found = served_at(wiring(), endpoint, time_of(moment))
    if json:
        print_json(asdict(found))
        return
    out.print(f"{endpoint} at {when(found.at)}: since {when(found.since)}, by {found.by}", markup=False)
    if found.prompt is not None:
        out.print(f"prompt {found.prompt}", markup=False)
    show(
        "",
        ["model", "users", "dataset", "recipe", "content", "index"],
        [
            [m.model_ref, f"{m.weight:g} %", m.dataset, m.recipe, m.content_hash,
             f"{m.index}@{m.index_version} of {m.index_dataset}" if m.index else None]
            for m in found.models
        ],
    )  # fmt: skip
