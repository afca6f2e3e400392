"""`llmops model compare|card`: two versions side by side, and what is known of one."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, out, print_json, show, wiring

Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION|NAME@ALIAS")]


def compare(
    first: Ref,
    second: Ref,
    most: Annotated[int, typer.Option(min=1, help="Differing answers to show.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write the comparison to this HTML file too.")] = None,
    json: Json = False,
) -> None:
    """Compare two versions: figures with intervals, McNemar's test on the same items, answers, settings and data.

    Example: `llmops model compare desk-tuned@production desk-tuned@3 --html compared.html`
    """
    from llmops_assets import plots
    from llmops_assets.registry import compare_report
    from llmops_assets.registry.compare import compare as compared
    from llmops_assets.registry.compared_model import compared_model_of

    w = wiring()
    models = [compared_model_of(w.tracking.model(ref), w.records) for ref in (first, second)]
    found = compared(*models)
    if html is not None:
        html.write_text(compare_report.page(found, plots.data_uri(compare_report.plot(found))), encoding="utf-8")
    if json:
        print_json(compare_report.as_json(found))
        return
    out.print(compare_report.headline(found), markup=False)
    for note in found.notes:
        out.print(note, markup=False)
    for title, columns, rows in compare_report.tables(found, most):
        out.print()
        show(title, columns, rows)
    if html is not None:
        out.print(f"\nwritten: {html}", markup=False)


def card(
    ref: Ref,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write it there instead.")] = None,
) -> None:
    """Print a version's model card: Markdown with the front matter of the Hugging Face hub.

    Example: `llmops model card desk-tuned@3 -o README.md`
    """
    model = wiring().tracking.model(ref)
    if not model.card or not Path(model.card).is_file():
        raise ValueError(f"{model.ref} has no card: materialise `registered_model` of {model.dataset}|{model.recipe}")
    text = Path(model.card).read_text(encoding="utf-8")
    if output is not None:
        output.write_text(text, encoding="utf-8")
        out.print(f"written: {output}", markup=False)
    else:
        typer.echo(text, nl=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `llmops model`."""
    for command in (compare, card):
        app.command()(command)
