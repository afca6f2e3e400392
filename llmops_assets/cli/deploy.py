"""`llmops deploy`: say what an endpoint shall serve."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import (
    Exit,
    Force,
    Json,
    Wait,
    actor,
    conclude,
    fail,
    follow,
    load_checked,
    now,
    out,
    print_json,
    wiring,
)
from llmops_assets.specs.deployment import DeploymentSpec

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what it would do, and do nothing.")]


def deploy(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A DeploymentSpec.")],
    wait: Wait = False,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Bring an endpoint to what the spec says: a new model is answering before any traffic reaches it.

    Example: `llmops deploy examples/specs/deployment.yaml --wait`
    """
    from llmops_assets.operations.endpoints import want_endpoint

    spec, since = load_checked(file, DeploymentSpec), now()
    if dry_run:
        _preview(spec, json)
        return
    for note in spec.notes():
        out.print(f"note: {note}")
    wanted = want_endpoint(wiring(), actor(), spec, force=force)
    out.print(f"wanted: endpoint {wanted.endpoint}, revision {wanted.revision}, model {wanted.model_ref}")
    if wait:
        conclude(follow(wanted.endpoint, "deployment", since=since, timeout=3600))


def _preview(spec: DeploymentSpec, json: bool) -> None:
    """Print what a deployment would do; exit code 3 where it would be refused."""
    from dataclasses import asdict

    from llmops_assets.operations.deployment_preview import preview_deployment

    found = preview_deployment(wiring(), actor(), spec)
    if json:
        print_json(asdict(found))
    else:
        out.print(f"endpoint {found.endpoint}: {found.model_ref}, {found.backend}")
        for check in found.checks:
            out.print(f"check {check.name} {check.state}: {check.text}", markup=False)
        for number, step in enumerate(found.steps, start=1):
            out.print(f"{number}. {step}", markup=False)
        for note in found.notes:
            out.print(f"note: {note}", markup=False)
    if found.refused:
        fail(f"it would be refused, and nothing would change: {'; '.join(found.refused)}", Exit.WITHHELD)
