"""The trainings of an installation as a person sees them: where each stands, how it is stopped and resumed."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.cli.common import actor, load_checked, pinned, wiring
from llmops_assets.local.stack import StackError, running
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.progress import Progress, failure, read
from resources.catalog import Conflict, NotFound, TrainingRequest

if TYPE_CHECKING:
    import dagster as dg

    from llmops_assets.local.watch import Watcher

STOP_SECONDS = 180.0
"""How long a stopped training may take to save its checkpoint and end."""
UNATTENDED_SECONDS = 10.0
"""How long to look for runs that no platform of this home has started."""


@dataclass(frozen=True)
class TrainingStatus:
    """Where one training stands; `state` is requested, queued, planning, training, finishing, stopping, stopped,
    failed, trained, withheld or registered."""

    partition: str
    state: str
    detail: str = ""
    requested_by: str = ""
    progress: Progress | None = None
    model_dir: str | None = None
    run_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def cell_of(ref: str) -> str:
    """The partition that a user means by its key, by the recipe's key or name, or by the spec's file.

    Raises NotFound when nothing like it was requested, Conflict when it may be several.
    """
    if Path(ref).is_file():
        spec = pinned(load_checked(Path(ref), TrainJobSpec))
        wanted = training_key(spec.dataset_ref, spec.recipe_key())
        known = [cell for cell in cells() if cell == wanted]
    else:
        known = [cell for cell in cells() if ref in (cell, cell.split("|")[1], cell.split("|")[1].rpartition("-")[0])]
    if not known:
        raise NotFound(f"no training {ref!r} was requested here: `llmops train status` lists those that were")
    if len(known) > 1:
        raise Conflict(f"{ref!r} may be any of {', '.join(known)}: name one of them (in quotes)")
    return known[0]


def cells() -> dict[str, TrainingRequest]:
    """The newest request of every training that was ever asked for, newest first."""
    found: dict[str, TrainingRequest] = {}
    for request in wiring().catalog.training_requests():
        found.setdefault(f"{request.dataset}|{request.recipe}", request)
    return found


def watcher() -> "Watcher":
    from llmops_assets.local.stack import prepare_home
    from llmops_assets.local.watch import Watcher

    settings = wiring().settings
    if not (settings.dagster_home / "dagster.yaml").exists():
        prepare_home(settings)
    return Watcher(settings, lambda line: None)


def status_of(cell: str, request: TrainingRequest, watch: "Watcher") -> TrainingStatus:
    """Where a training stands, from its newest run and what its worker wrote."""
    records = wiring().records
    plan = records.find(PlanRecord, cell)
    folder = Path(plan.model_dir) if plan else None
    runs = watch.runs(cell, "adapter")
    run = runs[-1].dagster_run if runs else None
    live = read(folder, runs[-1].create_timestamp.timestamp() if runs else None) if folder else None
    # A run that went on to evaluate says nothing of how the training before it ended.
    state, detail = _state(cell, request, run, folder)
    if state == "failed" and not detail:
        detail = refused_by(cell, watch) or "see the run's page"
    return TrainingStatus(
        partition=cell,
        state=state,
        detail=detail,
        requested_by=request.requested_by,
        progress=live,
        model_dir=str(folder) if folder else None,
        run_id=run.run_id if run else None,
    )


def _state(cell: str, request: TrainingRequest, run: "dg.DagsterRun | None", folder: Path | None) -> tuple[str, str]:
    import dagster as dg

    records = wiring().records
    if request.reported_at is None:
        idle = running(wiring().settings) is None
        return "requested", "no platform is running here: `llmops up` starts one" if idle else ""
    if run is None:
        return "requested", "waits for its dataset's splits, or for its base model"
    status = run.status
    if status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED):
        return "queued", "waits for its turn: trainings share the GPU pool"
    if status is dg.DagsterRunStatus.CANCELING:
        return "stopping", "saves a checkpoint"
    if not run.is_finished:
        if folder is None:
            return "planning", ""
        if (folder / "adapter" / "complete.json").exists():
            return "finishing", "merges, evaluates and registers"
        return "training" if (folder / "work" / "train.json").exists() else "planning", ""
    said = (failure(folder) if folder else None) or ""
    if status is dg.DagsterRunStatus.CANCELED:
        return "stopped", said or "it was stopped before it began"
    if run.is_failure:
        return "failed", said.splitlines()[0] if said else ""
    if records.find(RegisteredModelRecord, cell):
        model = records.load(RegisteredModelRecord, cell)
        return "registered", model.ref
    if records.find(EvaluationRecord, cell):
        return "withheld", "it missed its gate"
    return ("trained", "") if records.find(AdapterRecord, cell) else ("planning", "")


def refused_by(cell: str, watch: "Watcher") -> str | None:
    """What a blocking check said that stopped a training, None when none did."""
    failed = [check for check in watch.checks(cell, "adapter") if check.blocking and not check.passed]
    return f"{failed[-1].name}: {failed[-1].description}" if failed else None


def statuses(limit: int | None = None) -> Iterator[TrainingStatus]:
    """Every training's standing, the newest request first."""
    watch = watcher()
    for number, (cell, request) in enumerate(cells().items()):
        if limit is not None and number >= limit:
            return
        yield status_of(cell, request, watch)


def stop(cell: str, *, wait: bool = True) -> TrainingStatus:
    """Ask a training to save a checkpoint and end, and wait until it has; its standing then.

    A request that no run has taken up yet is withdrawn. Raises Conflict when there is nothing to stop, StackError when
    the platform cannot be reached or the training does not end.
    """
    from resources.cancellation import REACH_SECONDS, RunUnreachable, cancel

    catalog, request = wiring().catalog, cells()[cell]
    watch = watcher()

    def active() -> "list[dg.DagsterRun]":
        runs = [record.dagster_run for record in watch.runs(cell, "adapter")]
        return [run for run in runs if not run.is_finished]

    withdrawn = request.reported_at is None
    if withdrawn:
        # Asked for again while it was at work: the run of the earlier request is still to be stopped.
        catalog.mark_reported([request.id])
        catalog.log(actor(), "training.withdraw", cell)
    if withdrawn and not active():
        return TrainingStatus(
            cell, "stopped", "the request was withdrawn before a run took it up", request.requested_by
        )
    if not (runs := active()):
        now = status_of(cell, request, watch)
        raise Conflict(f"nothing to stop: {cell} is {now.state}")
    catalog.log(actor(), "training.stop", cell, runs=[run.run_id for run in runs])
    reach = REACH_SECONDS if running(wiring().settings) is not None else UNATTENDED_SECONDS
    deadline = time.monotonic() + STOP_SECONDS
    try:
        cancel(watch.instance, active, reach_seconds=reach)
        while wait and watch.busy(cell, "adapter"):
            if time.monotonic() > deadline:
                raise StackError(f"{cell} did not end within {STOP_SECONDS:.0f} s: see `llmops train logs '{cell}'`")
            time.sleep(0.2)
            cancel(watch.instance, active, reach_seconds=reach)
    except RunUnreachable as error:
        raise StackError(str(error)) from None
    return status_of(cell, request, watch)


def resume(cell: str) -> None:
    """Ask again for a training that was stopped or failed: it goes on from its last whole checkpoint."""
    catalog = wiring().catalog
    now = status_of(cell, cells()[cell], watcher())
    if now.state in ("requested", "queued", "planning", "training", "stopping", "finishing"):
        raise Conflict(f"nothing to resume: {cell} is {now.state}")
    dataset, recipe = cell.split("|")
    catalog.request_training(dataset, recipe, actor())
