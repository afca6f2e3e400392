"""`llmops usage`: who used how much of which model."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, print_json, show, wiring


def usage(
    by: Annotated[
        list[str] | None, typer.Option(help="key, team, endpoint, model or day; again for several at once.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="First day, YYYY-MM-DD in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="Last day, the same.")] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="With GPU seconds, energy, minutes of people and what it cost.")
    ] = False,
    price: Annotated[
        str | None, typer.Option(metavar="ENDPOINT", help="What each improvement of an endpoint cost instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Show requests and tokens by key, team, endpoint, model or day, most tokens first.

    Refused are further ones, which reached no model (limits, guards, a wrong request). Tokens that no model server
    counted, of streams that broke off, are estimated: they are among the others, and in a column of their own.
    `--cost` adds what trainings and reviews took, at the policy's prices.

    Example: `llmops usage --by team --by model --since 2026-11-01`
    """
    if price is not None:
        _improvements(price, json)
        return
    if cost:
        _spending(by or ["model"], since, until, json)
        return
    from llmops_assets.operations.usage import BY, usage_by

    chosen = [name for name in BY if name in (by or ["key"])] + [name for name in by or [] if name not in BY]
    found = usage_by(wiring(), actor(), chosen, since=since, until=until)
    if json:
        print_json(found)
        return
    sums = ("requests", "failed", "refused", "prompt_tokens", "completion_tokens", "estimated_tokens")
    show(
        "",
        [*chosen, *(name.replace("_", " ") for name in sums)],
        [[*(row[BY[name]] or "(none)" for name in chosen), *(f"{row[name]:,}" for name in sums)] for row in found],
    )


def _spending(by: list[str], since: str | None, until: str | None, json: bool) -> None:
    from llmops_assets.operations.spending import spending_by

    found = spending_by(wiring(), actor(), by, since=since, until=until)
    if json:
        print_json(found)
        return
    columns = [*by, "requests", "tokens", "GPU seconds", "CPU seconds", "kWh", "minutes of people", "cost"]
    show("", columns, [
        [*(row[name] or "(none)" for name in by), f"{row['requests']:,}", f"{row['tokens']:,}",
         f"{row['gpu_seconds']:,.0f}", f"{row['cpu_seconds']:,.0f}", f"{row['kwh']:.3f}", f"{row['human_minutes']:.0f}",
         f"{row['cost']:,.2f} {row['currency']}"]
        for row in found
    ])  # fmt: skip


def _improvements(endpoint: str, json: bool) -> None:
    from dataclasses import asdict

    from llmops_assets.operations.spending import improvements
    from llmops_assets.usage.report import table

    found = improvements(wiring(), actor(), endpoint)
    if json:
        print_json([asdict(one) for one in found])
        return
    currency = wiring().policy.prices.currency
    rows = table(found, currency)
    show(f"what improvements of {endpoint} cost", list(rows[0]) if rows else [], [list(row.values()) for row in rows])
