"""Where trainings stand, from what is asked for, what Dagster ran and what the workers wrote."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.operations.graph import DATASET, TRAINING
from llmops_assets.operations.specs import load_checked, pinned
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.names import STUDY_ACTOR, training_key
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.progress import Progress, failure, read
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound, TrainingRequest

if TYPE_CHECKING:
    from resources.catalog import Intent
    from resources.run_log import Run


READY = "what it needs is there: automation starts it at its next look"


@dataclass(frozen=True)
class TrainingStatus:
    """Where one training stands; `state` is requested, held, queued, planning, training, finishing, stopping, stopped,
    failed, trained, withheld or registered, and `detail` the reason for it or what it waits for."""

    partition: str
    state: str
    detail: str = ""
    requested_by: str = ""
    progress: Progress | None = None
    model_dir: str | None = None
    run_id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def requests(wiring: Wiring) -> dict[str, TrainingRequest]:
    """The newest request of every training that was ever asked for, by partition, newest first."""
    found: dict[str, TrainingRequest] = {}
    for request in wiring.catalog.training_requests():
        found.setdefault(f"{request.dataset}|{request.recipe}", request)
    return found


def request_of(wiring: Wiring, partition: str) -> TrainingRequest:
    """The newest request of one training; raises NotFound when nobody asked for it."""
    found = requests(wiring).get(partition)
    if found is None:
        raise NotFound(f"no training {partition!r} was requested here: `llmops train status` lists those that were")
    return found


def find_training(wiring: Wiring, ref: str) -> str:
    """The partition that a user means by its key, by the recipe's key or name, or by the spec's file.

    Raises NotFound when nothing like it was requested, Conflict when it may be several.
    """
    cells = requests(wiring)
    if Path(ref).is_file():
        spec = pinned(wiring, load_checked(wiring, Path(ref), TrainJobSpec))
        wanted = training_key(spec.dataset_ref, spec.recipe_key())
        known = [cell for cell in cells if cell == wanted]
    else:
        known = [cell for cell in cells if ref in (cell, cell.split("|")[1], cell.split("|")[1].rpartition("-")[0])]
    if not known:
        raise NotFound(f"no training {ref!r} was requested here: `llmops train status` lists those that were")
    if len(known) > 1:
        raise Conflict(f"{ref!r} may be any of {', '.join(known)}: name one of them (in quotes)")
    return known[0]


def training_status(wiring: Wiring, partition: str) -> TrainingStatus:
    """Where one training stands; raises NotFound when nobody asked for it."""
    return status_of(wiring, request_of(wiring, partition))


def training_statuses(wiring: Wiring, limit: int | None = None) -> list[TrainingStatus]:
    """Where every training stands, the newest request first."""
    wanted = list(requests(wiring).values())[:limit]
    runs = wiring.run_log.runs([_cell(request) for request in wanted], TRAINING)
    return [status_of(wiring, request, runs[_cell(request)]) for request in wanted]


def statuses_page(wiring: Wiring, start: int, count: int) -> tuple[list[TrainingStatus], int]:
    """Where `count` trainings from `start` on stand, the newest request first, and how many there are."""
    wanted, total = wiring.catalog.training_requests_page(start, count)
    runs = wiring.run_log.runs([_cell(request) for request in wanted], TRAINING)
    return [status_of(wiring, request, runs[_cell(request)]) for request in wanted], total


@dataclass(frozen=True)
class Compared:
    """A training beside others: what it was trained with, and what came of it."""

    status: TrainingStatus
    dataset: str
    base: str
    method: str
    hyperparams: dict[str, Any]
    figures: dict[str, float | None]
    model: str | None


def compared_trainings(wiring: Wiring, start: int, count: int) -> tuple[list[Compared], int]:
    """`count` trainings from `start` on beside each other, the newest request first, and how many there are."""
    found, total = statuses_page(wiring, start, count)
    return [_compared(wiring, status) for status in found], total


def _compared(wiring: Wiring, status: TrainingStatus) -> Compared:
    dataset, recipe = status.partition.split("|")
    spec = wiring.catalog.recipe(recipe)
    adapter = wiring.records.find(AdapterRecord, status.partition)
    evaluated = wiring.records.find(EvaluationRecord, status.partition)
    model = wiring.records.find(RegisteredModelRecord, status.partition)
    figures: dict[str, float | None] = {}
    if adapter is not None:
        figures |= {"loss": adapter.last_loss, "validation loss": adapter.eval_loss, "seconds": adapter.seconds}
    for metric in evaluated.metrics if evaluated is not None else ():
        if metric.suite == "test" and metric.model == "tuned":
            figures[metric.name] = metric.value
    return Compared(
        status=status,
        dataset=dataset,
        base=str(spec.get("base_model_ref") or ""),
        method=str(spec.get("method") or ""),
        hyperparams=dict(spec.get("hyperparams") or {}),
        figures=figures,
        model=model.ref if model is not None else None,
    )


def status_of(wiring: Wiring, request: TrainingRequest, runs: "Sequence[Run] | None" = None) -> TrainingStatus:
    """Where the training of a request stands; `runs` are those on its partition, oldest first, where they are known."""
    cell = _cell(request)
    if runs is None:
        runs = wiring.run_log.runs([cell], TRAINING)[cell]
    plan = wiring.records.find(PlanRecord, cell)
    folder = Path(plan.model_dir) if plan else None
    run = _run_of_request(request, runs)
    state, detail = _state(wiring, request, run, folder)
    return TrainingStatus(
        partition=cell,
        state=state,
        detail=detail,
        requested_by=request.requested_by,
        progress=_progress(request, run, folder),
        model_dir=str(folder) if folder else None,
        run_id=run.id if run else None,
    )


def last_checkpoint(wiring: Wiring, partition: str) -> int | None:
    """The step of the last whole checkpoint of a training; None where there is none."""
    plan = wiring.records.find(PlanRecord, partition)
    found = read(Path(plan.model_dir)) if plan else None
    return found.checkpoint if found else None


def _cell(request: TrainingRequest) -> str:
    return f"{request.dataset}|{request.recipe}"


def _run_of_request(request: TrainingRequest, runs: "Sequence[Run]") -> "Run | None":
    """The newest run, unless it ended badly before the training was asked for anew."""
    if not runs:
        return None
    last = runs[-1]
    over = (last.is_failure and not last.will_retry) or last.is_canceled
    return None if over and (last.ended_at or last.created_at) < request.requested_at.timestamp() else last


def _progress(request: TrainingRequest, run: "Run | None", folder: Path | None) -> Progress | None:
    """What the worker said of the attempt that the request asks for."""
    if folder is None:
        return None
    return read(folder, run.created_at if run else request.requested_at.timestamp())


def _state(wiring: Wiring, request: TrainingRequest, run: "Run | None", folder: Path | None) -> tuple[str, str]:
    cell = _cell(request)
    if run is None:
        return _before_a_run(wiring, request)
    if run.status in ("QUEUED", "NOT_STARTED"):
        return "queued", "waits for its turn: trainings share the GPU pool"
    if run.status == "CANCELING":
        return "stopping", "saves a checkpoint"
    if run.will_retry:
        return "queued", "its process died; another run takes it up from its last whole checkpoint"
    if not run.is_finished:
        if folder is None:
            return "planning", ""
        if (folder / "adapter" / "complete.json").exists():
            return "finishing", "merges, evaluates and registers"
        return "training" if (folder / "work" / "train.json").exists() else "planning", ""
    if run.is_canceled:
        return "stopped", (failure(folder) if folder else None) or "it was stopped before it began"
    if run.is_failure:
        intent = intent_of(wiring, request)
        if intent is not None and intent.outcome == "withdrawn":
            return "stopped", intent.reason or "the request was withdrawn"
        return "failed", why_failed(wiring, run, folder)
    return _from_records(wiring, cell) or ("planning", "")


def _from_records(wiring: Wiring, cell: str) -> tuple[str, str] | None:
    """How far a training came that nothing works on any more; None when it left nothing."""
    records = wiring.records
    if model := records.find(RegisteredModelRecord, cell):
        return "registered", model.ref
    if records.find(EvaluationRecord, cell):
        objections = [check for check in wiring.run_log.checks(cell, ["evaluation"]) if check.objects]
        if objections:
            return "withheld", "; ".join(f"check {c.name}: {c.description}" for c in objections)
        # The run that evaluated it is over, and the one that registers it is asked for at automation's next look.
        return "finishing", "it passed its checks: automation has it registered at its next look"
    return ("trained", "") if records.find(AdapterRecord, cell) else None


def why_failed(wiring: Wiring, run: "Run", folder: Path | None = None) -> str:
    """Why a training's run failed: the blocking check that stopped it, its worker's words, or the first error."""
    if check := wiring.run_log.failed_check(run.partition or "", TRAINING, run.id):
        return f"check {check.asset}.{check.name}: {check.description}"
    message = (failure(folder) if folder else None) or wiring.run_log.failure(run.id)
    return message.splitlines()[0] if message else f"see the page of run {run.id}"


def _before_a_run(wiring: Wiring, request: TrainingRequest) -> tuple[str, str]:
    """The state of a training that no run has taken up: what it waits for, or why it waits in vain."""
    intent = intent_of(wiring, request)
    if intent is not None and intent.outcome == "withdrawn":
        reason = _erased(wiring, request.dataset) or intent.reason
        return "stopped", reason or "the request was withdrawn before a run took it up"
    if intent is not None and intent.outcome == "done" and (found := _from_records(wiring, _cell(request))):
        # Its runs were forgotten, as an erasure or the retention of the event log does.
        return found
    return _dataset_holds(wiring, request.dataset) or _base_holds(wiring, request) or ("requested", READY)


def intent_of(wiring: Wiring, request: TrainingRequest) -> "Intent | None":
    """The newest intent of a training: a study's trials have a kind of their own."""
    kind = "trial" if request.requested_by.startswith(STUDY_ACTOR) else "train"
    return wiring.catalog.intents.newest(kind, _cell(request))


