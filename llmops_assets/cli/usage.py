"""`llmops usage`: who used how much of which model."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, print_json, show, wiring


def usage(
    by: Annotated[
        list[str] | None, typer.Option(help="key, team, endpoint, model or day; again for several at once.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day, the same.")] = None,
    json: Json = False,
) -> None:
    """Show requests and tokens by key, team, endpoint, model or day, most tokens first.

    Tokens that no model server counted, of streams that broke off, are estimated: they are among the others, and in a
    column of their own.

    Example: `llmops usage --by team --by model --since 2026-11-01`
    """
    from llmops_assets.operations.usage import BY, usage_by

    chosen = [name for name in BY if name in (by or ["key"])] + [name for name in by or [] if name not in BY]
    found = usage_by(wiring(), actor(), chosen, since=since, until=until)
    if json:
        print_json(found)
        return
    sums = ("requests", "failed", "prompt_tokens", "completion_tokens", "estimated_tokens")
    show(
        "",
        [*chosen, *(name.replace("_", " ") for name in sums)],
        [[*(row[BY[name]] or "(none)" for name in chosen), *(f"{row[name]:,}" for name in sums)] for row in found],
    )
