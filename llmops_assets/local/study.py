"""Drives a hyperparameter search on the platform of this machine: asks for trials, cuts off what falls behind."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.local.runs import stop
from llmops_assets.operations.training_status import why_failed
from llmops_assets.operations.trainings import request_trial
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import progress, search
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict

if TYPE_CHECKING:
    import optuna

    from llmops_assets.local.watch import Watcher

LOOK_SECONDS = 0.5


def ended(study: "optuna.Study") -> int:
    """Trials of a study that came to an end, whichever."""
    return sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))


@dataclass
class StudyDriver:
    """Keeps trials going until as many have ended as were asked for."""

    wiring: Wiring
    actor: str
    spec: TrainJobSpec
    study: "optuna.Study"
    watch: "Watcher"
    trials: int
    at_once: int
    alive: Callable[[], None]
    """Raises when the platform has ended."""
    say: Callable[[str], None]

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
            while len(active) < self.at_once and ended(self.study) + len(active) < self.trials:
                trial = self.study.ask()
                active[trial.number] = trial
                self._start(trial)
            if not active:
                return
            for number in [n for n, trial in active.items() if self._has_ended(trial)]:
                del active[number]
                self._report()
            time.sleep(LOOK_SECONDS)

    def _params(self, trial: "optuna.Trial") -> dict[str, Any]:
        return search.propose(trial, self.spec.search or {})

    def _start(self, trial: "optuna.Trial") -> None:
        job = search.spec_of(self.spec, self._params(trial))
        trial.set_user_attr(search.PARTITION, f"{job.dataset_ref}|{job.recipe_key()}")
        self._request(job, trial)
        values = ", ".join(
            f"{name} {value}" for name, value in search.outcomes(self.study)[trial.number].params.items()
        )
        self.say(f"trial {trial.number}: {values}")

    def _request(self, job: TrainJobSpec, trial: "optuna.Trial") -> None:
        trial.set_user_attr("asked_at", time.time())
        request_trial(self.wiring, self.actor, self.study.study_name, job)

    def _has_ended(self, trial: "optuna.Trial") -> bool:
        """Whether the trial has ended; what is new of it is passed on to the study."""
        from optuna.trial import TrialState

        cell, records = trial.user_attrs[search.PARTITION], self.wiring.records
        plan, record = records.find(PlanRecord, cell), records.find(AdapterRecord, cell)
        folder = Path(plan.model_dir) if plan else None
        since = float(trial.user_attrs.get("asked_at", 0.0))
        runs = [run for run in self.watch.runs(cell, "adapter") if run.created_at > since]
        over = not self.watch.busy(cell, "adapter")
        if record is not None and record.eval_loss is not None and over and (not runs or runs[-1].is_success):
            self.study.tell(trial.number, record.eval_loss)
            self.say(f"trial {trial.number}: validation loss {record.eval_loss:.4f}")
            return True
        known = set(self.study.get_trials(deepcopy=False)[trial.number].intermediate_values)
        hyper = search.spec_of(self.spec, self._params(trial)).hyperparams
        for evaluation in progress.evaluations(folder) if folder else []:
            index = search.which_evaluation(hyper, evaluation)
            if index not in known:
                trial.report(evaluation.loss, index)
        if plan and known and any(not run.is_finished for run in runs) and trial.should_prune():
            self._stop(cell, trial.number)
            self.study.tell(trial.number, state=TrialState.PRUNED)
            self.say(f"trial {trial.number}: cut off, it falls behind the median of the earlier ones")
            return True
        if runs and over and (runs[-1].is_failure or runs[-1].is_canceled):
            # Weights that a blocking check refused are no recipe to recommend, whatever their validation loss.
            reason = why_failed(self.wiring, runs[-1], folder)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self.say(f"trial {trial.number}: failed: {reason.splitlines()[0]}")
            return True
        return False

    def _stop(self, cell: str, number: int) -> None:
        try:
            stop(self.wiring, self.actor, cell)
        except Conflict:
            self.say(f"trial {number}: it had ended before it was cut off")

    def _register(self) -> None:
        from llmops_assets.partitions import studies

        self.watch.instance.add_dynamic_partitions(str(studies.name), [self.study.study_name])

    def _report(self) -> None:
        """Bring the asset `study` up to date."""
        import dagster as dg

        from llmops_assets.page import shown

        facts = search.facts(self.spec, search.outcomes(self.study), *search.importances(self.study))
        self.watch.instance.report_runless_asset_event(
            dg.AssetMaterialization("study", partition=self.study.study_name, metadata=shown(facts, self.wiring.paths))
        )
