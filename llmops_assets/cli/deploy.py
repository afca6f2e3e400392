"""`llmops deploy`: say what an endpoint shall serve."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Wait, actor, conclude, follow, load_checked, now, out, wiring


def deploy(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A DeploymentSpec.")], wait: Wait = False
) -> None:
    """Bring an endpoint to what the spec says: a new model is answering before any traffic reaches it.

    Example: `llmops deploy examples/specs/deployment.yaml --wait`
    """
    from llmops_assets.specs.deployment import DeploymentSpec

    w = wiring()
    spec = load_checked(file, DeploymentSpec)
    refuse_affected(spec.model_ref)
    since = now()
    endpoint = w.catalog.want_endpoint(spec, actor())
    out.print(f"wanted: endpoint {endpoint.name}, revision {endpoint.revision}, model {spec.model_ref}")
    if wait:
        conclude(follow(endpoint.name, "deployment", since=since, timeout=3600))


def refuse_affected(*refs: str) -> None:
    """Raise ModelAffected for a model that has learned from rows that were erased since.

    A model that is not there yet is for the graph to judge.
    """
    from resources.erasures import assert_not_affected
    from resources.tracking import UnknownModel

    w = wiring()
    for ref in refs:
        try:
            version = w.tracking.version(ref)
        except (UnknownModel, ValueError):
            continue
        assert_not_affected(w.catalog, ref=version.ref, content_hash=version.tags.get("content_hash"))
