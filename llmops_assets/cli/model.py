"""`llmops model …`: the registry, and base models of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, show, wiring

app = typer.Typer(help="Models: list and show versions; register and approve base models.", no_args_is_help=True)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only versions of this model.")] = None, json: Json = False
) -> None:
    """List registered versions, newest first, and base models.

    Example: `llmops model list --json`
    """
    w = wiring()
    versions = w.tracking.models(name)
    bases = w.catalog.base_models()
    if json:
        print_json({"versions": [_plain(v) for v in versions], "base_models": [vars(b) for b in bases]})
        return
    show(
        "Registered versions",
        ["model", "state", "aliases", "created"],
        [[v.ref, v.state, ", ".join(v.aliases), str(v.created_at)[:16]] for v in versions],
    )
    if bases:
        show("Base models", ["ref", "family", "state", "path"], [[b.ref, b.family, b.state, b.path] for b in bases])


def _plain(version) -> dict:
    return {**vars(version), "ref": version.ref, "state": version.state}


@app.command("show")
def show_(ref: Annotated[str, typer.Argument(metavar="NAME@VERSION|NAME@ALIAS")], json: Json = False) -> None:
    """Show one version with its model card.

    Example: `llmops model show desk-tuned@1`
    """
    w = wiring()
    version, record = w.tracking.version(ref), w.tracking.model(ref)
    if json:
        print_json({**_plain(version), "record": record.model_dump(mode="json")})
        return
    out.print(Path(record.card).read_text(encoding="utf-8") if record.card else version.ref, markup=False)


@app.command()
def register(
    ref: Annotated[str, typer.Argument(metavar="hf:PATH", help="hf: and a folder, or a hub id in the local cache.")],
    family: Annotated[str, typer.Option(help="A family of the policy.")],
    license: Annotated[str | None, typer.Option(help="Licence of the model.")] = None,
) -> None:
    """Register a base model as a draft; its family is verified against its own config.json.

    Example: `llmops model register hf:/models/Qwen3-0.6B --family qwen --license apache-2.0`
    """
    from llmops_assets.training.base import inspect_base

    w = wiring()
    found = inspect_base(ref, family, w.policy)
    entry = w.catalog.register_base(
        ref, family=family, path=found.path, content_hash=found.content_hash, license=license, actor=actor()
    )
    out.print(f"{entry.ref}: {entry.state}. Approve it with: llmops model approve {entry.ref}")


@app.command()
def approve(ref: Annotated[str, typer.Argument(metavar="hf:PATH")]) -> None:
    """Let trainings start from a registered base model.

    Example: `llmops model approve hf:/models/Qwen3-0.6B`
    """
    entry = wiring().catalog.approve_base(ref, actor())
    out.print(f"{entry.ref}: {entry.state} by {entry.approved_by}")
