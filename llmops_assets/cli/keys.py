"""`llmops keys …`: encryption at rest: make keys, change them, and open what is sealed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, actor, fail, hand_out, out, print_json, say, wiring

app = typer.Typer(
    help="Encryption at rest: make keys, change them, open sealed files. (Keys of the gateway: `llmops key`.)",
    no_args_is_help=True,
)


@app.command()
def new(
    file: Annotated[Path | None, typer.Option("--out", help="Write it here, readable by you alone.")] = None,
) -> None:
    """Make a key of 256 bits for LLMOPS_ENCRYPTION_KEY, or a file for LLMOPS_ENCRYPTION_KEY_FILE.

    Lose it, and what it sealed is lost: keep a copy where the data is not.

    Example: `llmops keys new --out /etc/llmops/key`
    """
    from resources.encryption import new_key

    hand_out(new_key(), file, "LLMOPS_ENCRYPTION_KEY_FILE")


@app.command()
def status(json: Json = False) -> None:
    """Count the files that hold rows by the key that they are sealed with.

    Example: `llmops keys status --json`
    """
    from resources import at_rest

    w = wiring()
    found, ids = at_rest.status(w.artifacts, w.records), w.keys.ids
    if json:
        print_json({"sealing_key": ids[0] if ids else None, "keys": ids, "files": found})
        return
    out.print(f"sealing key: {ids[0] if ids else 'none: new files are not sealed'}")
    for key, count in sorted(found.items()):
        known = "" if key in ids else " (not sealed)" if key == "plain" else " (this key is not here)"
        out.print(f"{count:8,} files {key}{known}")


@app.command()
def rotate(json: Json = False) -> None:
    """Seal everything that holds rows with the first key: what is plain, and what has an older key.

    To change the key, set the new one first and the old one behind it (`LLMOPS_ENCRYPTION_KEY=NEW,OLD`, or both as
    lines of the key file), restart the platform with that, run this, then take the old one away. Cut off, run it
    again. No version changes: rows are addressed by their plain bytes.

    Example: `LLMOPS_ENCRYPTION_KEY=$NEW,$OLD llmops keys rotate`
    """
    from llmops_assets.local.stack import running
    from llmops_assets.operations.keys import rotate_keys

    w, state = wiring(), running(wiring().settings)
    done = rotate_keys(
        w,
        actor(),
        # A platform of an earlier version does not say which keys it has.
        None if state is None else state.get("keys"),
        lambda count: say(f"{count:,} files") if count % 1000 == 0 else None,
    )
    if json:
        counts = {"sealed": done.sealed, "changed": done.changed, "kept": done.kept, "waiting": done.waiting}
        print_json({"key": w.keys.ids[0], **counts})
        return
    if done.waiting:
        say(
            f"{done.waiting:,} files of the gateway's log wait to be shipped and have an older key: keep it until "
            "another run of this command finds none"
        )
    out.print(
        f"key {w.keys.ids[0]}: {done.sealed:,} plain files sealed, {done.changed:,} changed from another key, "
        f"{done.kept:,} had it already ({done.bytes:,} bytes written)"
    )


@app.command("open")
def open_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A sealed file, for example a report.")],
    target: Annotated[Path | None, typer.Option("--out", help="Where to; stdout without it.")] = None,
) -> None:
    """Write what is in a sealed file: a report to look at, an upload to take back.

    Example: `llmops keys open .llmops/artifacts/reports/desk@v1/quality.html --out report.html`
    """
    import shutil

    from resources.files import replacing

    if not file.is_file():
        fail(f"there is no file {file}", Exit.INVALID)
    with wiring().keys.reader(file.open("rb"), file) as source:
        if target is None:
            shutil.copyfileobj(source, sys.stdout.buffer)
            return
        with replacing(target, mode=0o600) as stream:
            shutil.copyfileobj(source, stream)
    out.print(f"wrote {target}", markup=False)
