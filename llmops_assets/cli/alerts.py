"""`llmops alerts …`: what is wrong at present, who takes it on, and whether the daemon lives."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, show, wiring

app = typer.Typer(help="What is wrong at present, and who takes it on.", no_args_is_help=True)


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also what is over.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="So many at most.")] = 200,
    json: Json = False,
) -> None:
    """List alerts, the newest first.

    Example: `llmops alerts list`
    """
    from llmops_assets.operations.alerts import list_alerts

    found = list_alerts(wiring(), actor(), is_open=None if all_ else True, limit=limit)
    if json:
        print_json([vars(one) for one in found])
        return
    show(
        "alerts",
        ["id", "since", "", "about", "state", "what"],
        [
            (one.id, f"{one.first_at:%Y-%m-%d %H:%M}", one.severity, f"{one.kind}: {one.subject}",
             "over" if one.resolved_at else f"with {one.acked_by}" if one.acked_by else "open", one.text)
            for one in found
        ],
    )  # fmt: skip
    for message in wiring().catalog.alerts.undelivered()[:5]:
        out.print(f"alert {message['alert']} did not reach {message['channel']}: {message['error']}")


@app.command("ack")
def ack_(id: Annotated[int, typer.Argument(metavar="ID", help="Of the alert.")]) -> None:
    """Take an alert on, so that others know.

    Example: `llmops alerts ack 3`
    """
    from llmops_assets.operations.alerts import ack

    is_new = ack(wiring(), actor(), id)
    out.print(f"alert {id}: {'you have it' if is_new else 'somebody has it already'}")


@app.command()
def heartbeat(
    tell: Annotated[
        bool, typer.Option(help="Tell the channels of the policy when it is dead, and when it is back.")
    ] = True,
) -> None:
    """Exit with 5 when Dagster's daemon gave no sign for too long: for cron or a timer, outside of the platform.

    Example: `llmops alerts heartbeat`
    """
    from llmops_assets.operations.alerts import assert_alive, watch_heartbeat

    if tell:
        for line in watch_heartbeat(wiring()).undelivered:
            out.print(line)
    last = assert_alive(wiring())
    out.print(f"the daemon lives: last sign at {last:%Y-%m-%d %H:%M:%S} UTC")
