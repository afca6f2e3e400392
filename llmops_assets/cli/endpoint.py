"""`llmops endpoint …`: what is being served."""

import typer

from llmops_assets.cli.common import Force, Json, actor, out, print_json, show, when, wiring

app = typer.Typer(help="Endpoints: list, show, delete.", no_args_is_help=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List endpoints, newest first.

    Example: `llmops endpoint list`
    """
    endpoints = wiring().catalog.endpoints()
    if json:
        print_json([_plain(e) for e in endpoints])
        return
    show(
        "",
        ["endpoint", "state", "environment", "traffic", "revision", "updated"],
        [
            [
                e.name,
                e.state,
                e.spec.environment,
                _traffic(e.routes),
                f"{e.observed_revision}/{e.revision}",
                when(e.updated_at),
            ]
            for e in endpoints
        ],
    )


def _plain(endpoint) -> dict:
    return {**vars(endpoint), "spec": endpoint.spec.model_dump(mode="json")}


def _traffic(routes: list[dict]) -> str:
    return ", ".join(f"{r['model_ref']} {r['weight']:g}" for r in routes) or "none"


@app.command("show")
def show_(name: str, json: Json = False) -> None:
    """Show an endpoint and its backends.

    Example: `llmops endpoint show desk`
    """
    w = wiring()
    endpoint = w.catalog.endpoint(name)
    backends = w.catalog.backends(name)
    if json:
        print_json({**_plain(endpoint), "backends": [vars(b) for b in backends]})
        return
    show(
        name,
        ["", ""],
        [
            ("state", endpoint.state),
            ("message", endpoint.message),
            ("wanted", endpoint.spec.model_ref),
            ("traffic", _traffic(endpoint.routes)),
            ("phase", endpoint.phase),
            ("address", f"{w.settings.gateway_url}/v1, model {name}"),
        ],
    )
    show(
        "Backends",
        ["id", "model", "engine", "state", "url"],
        [[b.id, b.model_ref, b.engine, b.state, b.url] for b in backends],
    )


@app.command()
def delete(name: str, force: Force = False) -> None:
    """Stop an endpoint's model servers and forget it. What could not be stopped stays on record.

    Example: `llmops endpoint delete desk`
    """
    from llmops_assets.operations.endpoints import delete_endpoint

    delete_endpoint(wiring(), actor(), name, force=force)
    out.print(f"deleted: {name}")