def _dataset_holds(wiring: Wiring, dataset: str) -> tuple[str, str] | None:
    """What of its dataset a training waits for; None when all of it is there and holds nothing up."""
    entry = wiring.catalog.dataset_entry(dataset)
    if entry.status == "erased":
        return "held", _erased(wiring, dataset) or ""
    log = wiring.run_log
    if check := log.failed_check(dataset, DATASET):
        return "held", f"check {check.asset}.{check.name} of {dataset} failed: {check.description}"
    if wiring.records.find(SplitsRecord, dataset) is not None:
        return _unfinished_check(wiring, dataset)
    runs = log.runs([dataset], DATASET)[dataset]
    if not runs:
        return "requested", f"waits for the splits of {dataset}, whose ingest has not begun"
    last = runs[-1]
    if last.is_canceled:
        return "held", f"{dataset} has no splits: its run {last.id[:8]} was stopped"
    if last.is_failure and not last.will_retry:
        reason = (log.failure(last.id) or f"see the page of run {last.id}").splitlines()[0]
        return "held", f"{dataset} has no splits, its run {last.id[:8]} failed: {reason}"
    return "requested", f"waits for the splits of {dataset}, which are being made"


def _unfinished_check(wiring: Wiring, dataset: str) -> tuple[str, str] | None:
    """The check of a version's splits that its trainings wait for; None when each was evaluated."""
    found = wiring.run_log.unfinished_check(dataset, ["splits"])
    if found is None:
        return None
    asset, name, run = found
    if run is not None and not run.is_finished:
        return "requested", f"waits for check {asset}.{name} of {dataset}, which run {run.id[:8]} evaluates"
    how = "was cancelled" if run is not None and run.is_canceled else "ended"
    which = f"run {run.id[:8]}" if run is not None else "its run"
    by_itself = "the sensor registered_suites asks for another run, three times at most"
    advice = by_itself if name == "no_contamination" else "materialise `splits` again"
    return "held", f"{which} {how} before check {asset}.{name} of {dataset} was evaluated: {advice}"


def _erased(wiring: Wiring, dataset: str) -> str | None:
    """That a version was erased, and what to train on instead; None where it was not."""
    from resources.catalog.erasures import erasures

    if wiring.catalog.dataset_entry(dataset).status != "erased":
        return None
    followers = (one.versions.get(dataset) for one in erasures(wiring.catalog))
    follower = next((version for version in followers if version), None)
    advice = f"train on {follower}, which follows it" if follower else "train on another version"
    return f"{dataset} was erased on a person's request: {advice}"


def _base_holds(wiring: Wiring, request: TrainingRequest) -> tuple[str, str] | None:
    """What a training waits for that starts from another one; None when it starts from what is there."""
    base = wiring.catalog.recipe(request.recipe).get("base_model_ref") or ""
    if "|" not in base or wiring.records.find(MergedModelRecord, base) is not None:
        return None
    earlier = requests(wiring).get(base)
    if earlier is None:
        return "held", f"its base model {base} was not requested: train that first"
    state = status_of(wiring, earlier)
    kind = "held" if state.state in ("held", "failed", "stopped") else "requested"
    return kind, f"waits for its base model {base}, which is {state.state}" + (
        f": {state.detail}" if state.detail else ""
    )
