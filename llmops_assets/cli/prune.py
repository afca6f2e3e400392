"""`llmops prune`: takes log lines of runs that ended long ago out of Dagster's storage."""

from dataclasses import asdict
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, print_json, say, wiring


def prune(
    days: Annotated[int, typer.Option(help="Of runs that ended more than so many days ago.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many there are, and take none.")] = False,
    json: Json = False,
) -> None:
    """Take the log lines of old runs out of Dagster's storage, which grows without end otherwise.

    What assets and checks have said stays, and how each run ended. Example: `llmops prune --days 30 --dry-run`
    """
    from llmops_assets.operations.retention import prune

    found = prune(wiring(), actor(), days=days, dry_run=dry_run)
    if json:
        print_json(asdict(found))
        return
    verb = "would be taken" if dry_run else "were taken"
    say(f"{found.lines:,} lines of {found.runs:,} runs {verb} out; what assets and checks have said stays")
