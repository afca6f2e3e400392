"""`llmops audit …`: who did what, and that nobody changed it since."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, actor, fail, out, print_json, show, when, wiring
from llmops_assets.operations.errors import Refused

app = typer.Typer(help="The audit log: list, verify, export.", no_args_is_help=True)


@app.command("list")
def list_(
    target: Annotated[str | None, typer.Argument(help="Only lines about it: a version, a model, an endpoint.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="No more than so many lines.")] = 50,
    json: Json = False,
) -> None:
    """List the newest lines of the audit log, newest first.

    Example: `llmops audit list desk@v1`
    """
    from llmops_assets.operations.audit import list_lines

    lines = list_lines(wiring(), actor(), target=target, limit=limit)
    if json:
        print_json(lines)
        return
    rows = [[line["id"], when(line["at"]), line["actor"], line["action"], line["target"]] for line in lines]
    show("", ["line", "at", "who", "what", "of"], rows)


@app.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="An exported log; left out, that of the catalog.")] = None,
    head: Annotated[
        str | None, typer.Option(metavar="LINES:SHA256", help="An end that was written down elsewhere before.")
    ] = None,
    json: Json = False,
) -> None:
    """Follow the chain of the audit log: a line that was changed, removed or put there is found. Exit 4 if one was.

    Write the end that it prints down elsewhere: who can write to the database could write a new chain into it.

    Example: `llmops audit verify --head 1042:9f86d081…`
    """
    from llmops_assets.operations.audit import verify_file, verify_log
    from resources.catalog.audit_chain import Head

    known = None
    if head is not None:
        lines, _, sha256 = head.partition(":")
        if not lines.isdigit() or len(sha256) != 64:
            raise Refused(f"--head {head}: write it as it was printed, LINES:SHA256 with 64 digits")
        known = Head(int(lines), sha256)
    if file is not None and known is not None:
        raise Refused("--head is for the catalog's log; an exported one has its end in it")
    proof = verify_file(file) if file is not None else verify_log(wiring(), actor(), known)
    if json:
        print_json(proof.as_dict())
    for broken in proof.broken if not json else ():
        where = "at its end" if broken.line is None else f"line {broken.line}"
        out.print(f"{where}: {broken.reason}", markup=False)
    if proof.broken:
        fail("the audit log is not what was written", Exit.FAILED)
    if not json:
        out.print(f"whole: {proof.head.lines} lines. Its end: {proof.head.lines}:{proof.head.sha256}")


@app.command()
def export(file: Annotated[Path, typer.Argument(help="A new file, JSON lines.")]) -> None:
    """Write the whole audit log to a file, with the hashes by which `verify` proves it.

    Example: `llmops audit export audit.jsonl`
    """
    from llmops_assets.operations.audit import export_log

    head = export_log(wiring(), actor(), file)
    out.print(f"wrote {head.lines} lines to {file}. Its end: {head.lines}:{head.sha256}", markup=False)
