"""`llmops train`: ask for a training, and look at, stop and resume those that were asked for."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmops_assets.cli.common import (
    Json,
    Wait,
    actor,
    conclude,
    follow,
    load_checked,
    now,
    out,
    pinned,
    print_json,
    say,
    show,
    wiring,
)
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.names import training_key
from llmops_assets.specs.rules import check_dataset
from llmops_assets.specs.training import TrainJobSpec

GATE = ("evaluation", "accuracy_gate")
LOOK_SECONDS = 0.2
HELP = """Ask for a training (`llmops train SPEC.yaml`), and look at, stop and resume those that were asked for.

Example: `llmops train examples/specs/sft-lora.yaml --wait`
"""


class _SpecFirst(TyperGroup):
    """A group whose first argument may be a spec: what is no subcommand is given to `start`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(help=HELP, cls=_SpecFirst, no_args_is_help=True)
Training = Annotated[
    str, typer.Argument(metavar="TRAINING", help="'DATASET|RECIPE', a recipe's key or name, or the spec's file.")
]


@app.command()
def start(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A TrainJobSpec.")],
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Ask for a training; the graph plans, trains, merges, evaluates and registers it. `llmops train SPEC` is the same.

    Exit 3 says that the model missed its gate: the run is green and the release is withheld.

    Example: `llmops train examples/specs/sft-lora.yaml --wait`
    """
    spec = load_checked(file, TrainJobSpec)
    since = now()
    spec = pinned(spec)
    if spec.search is not None:
        say("the ranges in `search` are for `llmops tune`: this trains the values in hyperparams")
    partition = request(spec)
    if json:
        print_json({"partition": partition, "dataset": spec.dataset_ref, "recipe": spec.recipe_key()})
    else:
        out.print(f"requested: {partition}", markup=False)
    if wait:
        conclude(follow(partition, "registered_model", since=since, gate=GATE))


@app.command()
def status(
    training: Annotated[
        str | None, typer.Argument(metavar="TRAINING", help="One of them only; else the newest are listed.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Trainings to list.")] = 20,
    json: Json = False,
) -> None:
    """Show where trainings stand: progress, loss, tokens a second, memory and the time left.

    Example: `llmops train status`
    """
    from llmops_assets.local import runs

    if training is None:
        found = list(runs.statuses(limit))
    else:
        cell = runs.cell_of(training)
        found = [runs.status_of(cell, runs.cells()[cell], runs.watcher())]
    if json:
        print_json([entry.as_dict() for entry in found])
        return
    show(
        "Trainings",
        ["training", "state", "step", "loss", "validation", "tokens/s", "memory", "left", "what"],
        [_row(entry) for entry in found],
    )


def _row(entry: Any) -> list[str]:
    from llmops_assets.training.report import size

    live = entry.progress
    if live is None:
        return [entry.partition, entry.state, *[""] * 6, _first_line(entry.detail)]
    left = live.eta_seconds if entry.state == "training" else None
    return [
        entry.partition,
        entry.state,
        f"{live.step}/{live.steps}",
        "" if live.loss is None else f"{live.loss:.4f}",
        "" if live.eval_loss is None else f"{live.eval_loss:.4f}",
        "" if live.tokens_per_second is None else f"{live.tokens_per_second:,.0f}",
        "" if live.memory_bytes is None else size(live.memory_bytes),
        "" if left is None else duration(left),
        _first_line(entry.detail),
    ]


def _first_line(text: str) -> str:
    return text.splitlines()[0][:160] if text else ""


def duration(seconds: float) -> str:
    """A span in words: `2 h 05 min`, `3 min 20 s`, `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


@app.command()
def logs(
    training: Training,
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the training has ended.")] = False,
) -> None:
    """Print what the workers of a training said: planning, training and merging.

    Example: `llmops train logs sft.yaml -f`
    """
    from llmops_assets.local import runs
    from llmops_assets.records.training import PlanRecord
    from llmops_assets.training.progress import Tail

    cell = runs.cell_of(training)
    records, tail, watch, looked = wiring().records, None, None, 0.0
    while True:
        if tail is None and (plan := records.find(PlanRecord, cell)):
            tail = Tail(Path(plan.model_dir))
        # Asked before the last lines are read, so that none is missed.
        over = not following
        if following and time.monotonic() - looked > 10 * LOOK_SECONDS:
            watch, looked = watch or runs.watcher(), time.monotonic()
            waiting = runs.cells()[cell].reported_at is None
            over = not waiting and bool(watch.runs(cell, "adapter")) and not watch.busy(cell, "adapter")
        for line in tail.lines() if tail else ():
            out.print(line, markup=False)
        if over:
            if tail is None:
                say(f"{cell} has no log yet: it is not planned")
            return
        time.sleep(LOOK_SECONDS)


@app.command()
def stop(training: Training, json: Json = False) -> None:
    """Stop a training: it saves a checkpoint, its run ends as canceled, and MLflow records it as KILLED.

    Example: `llmops train stop sft.yaml`
    """
    from llmops_assets.local import runs

    found = runs.stop(runs.cell_of(training))
    if json:
        print_json(found.as_dict())
    else:
        out.print(f"{found.state}: {found.partition}. {found.detail}", markup=False)


@app.command()
def resume(training: Training, wait: Wait = False, json: Json = False) -> None:
    """Take up a training that was stopped or failed, from its last whole checkpoint.

    Example: `llmops train resume sft.yaml --wait`
    """
    from llmops_assets.local import runs

    cell = runs.cell_of(training)
    since = now()
    runs.resume(cell)
    if json:
        print_json({"partition": cell})
    else:
        out.print(f"requested: {cell}", markup=False)
    if wait:
        conclude(follow(cell, "registered_model", since=since, gate=GATE))


def request(spec: TrainJobSpec) -> str:
    """Put a training on record as wanted; its partition key. Raises SpecError when its dataset does not fit it."""
    catalog = wiring().catalog
    entry = catalog.dataset_entry(spec.dataset_ref)
    if faults := check_dataset(spec, entry.spec.type, entry.status):
        raise SpecError(faults)
    key = spec.recipe_key()
    catalog.add_recipe(key, spec.recipe(), actor())
    catalog.request_training(spec.dataset_ref, key, actor())
    return training_key(spec.dataset_ref, key)
