"""`llmops spec …`: check what was written before anything runs."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, out, print_faults, print_json, wiring

app = typer.Typer(help="Specs: validate files.", no_args_is_help=True)


@app.command()
def validate(files: Annotated[list[Path], typer.Argument(metavar="FILE…")], json: Json = False) -> None:
    """Report every fault of every file, each with its field path; exit 1 when there is one.

    Example: `llmops spec validate examples/specs/*.yaml`
    """
    from llmops_assets.specs.files import read_checked

    policy = wiring().policy
    read = {str(path): read_checked(path, policy) for path in files}
    faults = {file: found for file, (_, found) in read.items()}
    notes = {file: spec.notes() if spec and not found else [] for file, (spec, found) in read.items()}
    if json:
        print_json(
            [
                {"file": file, "valid": not found, "faults": [fault.as_dict() for fault in found], "notes": notes[file]}
                for file, found in faults.items()
            ]
        )
    else:
        for file, found in faults.items():
            if found:
                print_faults(found)
            else:
                out.print(f"{file}: valid")
                for note in notes[file]:
                    out.print(f"  note: {note}")
    if any(faults.values()):
        raise typer.Exit(int(Exit.INVALID))
