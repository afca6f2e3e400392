"""`llmops ab …`: compare two models on live traffic."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import Json, actor, load_checked, out, print_json, say, show, when, wiring

if TYPE_CHECKING:
    from llmops_assets.operations.experiments import Ended

app = typer.Typer(help="A/B tests: create, report, end; analyse any log.", no_args_is_help=True)


@app.command()
def create(file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="An ExperimentSpec.")]) -> None:
    """Start an A/B test between the two models that an endpoint serves.

    Example: `llmops ab create examples/specs/experiment.yaml`
    """
    from llmops_assets.operations.experiments import start_experiment
    from llmops_assets.specs.experiment import ExperimentSpec

    done = start_experiment(wiring(), actor(), load_checked(file, ExperimentSpec))
    out.print(f"{'running' if done.new else 'running already'}: experiment {done.name} on endpoint {done.endpoint}")
    for note in done.notes:
        say(f"note: {note}")


@app.command()
def report(name: str, json: Json = False) -> None:
    """Show the state of an A/B test, and its decision once there is one.

    Example: `llmops ab report base-or-tuned`
    """
    from llmops_assets.operations.experiments import experiment_report

    found = experiment_report(wiring(), name)
    experiment, record = found.experiment, found.analysis
    if json:
        print_json(
            {
                "experiment": name,
                "state": experiment.state,
                "decision": experiment.decision,
                "withheld": experiment.withheld,
                "report": record.model_dump(mode="json") if record else None,
            }
        )
        return
    rows: list[tuple[str, object]] = [("state", experiment.state), ("decision", experiment.decision or "none yet")]
    rows += [("withheld", experiment.withheld)] if experiment.withheld else []
    if record:
        rows += [("reason", record.reason)]
        rows += [(f"users, {arm}", n) for arm, n in record.users.items()]
        rows += [(key, value) for key, value in record.figures.items() if not isinstance(value, (dict, list))]
    show(name, ["", ""], rows)


@app.command("list")
def list_(
    state: Annotated[str | None, typer.Option(help="running or concluded; left out: both.")] = None, json: Json = False
) -> None:
    """List A/B tests, newest first.

    Example: `llmops ab list --state running`
    """
    from llmops_assets.operations.experiments import list_experiments

    found = list_experiments(wiring(), state)
    if json:
        print_json([{**vars(e), "spec": e.spec.model_dump(mode="json")} for e in found])
        return
    rows = [[e.name, e.endpoint, e.state, e.decision, when(e.started_at), when(e.acted_at), e.withheld] for e in found]
    show("", ["experiment", "endpoint", "state", "decision", "started", "carried out", "withheld"], rows)


@app.command("show")
def show_(name: str, json: Json = False) -> None:
    """Show an A/B test: its design, its newest figures, and its decision once there is one.

    Example: `llmops ab show base-or-tuned`
    """
    report(name, json)


@app.command()
def stop(name: str, reason: Annotated[str | None, typer.Option(help="For the record.")] = None) -> None:
    """End a running A/B test without a winner: the control gets all users.

    Example: `llmops ab stop base-or-tuned --reason "the prompt was wrong"`
    """
    from llmops_assets.operations.experiments import stop_experiment

    _say_ended(stop_experiment(wiring(), actor(), name, reason))


@app.command()
def conclude(
    name: str,
    winner: Annotated[str, typer.Option(help="control, treatment, or of several the model: it gets all users.")],
) -> None:
    """Choose the winner by hand, or carry out a decision that was left to people (`auto_promote: false`).

    Example: `llmops ab conclude base-or-tuned --winner treatment`
    """
    from llmops_assets.operations.experiments import conclude_experiment

    if winner not in ("control", "treatment") and "@" not in winner:
        raise typer.BadParameter("control, treatment, or NAME@VERSION of a model", param_hint="--winner")
    _say_ended(conclude_experiment(wiring(), actor(), name, winner))


@app.command()
def extend(name: str, hours: Annotated[float, typer.Option(help="How long it lasts in all.")]) -> None:
    """Let a running A/B test last longer; its sequence holds at every look, so nothing is lost by it.

    Example: `llmops ab extend base-or-tuned --hours 336`
    """
    from llmops_assets.operations.experiments import extend_experiment

    new = extend_experiment(wiring(), actor(), name, hours)
    out.print(f"{'extended' if new else 'it does so already'}: experiment {name} lasts {hours:g} hours in all")


def _say_ended(ended: "Ended") -> None:
    done = "is over" if ended.new else "was over before"
    out.print(f"experiment {ended.name} {done}: {ended.decision}, {ended.reason}", markup=False)
    if ended.new and ended.winner:
        out.print(f"wanted: {ended.winner} for all users")


@app.command()
def holdout(endpoint: str, json: Json = False) -> None:
    """Say what new models gained over the one from before, by the users who are held out (`holdout` of a deployment).

    Example: `llmops ab holdout desk`
    """
    from llmops_assets.operations.experiments import holdout_gain

    found = holdout_gain(wiring(), endpoint)
    if json:
        print_json(found.figures)
        return
    rows = [(key.replace("_", " "), value) for key, value in found.figures.items() if not isinstance(value, list)]
    show(endpoint, ["", ""], [("gain", found.sentence), *rows[1:]])


Column = Annotated[
    str | None, typer.Option(metavar="COLUMN", help='Left out: guessed by its usual names; "" for none.')
]


@app.command()
def analyze(
    log: Annotated[Path, typer.Argument(metavar="LOG.csv|jsonl|parquet", help="A row for each request or user.")],
    metric: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The column that decides; --value is the same.")
    ] = None,
    value: Column = None,
    user: Column = None,
    variant: Column = None,
    timestamp: Column = None,
    phase: Column = None,
    pre: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The user's value from before the test, for CUPED.")
    ] = None,
    category: Column = None,
    status: Column = None,
    failed: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="True where a request failed; in place of a status.")
    ] = None,
    latency: Column = None,
    latency_unit: Annotated[
        str | None, typer.Option(metavar="ms|s|us|ns", help="Left out: as the column's name ends, else ms.")
    ] = None,
    control: Annotated[str | None, typer.Option(help="The arm in place. Left out: control, baseline, A, …")] = None,
    alpha: Annotated[float | None, typer.Option(help="Left out: the policy's.")] = None,
    expected_users: Annotated[
        int | None, typer.Option(help="Users of both arms at which a decision is expected. Left out: two full arms.")
    ] = None,
    users_per_arm: Annotated[int | None, typer.Option(help="No decision before. Left out: the policy's.")] = None,
    minimum_effect: Annotated[
        float | None, typer.Option(help="The least difference that matters: a smaller one ends the test.")
    ] = None,
    margin: Annotated[
        list[str] | None, typer.Option(metavar="GUARDRAIL=SHARE", help="Such as failed_requests=0.01; repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Intended shares, control first: 90:10, or A=90,B=10. Left out: equal.")
    ] = None,
    secondary: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Reported, by Benjamini-Hochberg; repeatable.")
    ] = None,
    lower_is_better: Annotated[bool, typer.Option("--lower-is-better", help="For costs, times, faults.")] = False,
    json: Json = False,
) -> None:
    """Analyse any log of an experiment by the rule that the platform decides by; nothing is stored or changed.

    Example: `llmops ab analyze LOG.csv --metric rating --expected-users 2000`
    """
    from llmops_assets.operations.experiment_logs import analyse_file, json_of, table_of

    found = analyse_file(
        wiring(),
        log,
        columns={
            "value": metric if metric is not None else value,
            "user": user,
            "variant": variant,
            "timestamp": timestamp,
            "phase": phase,
            "pre": pre,
            "category": category,
            "status": status,
            "failed": failed,
            "latency": latency,
        },
        control=control,
        alpha=alpha,
        expected_users=expected_users,
        users_per_arm=users_per_arm,
        minimum_effect=minimum_effect,
        margins=margin or (),
        latency_unit=latency_unit,
        split=split,
        secondary=secondary or (),
        higher_is_better=not lower_is_better,
    )
    if json:
        print_json(json_of(found))
        return
    show(log.name, ["", ""], table_of(found))


@app.command()
def plan(
    endpoint: Annotated[str | None, typer.Option(help="Its traffic says how many rate, and how they differ.")] = None,
    effect: Annotated[float | None, typer.Option(help="The difference in mean rating to be found.")] = None,
    sd: Annotated[float | None, typer.Option(help="Spread between users' means. Left out: measured, or 1.")] = None,
    users_per_day: Annotated[float | None, typer.Option(help="Users who rate. Left out: measured.")] = None,
    days: Annotated[float | None, typer.Option(help="How long the test may last.")] = None,
    share: Annotated[float, typer.Option(help="Share of the users on the treatment.")] = 0.5,
    alpha: Annotated[float | None, typer.Option(help="Left out: the policy's.")] = None,
    power: Annotated[float, typer.Option(help="The chance of finding the effect.")] = 0.8,
    minimum_effect: Annotated[float | None, typer.Option(help="As in the experiment's spec.")] = None,
    expected_users: Annotated[int | None, typer.Option(help="As in the experiment's spec.")] = None,
    json: Json = False,
) -> None:
    """Say how many users and days a test needs: the sequential rule simulated, beside the fixed-horizon formula.

    Example: `llmops ab plan --effect 0.1 --users-per-day 300 --days 14`
    """
    from dataclasses import asdict

    from llmops_assets.operations.experiment_plans import plan_experiment

    found = plan_experiment(
        wiring(),
        endpoint=endpoint,
        effect=effect,
        sd=sd,
        users_per_day=users_per_day,
        days=days,
        share=share,
        alpha=alpha,
        power=power,
        minimum_effect=minimum_effect,
        expected_users=expected_users,
    )
    if json:
        print_json(asdict(found))
        return
    rows: list[tuple[str, object]] = [("spread between users", f"{found.sd:.3g} ({found.sd_from})")]
    if found.traffic is not None:
        rated = f"{found.traffic.users_who_rated:,} of {found.traffic.users:,} users rated"
        rows.append(("traffic", f"{rated} in {found.traffic.days:.1f} days"))
    rows.append(("users who rate, in all", f"{found.users:,}"))
    if found.fixed_users is not None:
        rows.append((f"one look, power {found.power:.0%}", f"{found.fixed_users:,} users of both arms"))
    for name, simulated in (("sequential rule", found.simulated), ("with no difference", found.null)):
        if simulated is not None:
            small = f", {simulated.too_small:.1%} end as too small to matter" if minimum_effect is not None else ""
            median = f"; median {simulated.median_users:,} users" if simulated.median_users else ""
            called = simulated.found + (simulated.wrong if name == "with no difference" else 0.0)
            rows.append((name, f"{called:.1%} of {simulated.runs:,} find a difference{small}{median}"))
    if found.median_days is not None:
        rows.append(("median duration", f"{found.median_days:.1f} days"))
    if found.days is not None:
        least = "none" if found.smallest_effect is None else f"{found.smallest_effect:.3g}"
        rows.append((f"least effect found in {found.days:g} days", least))
    show("plan", ["", ""], rows)
