"""`llmops upgrade`: what an earlier version wrote is brought up to this one, rehearsed on a copy first."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import Exit, Json, actor, fail, out, print_json, say, show, wiring

if TYPE_CHECKING:
    from llmops_assets.operations.upgrades import Rehearsal


def upgrade(
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Upgrade copies, read them, and throw them away.")
    ] = False,
    backup: Annotated[
        Path | None, typer.Option("--backup", metavar="DIR", help="Back up into this folder first.")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="As of `llmops backup`: where files with keys go.")
    ] = None,
    without_backup: Annotated[bool, typer.Option("--without-backup", help="There is no way back then.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Rehearse without reading weights and rows.")] = False,
    json: Json = False,
) -> None:
    """Bring databases that an earlier version wrote up to this one. With --rehearse nothing is changed.

    Exit 4 where this version cannot read something, or a row would be lost: nothing is upgraded then.

    Example: `llmops upgrade --rehearse && llmops upgrade --backup /mnt/backups`
    """
    from llmops_assets.local.stack import running
    from llmops_assets.operations import upgrades

    w = wiring()
    if w.settings.actor_secret is not None:
        fail("whose key LLMOPS_ACTOR_KEY is stands in the catalog, which to open would upgrade: unset it for this")
    if rehearse:
        found = upgrades.rehearse(w, actor(), quick=quick, say=say)
        _show(found, json)
        raise typer.Exit(int(Exit.FAILED if found.faults else Exit.OK))
    if (backup is None) != without_backup:
        fail("name a folder with --backup DIR: it is the way back. Or say --without-backup, one of both")
    if running(w.settings) is not None:
        fail(f"the platform runs on {w.settings.root}: end `llmops up` first", Exit.UNAVAILABLE)
    done = upgrades.upgrade(w, actor(), backup=backup, keys=keys, say=say)
    if json:
        print_json(_plain(done.rehearsal) | {"upgraded": done.rehearsal.is_due, "backup": done.backup})
    elif not done.rehearsal.is_due:
        out.print("nothing to upgrade: all is of this version")
    else:
        _show(done.rehearsal, json)
        way = f"; the way back: llmops restore {backup} --id {done.backup}" if done.backup else ""
        out.print(f"upgraded{way}. Now: llmops verify", markup=False)


def _show(found: "Rehearsal", json: bool) -> None:
    if json:
        print_json(_plain(found))
        return
    rows = [[c.part, c.before, c.after, "; ".join(c.steps[:1]) or "stays as it is"] for c in found.changes]
    show("", ["part", "is", "will be", ""], rows)
    for change in found.changes:
        for step in change.steps[1:]:
            out.print(f"  {change.part} {step}", markup=False)
    counted = ", ".join(f"{count:,} {kind}" for kind, count in found.looked_at.items())
    out.print(f"read by this version: {counted or 'nothing, there is no catalog yet'}", markup=False)
    for line in found.begins:
        out.print(f"begins at the next start: {line}", markup=False)
    for fault in found.faults:
        out.print(f"{fault.where}: {fault.what}. {fault.advice}", markup=False)
    out.print(f"{len(found.faults)} faults", markup=False)


def _plain(found: "Rehearsal") -> dict[str, object]:
    return {
        "changes": [vars(change) for change in found.changes],
        "due": found.is_due,
        "rows": found.rows,
        "looked_at": found.looked_at,
        "begins": found.begins,
        "faults": [vars(fault) for fault in found.faults],
    }
