"""`llmops model …`: the registry, and base models of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli import model_compare, model_dossier, model_steps
from llmops_assets.cli.common import Json, actor, out, print_json, show, when, wiring

app = typer.Typer(help="Models: versions and their way to production; base models.", no_args_is_help=True)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only versions of this model.")] = None,
    sort: Annotated[str, typer.Option(help="created_at, updated_at, name, version or state.")] = "created_at",
    ascending: Annotated[bool, typer.Option("--ascending", help="Oldest or smallest first.")] = False,
    state: Annotated[str | None, typer.Option(help="Only draft, approved, staging, production or archived.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="No more than so many versions.")] = None,
    json: Json = False,
) -> None:
    """List registered versions, newest first, and base models.

    Example: `llmops model list desk-tuned --state staging --json`
    """
    from llmops_assets.operations.models import list_versions

    w = wiring()
    versions = list_versions(w, name, sort=sort, ascending=ascending, state=state, limit=limit)
    bases = w.catalog.base_models() if name is None else []
    if json:
        print_json({"versions": [_plain(v) for v in versions], "base_models": [vars(b) for b in bases]})
        return
    columns = ["model", "state", "aliases", "dataset", "recipe", "created"]
    show("Registered versions", columns, [_row(v) for v in versions])
    if bases:
        show("Base models", ["ref", "family", "state", "path"], [[b.ref, b.family, b.state, b.path] for b in bases])


def _row(version) -> list[str | None]:
    lineage = [version.tags.get("dataset"), version.tags.get("recipe")]
    return [version.ref, _state(version), ", ".join(version.aliases), *lineage, when(version.created_at)]


def _state(version) -> str:
    """Its state, and the erasures that it is affected by."""
    from resources.catalog.erasures import TAG

    numbers = version.tags.get(TAG)
    return f"{version.state}, affected by erasure {numbers}" if numbers else version.state


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
    from llmops_assets.operations.models import register_base

    entry = register_base(wiring(), actor(), ref, family=family, license=license)
    out.print(f"{entry.ref}: {entry.state}. Approve it with: llmops model approve {entry.ref}")


model_steps.add_to(app)
model_compare.add_to(app)
model_dossier.add_to(app)
