"""`llmops ab …`: compare two models on live traffic."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, load_checked, out, print_json, show, wiring

app = typer.Typer(help="A/B tests: create, report.", no_args_is_help=True)


@app.command()
def create(file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="An ExperimentSpec.")]) -> None:
    """Start an A/B test between the two models that an endpoint serves.

    Example: `llmops ab create examples/specs/experiment.yaml`
    """
    from llmops_assets.operations.experiments import start_experiment
    from llmops_assets.specs.experiment import ExperimentSpec

    done = start_experiment(wiring(), actor(), load_checked(file, ExperimentSpec))
    out.print(f"{'running' if done.new else 'running already'}: experiment {done.name} on endpoint {done.endpoint}")


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
                "report": record.model_dump(mode="json") if record else None,
            }
        )
        return
    rows: list[tuple[str, object]] = [("state", experiment.state), ("decision", experiment.decision or "none yet")]
    if record:
        rows += [("reason", record.reason)]
        rows += [(f"users, {arm}", n) for arm, n in record.users.items()]
        rows += [(key, value) for key, value in record.figures.items() if not isinstance(value, (dict, list))]
    show(name, ["", ""], rows)
