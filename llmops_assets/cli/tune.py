"""`llmops tune`: search for better hyperparameters; each trial is a training of the graph."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_assets.cli.common import Exit, Json, actor, fail, load_checked, out, pinned, print_json, say, show, wiring
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.base import SpecError, SpecFault
from llmops_assets.specs.names import STUDY_ACTOR
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import progress, search

if TYPE_CHECKING:
    import optuna

    from llmops_assets.local.watch import Watcher

LOOK_SECONDS = 0.5
TAKE_UP_SECONDS = 60.0
"""How long the daemon may take to take up a run that died."""


def tune(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A TrainJobSpec with a block `search`.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Trials of the study altogether, those of earlier calls included.")
    ],
    parallel: Annotated[int | None, typer.Option(min=1, help="Trials at once; left out: one a GPU, or one.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of the best recipe's spec; left out: SPEC.best.yaml.")
    ] = None,
    json: Json = False,
) -> None:
    """Search the ranges of a spec for the lowest validation loss: TPE proposes, and what falls behind is cut off.

    Each trial is a training with a partition of its own. Killed, it is gone on with by the same command. The best
    recipe is written to a file; `llmops train` takes it on to evaluation without training it again.

    Example: `llmops tune sft.yaml --trials 20`
    """
    from llmops_assets.local.stack import platform
    from llmops_assets.local.watch import Watcher

    spec = pinned(load_checked(file, TrainJobSpec))
    if spec.search is None:
        fault = SpecFault("search", "missing, so there is nothing to vary", "Add search: {lr: {low: …, high: …}}")
        raise SpecError([SpecFault(fault.field, fault.message, fault.hint, file=str(file))])
    w = wiring()
    splits = w.records.find(SplitsRecord, w.catalog.dataset_entry(spec.dataset_ref).key)
    if splits is None or not splits.rows.get("validation"):
        fail(f"{spec.dataset_ref} has no validation rows to compare trials on: see `llmops dataset show`")
    w.settings.root.mkdir(parents=True, exist_ok=True)
    study = search.open_study(spec, f"sqlite:///{w.settings.root / 'studies.db'}")
    target = output or file.with_name(f"{file.stem}.best.yaml")
    at_once = parallel or max(1, sum(device.kind == "cuda" for device in w.devices()))
    if _ended(study) < trials:
        with platform(w.settings) as stack:
            if stack is not None:
                say("no platform is running here: this command runs one until it is done (`llmops up` keeps one)")
            watch = Watcher(w.settings, lambda line: None)
            _Driver(spec, study, watch, trials, at_once, stack.check if stack else lambda: None).run()
    _conclude(spec, study, target, json)


def _ended(study: "optuna.Study") -> int:
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


def _conclude(spec: TrainJobSpec, study: "optuna.Study", target: Path, json: bool) -> None:
    found = search.outcomes(study)
    top = search.best(found)
    shares = search.importances(study)
    if top is not None:
        search.write_spec(target, search.spec_text(spec, top, study.study_name))
    if json:
        print_json(
            {
                "study": study.study_name,
                "best": top.as_dict() if top else None,
                "spec": str(target) if top else None,
                "importances": shares,
                "trials": [t.as_dict() for t in found],
            }
        )
    else:
        names = sorted({name for t in found for name in t.params})
        rows = [
            [t.number, *(t.params.get(n) for n in names), None if t.value is None else f"{t.value:.4f}", t.state]
            for t in found
        ]
        show(f"Study {study.study_name}", ["trial", *names, "validation loss", "state"], rows)
    if top is None:
        fail(f"no trial of {study.study_name} came to its end", Exit.FAILED)
    if not json:
        out.print(f"best: trial {top.number}, validation loss {top.value:.4f}, training {top.partition}", markup=False)
        out.print(f"its spec: {target} (`llmops train {target}` evaluates and registers it)", markup=False)


@dataclass
class _Driver:
    """Keeps trials going until as many have ended as were asked for."""

    spec: TrainJobSpec
    study: "optuna.Study"
    watch: "Watcher"
    trials: int
    at_once: int
    alive: Callable[[], None]

    def run(self) -> None:
        from optuna.trial import Trial, TrialState

        self._register()
        # Trials that an earlier call left behind are asked for again: what is trained is there, the rest goes on.
        active = {}
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            trial = Trial(self.study, frozen._trial_id)
            if search.PARTITION in frozen.user_attrs:
                active[frozen.number] = trial
                self._request(search.spec_of(self.spec, self._params(trial)), trial)
            else:
                # Killed between being thought of and being asked for.
                self.study.tell(frozen.number, state=TrialState.FAIL)
        while True:
            self.alive()
            while len(active) < self.at_once and _ended(self.study) + len(active) < self.trials:
                trial = self.study.ask()
                active[trial.number] = trial
                self._start(trial)
            if not active:
                return
            for number in [n for n, trial in active.items() if self._look(trial)]:
                del active[number]
                self._report()
            time.sleep(LOOK_SECONDS)

    def _params(self, trial: "optuna.Trial") -> dict[str, Any]:
        return search.propose(trial, self.spec.search)

    def _start(self, trial: "optuna.Trial") -> None:
        job = search.spec_of(self.spec, self._params(trial))
        trial.set_user_attr(search.PARTITION, f"{job.dataset_ref}|{job.recipe_key()}")
        self._request(job, trial)
        values = ", ".join(
            f"{name} {value}" for name, value in search.outcomes(self.study)[trial.number].params.items()
        )
        say(f"trial {trial.number}: {values}")

    def _request(self, job: TrainJobSpec, trial: "optuna.Trial") -> None:
        catalog = wiring().catalog
        key = job.recipe_key()
        trial.set_user_attr("asked_at", time.time())
        if wiring().records.find(AdapterRecord, f"{job.dataset_ref}|{key}") is None:
            catalog.add_recipe(key, job.recipe(), actor())
            catalog.request_training(job.dataset_ref, key, f"{STUDY_ACTOR}{self.study.study_name}")

    def _look(self, trial: "optuna.Trial") -> bool:
        """Whether the trial has ended; what is new of it is told to the study."""
        from optuna.trial import TrialState

        from llmops_assets.local.runs import refused_by

        cell = trial.user_attrs[search.PARTITION]
        plan = wiring().records.find(PlanRecord, cell)
        record = wiring().records.find(AdapterRecord, cell)
        since = float(trial.user_attrs.get("asked_at", 0.0))
        runs = [r.dagster_run for r in self.watch.runs(cell, "adapter") if r.create_timestamp.timestamp() > since]
        over = not self.watch.busy(cell, "adapter")
        if record is not None and record.eval_loss is not None and over and (not runs or runs[-1].is_success):
            self.study.tell(trial.number, record.eval_loss)
            say(f"trial {trial.number}: validation loss {record.eval_loss:.4f}")
            return True
        known = set(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        # By the count of evaluations: trials with other batch sizes have other numbers of steps.
        for index, (_step, loss) in enumerate(progress.evaluations(Path(plan.model_dir)) if plan else []):
            if index not in known:
                trial.report(loss, index)
        if plan and known and any(not run.is_finished for run in runs) and trial.should_prune():
            self._stop(cell, trial.number)
            self.study.tell(trial.number, state=TrialState.PRUNED)
            say(f"trial {trial.number}: cut off, it falls behind the median of the earlier ones")
            return True
        if runs and over and runs[-1].is_failure_or_canceled:
            said = progress.failure(Path(plan.model_dir)) if plan else None
            # Weights that a blocking check refused are no recipe to recommend, whatever their validation loss.
            why = said or refused_by(cell, self.watch) or "see its run's page"
            self.study.tell(trial.number, state=TrialState.FAIL)
            say(f"trial {trial.number}: failed: {why.splitlines()[0]}")
            return True
        return False

    def _stop(self, cell: str, number: int) -> None:
        from llmops_assets.local.runs import stop
        from resources.catalog import Conflict

        try:
            stop(cell)
        except Conflict:
            say(f"trial {number}: it had ended before it was cut off")

    def _register(self) -> None:
        from llmops_assets.partitions import studies

        self.watch.instance.add_dynamic_partitions(studies.name, [self.study.study_name])

    def _report(self) -> None:
        """Bring the asset `study` up to date."""
        import dagster as dg

        from llmops_assets.page import shown

        found = search.outcomes(self.study)
        self.watch.instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "study",
                partition=self.study.study_name,
                metadata=shown(search.facts(self.spec, found, search.importances(self.study))),
            )
        )
