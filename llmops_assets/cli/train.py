"""`llmops train`: ask for a training, and look at, stop and resume those that were asked for."""

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from llmops_assets.operations.training_status import TrainingStatus

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
    from llmops_assets.operations.trainings import request_training

    spec = load_checked(file, TrainJobSpec)
    since = now()
    spec = pinned(spec)
    if spec.search is not None:
        say("the ranges in `search` are for `llmops tune`: this trains the values in hyperparams")
    done = request_training(wiring(), actor(), spec)
    if json:
        print_json(vars(done))
    else:
        out.print(f"requested: {done.partition}", markup=False)
    if wait:
        _await(done.partition, since)


def _await(partition: str, since: datetime) -> None:
    """Follow a training to its end, and exit accordingly."""
    from llmops_assets.local.runs import explainer
    from llmops_assets.operations.trainings import GATE

    explain = explainer(wiring(), partition)
    conclude(follow(partition, "registered_model", since=since, gate=GATE, explain=explain))


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
    from llmops_assets.local.runs import with_idle_platform
    from llmops_assets.operations import training_status

    w = wiring()
    if training is None:
        found = training_status.training_statuses(w, limit)
    else:
        found = [training_status.training_status(w, training_status.find_training(w, training))]
    found = [with_idle_platform(w, status) for status in found]
    if json:
        print_json([entry.as_dict() for entry in found])
        return
    show(
        "Trainings",
        ["training", "state", "step", "loss", "validation", "tokens/s", "memory", "left", "what"],
        [_row(entry) for entry in found],
    )


def _row(entry: "TrainingStatus") -> list[str]:
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
    from llmops_assets.operations.training_status import find_training, training_status
    from llmops_assets.operations.trainings import UNDER_WAY
    from llmops_assets.records.training import PlanRecord
    from llmops_assets.training.progress import Tail

    w = wiring()
    cell = find_training(w, training)
    tail, looked = None, 0.0
    while True:
        if tail is None and (plan := w.records.find(PlanRecord, cell)):
            tail = Tail(Path(plan.model_dir))
        # Asked before the last lines are read, so that none is missed.
        over = not following
        if following and time.monotonic() - looked > 10 * LOOK_SECONDS:
            looked = time.monotonic()
            over = training_status(w, cell).state not in UNDER_WAY
        for line in tail.lines() if tail else ():
            out.print(line, markup=False)
        if over:
            _explain_end(training_status(w, cell), logged=tail is not None)
            return
        time.sleep(LOOK_SECONDS)


def _explain_end(status: "TrainingStatus", *, logged: bool) -> None:
    """What the worker's log does not say: that it has none yet, or why the training ended all the same."""
    reason = f": {status.detail}" if status.detail else ""
    if status.state in ("failed", "held", "stopped"):
        say(f"{status.partition} is {status.state}{reason}")
    elif not logged:
        say(f"{status.partition} has no log yet: it is {status.state}{reason}")


@app.command()
def stop(training: Training, json: Json = False) -> None:
    """Stop a training: it saves a checkpoint, its run ends as canceled, and MLflow records it as KILLED.

    Example: `llmops train stop sft.yaml`
    """
    from llmops_assets.local import runs
    from llmops_assets.operations.training_status import find_training

    w = wiring()
    found = runs.stop(w, actor(), find_training(w, training))
    if json:
        print_json(found.as_dict())
    else:
        out.print(f"{found.state}: {found.partition}. {found.detail}", markup=False)


@app.command()
def resume(training: Training, wait: Wait = False, json: Json = False) -> None:
    """Take up a training that was stopped or failed, from its last whole checkpoint.

    Example: `llmops train resume sft.yaml --wait`
    """
    from llmops_assets.operations.training_status import find_training
    from llmops_assets.operations.trainings import resume_training

    w = wiring()
    cell = find_training(w, training)
    since = now()
    resume_training(w, actor(), cell)
    if json:
        print_json({"partition": cell})
    else:
        out.print(f"requested: {cell}", markup=False)
    if wait:
        _await(cell, since)
