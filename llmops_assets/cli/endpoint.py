"""`llmops endpoint …`: what is being served."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import (
    Force,
    Json,
    Wait,
    actor,
    conclude,
    fail,
    follow,
    now,
    out,
    print_json,
    show,
    when,
    wiring,
)

if TYPE_CHECKING:
    from llmops_assets.operations.endpoints import Wanted

app = typer.Typer(help="Endpoints: list, show, advance, pause, promote, rollback, delete.", no_args_is_help=True)


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


def _rollout(name: str) -> str:
    from llmops_assets.operations.rollouts import rollout_of

    found = rollout_of(wiring(), name)
    if found is None:
        return "none on its way"
    step = f"step {found.step.number + 1} of {found.step.last + 1}, {found.step.share:g} % on {found.step.new}"
    return f"{step}; {found.judgement.reason}" + (f"; it waits: {found.waits}" if found.waits else "")


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
            ("rollout", _rollout(name)),
            ("address", f"{w.settings.gateway_url}/v1, model {name}"),
        ],
    )
    show(
        "Backends",
        ["id", "model", "engine", "kind", "state", "url", "message"],
        [[b.id, b.model_ref, b.engine, b.kind, b.state, b.url, (b.message.splitlines() or [""])[0]] for b in backends],
    )


OperationId = Annotated[
    str | None, typer.Option("--operation", help="An id of yours: asked for again under it, nothing more is done.")
]


@app.command()
def advance(name: str, operation: OperationId = None, wait: Wait = False) -> None:
    """Bring a rollout to its next step, whatever holds it: paused, by hand, or too little traffic.

    Example: `llmops endpoint advance desk --wait`
    """
    from llmops_assets.operations.rollouts import advance_rollout

    _show_wanted(advance_rollout, name, operation, wait)


@app.command()
def promote(name: str, operation: OperationId = None, wait: Wait = False) -> None:
    """Give the wanted model all users, without further steps.

    Example: `llmops endpoint promote desk`
    """
    from llmops_assets.operations.rollouts import promote

    _show_wanted(promote, name, operation, wait)


@app.command()
def rollback(
    name: str,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="T|REVISION", help="As it was at a moment (ISO 8601), or as a revision of it."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="With --to: which one, where several shared the users.")
    ] = None,
    shared_index: Annotated[
        bool, typer.Option("--shared-index", help="With --to: other endpoints that search in its index go back too.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --to: say what it would go back to.")] = False,
    operation: OperationId = None,
    wait: Wait = False,
) -> None:
    """Give all users the model that they had before the wanted one; kept warm, it answers at once.

    With --to, model, prompt and index go back together to what was served at a moment, or nothing does.

    Example: `llmops endpoint rollback desk --operation incident-17 --wait`

    Example: `llmops endpoint rollback desk --to 2026-11-30T09:00 --dry-run`
    """
    from llmops_assets.operations.rollbacks import roll_back_to, way_back
    from llmops_assets.operations.rollouts import roll_back

    if to is None:
        if model is not None or shared_index or dry_run:
            fail("--model, --shared-index and --dry-run go with --to")
        _show_wanted(roll_back, name, operation, wait)
        return
    if dry_run:
        print_json(way_back(wiring(), name, to, model=model).as_dict())
        return
    _show_wanted(partial(roll_back_to, to=to, model=model, shared_index=shared_index), name, operation, wait)


@app.command()
def pause(name: str, operation: OperationId = None) -> None:
    """Have a rollout wait in its step until somebody advances it.

    Example: `llmops endpoint pause desk`
    """
    from llmops_assets.operations.rollouts import hold_rollout

    changed = hold_rollout(wiring(), actor(), name, operation=operation)
    out.print(f"{'paused' if changed else 'was paused already'}: {name}")


def _show_wanted(operation: "Callable[..., Wanted]", name: str, id: str | None, wait: bool) -> None:
    since = now()
    wanted = operation(wiring(), actor(), name, operation=id)
    out.print(f"wanted: endpoint {wanted.endpoint}, revision {wanted.revision}, model {wanted.model_ref}")
    if wait:
        conclude(follow(wanted.endpoint, "deployment", since=since, timeout=3600))


@app.command()
def delete(name: str, force: Force = False, operation: OperationId = None) -> None:
    """Stop an endpoint's model servers and forget it. What could not be stopped stays on record.

    Example: `llmops endpoint delete desk`
    """
    from llmops_assets.operations.endpoints import delete_endpoint

    delete_endpoint(wiring(), actor(), name, force=force, operation=operation)
    out.print(f"deleted: {name}")


@app.command("refused")
def refused_(
    name: str,
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back.")] = 7,
    json: Json = False,
) -> None:
    """Show which requests to an endpoint reached no model: why, how many, and of whom.

    Example: `llmops endpoint refused desk`
    """
    from dataclasses import asdict

    from llmops_assets.operations.refused_requests import refused_requests

    found = refused_requests(wiring(), actor(), name, days=days)
    if json:
        print_json(asdict(found))
        return
    rows = [[one.reason, str(one.status), f"{one.requests:,}"] for one in found.reasons]
    head = f"{name}: {found.requests:,} refused, {found.answered:,} answered in {found.days} days"
    show(head, ["reason", "status", "requests"], rows)
    if found.callers:
        whose = [[c.caller or "nobody known", c.owner, c.team, c.reason, f"{c.requests:,}"] for c in found.callers]
        show("of whom", ["caller", "owner", "team", "reason", "requests"], whose)


@app.command("shadow")
def shadow_(
    name: str,
    candidate: Annotated[
        str | None, typer.Option(help="The endpoint that was copied to. Default: the last one.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="How far back.")] = 7,
    json: Json = False,
) -> None:
    """Show what a candidate said to copies of an endpoint's requests, beside what its users got.

    Requests are copied where the spec says so, as in `shadow: {endpoint: desk-next, percent: 10}`.

    Example: `llmops endpoint shadow desk`
    """
    from dataclasses import asdict

    from llmops_assets.operations.shadows import shadow_report

    found = shadow_report(wiring(), actor(), name, candidate=candidate, days=days)
    if json:
        print_json(asdict(found))
        return
    rows = [
        ["copied", f"{found.copied:,} in {found.days} days, to {found.candidate} ({found.model_ref})"],
        ["answered, refused, failed", f"{found.answered:,}, {found.refused:,}, {found.failed:,}"],
        *(["error", f"{count:,} × {error}"] for error, count in found.errors),
        ["compared", f"{found.pairs:,} answers of {found.users:,} users"],
    ]
    if found.pairs:
        then, now_ = found.latency_ms or (0.0, 0.0)
        short, long = found.length or (0.0, 0.0)
        rows += [
            ["agreement", f"{found.agreement:.0%}, the same {found.same:.0%}"],
            ["latency (median)", f"{then:,.0f} ms -> {now_:,.0f} ms"],
            ["length (mean)", f"{short:,.0f} -> {long:,.0f} characters"],
            ["refusals, empty, cut", ", ".join(f"{a} -> {b}" for a, b in (found.refusals, found.empty, found.cut))],
            ["new personal data", str(found.personal)],
        ]
        if found.win_share is not None:
            share, low, high = found.win_share
            rows.append(["better answers", f"{share:.0%} (always-valid interval {low:.0%} to {high:.0%})"])
    show(f"{name}: what {found.candidate} would have answered", ["", ""], rows)
    if found.changed:
        show("changed most", ["question", "then", "now"], [list(one.values()) for one in found.changed])
