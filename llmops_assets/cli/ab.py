"""`llmops ab …`: compare two models on live traffic."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, load_checked, out, print_json, show, wiring
from llmops_assets.cli.deploy import refuse_affected
from llmops_assets.records.experiments import AbReportRecord

app = typer.Typer(help="A/B tests: create, report.", no_args_is_help=True)


@app.command()
def create(file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="An ExperimentSpec.")]) -> None:
    """Start an A/B test between the two models that an endpoint serves.

    Example: `llmops ab create examples/specs/experiment.yaml`
    """
    from llmops_assets.specs.experiment import ExperimentSpec

    w = wiring()
    spec = load_checked(file, ExperimentSpec)
    # An alias may move while the test runs; the two models that it compares may not.
    refs = {arm: w.tracking.version(getattr(spec, arm)).ref for arm in ("control", "treatment")}
    refuse_affected(refs["treatment"])
    spec = spec.model_copy(update=refs)
    served = {route["model_ref"] for route in w.catalog.endpoint(spec.endpoint).routes}
    if missing := [ref for ref in refs.values() if ref not in served]:
        raise ValueError(
            f"endpoint {spec.endpoint!r} does not serve {' and '.join(missing)}: deploy it as a canary beside the other"
        )
    new = w.catalog.create_experiment(spec, actor())
    out.print(f"{'running' if new else 'running already'}: experiment {spec.name} on endpoint {spec.endpoint}")


@app.command()
def report(name: str, json: Json = False) -> None:
    """Show the state of an A/B test, and its decision once there is one.

    Example: `llmops ab report base-or-tuned`
    """
    w = wiring()
    experiment = w.catalog.experiment(name)
    record = w.records.find(AbReportRecord, name)
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
