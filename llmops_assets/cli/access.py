"""`llmops access …`: the table of role × action."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, out, print_json, show, wiring

app = typer.Typer(help="Who may do what: the policy's table of role × action.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """Show every action, and which roles may do it.

    Example: `llmops access list`
    """
    from llmops_assets.operations.access_table import table

    found = table(wiring())
    if json:
        print_json({action: [role for role, may in roles.items() if may] for action, roles in found})
        return
    roles = list(wiring().policy.access.roles)
    show("", ["action", *roles], [[action, *("x" if by[role] else "" for role in roles)] for action, by in found])


@app.command()
def cerbos(folder: Annotated[Path, typer.Argument(help="Where to; a folder of its own.")]) -> None:
    """Write the table as policies of Cerbos, which LLMOPS_CERBOS_URL then asks instead of the table.

    Example: `llmops access cerbos policies`
    """
    from llmops_assets.operations.access_table import write_cerbos_policies

    out.print(f"wrote {len(write_cerbos_policies(wiring(), folder))} policies to {folder}", markup=False)
