"""`llmops backup`, `restore`, `verify`: an installation taken elsewhere, and whether all of it is there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import Exit, Json, actor, out, print_json, say, show, when, wiring

if TYPE_CHECKING:
    from resources.backup.snapshot import Snapshot

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the backups.")]
At = Annotated[str | None, typer.Option("--id", help="Which backup, as --list names them; left out, the newest.")]


def backup(
    folder: Folder,
    keys: Annotated[
        Path | None, typer.Option("--keys", help="Copy files with keys into this folder, apart from the backup.")
    ] = None,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="Remove all but the newest so many.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the backups that are there, and make none.")] = False,
    json: Json = False,
) -> None:
    """Back everything up while the platform runs: databases, records, artifacts, indexes; only what changed is copied.

    Files with keys are never in the backup: who has it could open what is sealed. Without --keys they are named, for
    you to keep. What the backup does not hold is listed with it.

    Example: `llmops backup /mnt/backups --keys /mnt/keys --keep 14`
    """
    from llmops_assets.operations.backups import back_up, list_backups

    if list_:
        found, faults = list_backups(folder)
        _list(found, json)
        for fault in faults:
            say(fault)
        raise typer.Exit(int(Exit.FAILED if faults else Exit.OK))
    done = back_up(wiring(), actor(), folder, keys=keys, keep=keep, say=say)
    made, snapshot = done.made, done.made.snapshot
    if json:
        facts = {"id": snapshot.id, "files": len(snapshot.files), "bytes": snapshot.bytes, "copied": made.copied}
        facts |= {"copied_bytes": made.copied_bytes, "keys": snapshot.keys, "keys_kept": done.keys is not None}
        print_json(facts | {"outside": snapshot.outside, "gone": made.gone, "pruned": done.pruned})
        return
    out.print(
        f"backup {snapshot.id}: {len(snapshot.files):,} files and {len(snapshot.databases)} databases, "
        f"{snapshot.bytes:,} bytes; {made.copied:,} of them copied now, {made.copied_bytes:,} bytes",
        markup=False,
    )
    if done.keys is not None:
        out.print(f"keys: {', '.join(snapshot.keys) or 'none'} are in {done.keys}", markup=False)
    elif snapshot.keys:
        out.print(f"not in it: {', '.join(snapshot.keys)}: keep them apart from it (--keys DIR)", markup=False)
    if snapshot.sealed_with:
        out.print(f"sealed with key {', '.join(snapshot.sealed_with)}, which is in the environment alone", markup=False)
    for what in snapshot.outside:
        out.print(f"not in it: {what}", markup=False)
    if made.gone:
        out.print(f"{len(made.gone)} files were deleted while it was made", markup=False)
    if done.pruned:
        out.print(f"{done.pruned:,} files that only older backups needed were removed", markup=False)


def restore(
    folder: Folder,
    id: At = None,
    keys: Annotated[Path | None, typer.Option("--keys", help="The folder that `llmops backup --keys` wrote.")] = None,
    without_keys: Annotated[bool, typer.Option("--without-keys", help="New ones are made.")] = False,
    json: Json = False,
) -> None:
    """Restore a backup into the empty place that LLMOPS_HOME (and the other settings) name; cut off, it goes on.

    Every file is checked against its hash. Nothing is overwritten. What was trained is used, and not trained again.

    Example: `LLMOPS_HOME=/srv/llmops llmops restore /mnt/backups --keys /mnt/keys && llmops verify && llmops up`
    """
    from llmops_assets.operations.backups import restore as operation

    done = operation(wiring(), actor(), folder, id=id, keys=keys, without_keys=without_keys, say=say)
    if json:
        print_json({"id": done.snapshot.id, "at": done.snapshot.at, "indexes": done.indexes})
        return
    made, place = when(done.snapshot.at), wiring().settings.root
    out.print(f"restored backup {done.snapshot.id} of {made} into {place}", markup=False)
    for what in done.snapshot.outside:
        out.print(f"was not in it: {what}", markup=False)
    out.print("now: llmops verify. Erasures since then are not in it: run `llmops dataset forget` for them again")


def verify(
    folder: Annotated[
        Path | None, typer.Option("--backup", metavar="DIR", help="Read a backup instead, byte by byte.")
    ] = None,
    id: At = None,
    quick: Annotated[bool, typer.Option("--quick", help="See that weights and rows are there; read none.")] = False,
    json: Json = False,
) -> None:
    """See that an installation (or a backup) is what was written: databases, records, rows, weights, indexes, keys.

    Exit 4 when something is missing or was changed; each fault says where and what to do.

    Example: `llmops verify --backup /mnt/backups`
    """
    from llmops_assets.operations.backups import faults_of_backup
    from llmops_assets.operations.verification import verify as operation

    if folder is not None:
        snapshot, faults = faults_of_backup(folder, id, say)
        if json:
            print_json({"id": snapshot.id, "files": len(snapshot.hashes), "faults": faults})
        else:
            for fault in faults:
                out.print(fault, markup=False)
            out.print(f"backup {snapshot.id}: {len(snapshot.hashes):,} files read, {len(faults)} faults", markup=False)
        raise typer.Exit(int(Exit.FAILED if faults else Exit.OK))
    found = operation(wiring(), actor(), quick=quick, say=say)
    if json:
        faults_as_json = [{"where": f.where, "what": f.what, "advice": f.advice} for f in found.faults]
        print_json({"looked_at": found.looked_at, "faults": faults_as_json})
    else:
        show("", ["looked at", "how many"], [[name, f"{count:,}"] for name, count in found.looked_at.items()])
        for fault in found.faults:
            out.print(f"{fault.where}: {fault.what}. {fault.advice}", markup=False)
        out.print(f"{len(found.faults)} faults", markup=False)
    raise typer.Exit(int(Exit.FAILED if found.faults else Exit.OK))


def _list(found: "list[Snapshot]", json: bool) -> None:
    rows = [[one.id, when(one.at), f"{len(one.files):,}", f"{one.bytes:,}", one.platform] for one in found]
    if json:
        print_json([{"id": one.id, "at": one.at, "files": len(one.files), "bytes": one.bytes} for one in found])
        return
    show("", ["backup", "made", "files", "bytes", "by version"], rows)
