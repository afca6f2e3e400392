"""`llmops model dossier|state`: the technical documentation of a version, and what people state of its gaps."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, wiring

Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION|NAME@ALIAS")]


def dossier(
    ref: Ref,
    to: Annotated[
        Path | None, typer.Option("--to", help="File to write; NAME-VERSION-dossier.LANG.html (or .pdf) here.")
    ] = None,
    language: Annotated[str, typer.Option("--language", "-l", help="en or ko.")] = "en",
    pdf: Annotated[bool, typer.Option("--pdf", help="Write a PDF: pip install 'llmops[pdf]'.")] = False,
    json: Json = False,
) -> None:
    """Write the technical documentation of a version from its lineage: one HTML file, or a PDF.

    What the platform does not know is named as a gap; `llmops model state` fills one. It is no legal advice.

    Example: `llmops model dossier desk-tuned@1 --language ko --pdf`
    """
    from llmops_assets.operations import dossiers
    from llmops_assets.registry.dossier.content import label, words

    found = dossiers.dossier(wiring(), ref)
    if json:
        sections = [
            {
                "section": section.name,
                "facts": [
                    {"name": f.name, "label": label(f, "en"), "text": words(f, "en"), "source": f.source.text}
                    for f in section.facts
                ],
                "gaps": [
                    {"name": g.name, "statement": vars(g.statement) if g.statement else None} for g in section.gaps
                ],
            }
            for section in found.sections
        ]
        print_json({"ref": found.ref, "at": found.at, "open_gaps": found.open_gaps, "sections": sections})
        return
    kind = "pdf" if pdf else "html"
    path = to or Path(f"{found.ref.replace('@', '-')}-dossier.{language}.{kind}")
    path.write_bytes(dossiers.pdf_of(found, language) if pdf else dossiers.page_of(found, language).encode())
    out.print(f"{path}: {found.ref}", markup=False, soft_wrap=True)
    if gaps := found.open_gaps:
        out.print(f"{len(gaps)} gaps to state: {', '.join(gaps)}", markup=False)
        out.print(f'State one with: llmops model state {found.ref} {gaps[0]} "…"', markup=False)


def state(
    ref: Ref,
    gap: Annotated[str, typer.Argument(help="Name of a gap, as `llmops model dossier` lists them.")],
    text: Annotated[str, typer.Argument(help="What is so; - reads it from standard input.")],
) -> None:
    """State what lineage cannot tell of a version; it is kept with your name and the date.

    Example: `llmops model state desk-tuned@1 intended_purpose "Answers questions of motorway users about tolls."`
    """
    from llmops_assets.operations import dossiers

    words = typer.get_text_stream("stdin").read() if text == "-" else text
    kept = dossiers.state(wiring(), actor(), ref, gap, words)
    out.print(f"{kept.ref}: {gap} stated by {kept.author}", markup=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands to those of `llmops model`."""
    app.command()(dossier)
    app.command()(state)
