"""`llmops deploy`: say what an endpoint shall serve."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Force, Wait, actor, conclude, follow, load_checked, now, out, wiring


def deploy(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A DeploymentSpec.")],
    wait: Wait = False,
    force: Force = False,
) -> None:
    """Bring an endpoint to what the spec says: a new model is answering before any traffic reaches it.

    Example: `llmops deploy examples/specs/deployment.yaml --wait`
    """
    from llmops_assets.operations.endpoints import want_endpoint
    from llmops_assets.specs.deployment import DeploymentSpec

    spec, since = load_checked(file, DeploymentSpec), now()
    for note in spec.notes():
        out.print(f"note: {note}")
    wanted = want_endpoint(wiring(), actor(), spec, force=force)
    out.print(f"wanted: endpoint {wanted.endpoint}, revision {wanted.revision}, model {wanted.model_ref}")
    if wait:
        conclude(follow(wanted.endpoint, "deployment", since=since, timeout=3600))
