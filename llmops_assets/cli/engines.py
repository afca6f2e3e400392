"""`llmops engines …`: the environments of engines that pin other versions than ours."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, fail, out, print_json, show, wiring

app = typer.Typer(help="Engines with an environment of their own: list and install.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the engines, and which of them are installed.

    Example: `llmops engines list`
    """
    engines = wiring().engines
    rows = [
        {"engine": name, "ready": engines.ready(name), "folder": str(engines.root / name)} for name in engines.names()
    ]
    if json:
        print_json(rows)
        return
    show("", ["engine", "state", "folder"], [[r["engine"], "ready" if r["ready"] else "-", r["folder"]] for r in rows])


@app.command()
def install(
    names: Annotated[list[str] | None, typer.Argument(metavar="ENGINE…", help="Left out: all of them.")] = None,
) -> None:
    """Make the environments of engines; what is there already is left alone.

    Example: `llmops engines install compression`, or `make engines ENGINE=compression`
    """
    from resources.engines import EngineError

    engines = wiring().engines
    for name in names or engines.names():
        try:
            engines.install(name, out.print)
        except EngineError as error:
            fail(str(error), Exit.FAILED)
