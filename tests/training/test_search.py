"""The search for better hyperparameters: what a spec may ask for, what a study keeps, and how it goes on."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from pydantic import ValidationError

from llmops_assets.specs.base import faults_of
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import search
from llmops_assets.training.progress import Evaluation
from tests.training.conftest import sft_spec

RANGES = {
    "lr": {"low": 1e-5, "high": 1e-2, "log": True},
    "lora_rank": {"choices": [4, 8]},
    "batch_size": {"low": 2, "high": 8, "step": 2},
}


def spec(ranges: dict[str, Any] | None = None, **more: Any) -> TrainJobSpec:
    found = {"search": ranges} if ranges is not None else {}
    return TrainJobSpec.model_validate({**sft_spec("hf:/models/x", **more), **found, "dataset_ref": "desk@v1"})


@pytest.mark.parametrize(
    ("ranges", "field"),
    [
        ({}, "search"),
        ({"lr": {"low": 1e-2, "high": 1e-5}}, "search.lr.high"),
        ({"lr": {"low": 0.0, "high": 1e-3, "log": True}}, "search.lr.low"),
        ({"lr": {"low": 1e-5}}, "search.lr"),
        ({"lr": {"low": 1e-5, "high": 1e-3, "choices": [1e-4]}}, "search.lr"),
        ({"lr": {"low": 1e-5, "high": 5.0}}, "search.lr.high"),
        ({"lora_rnk": {"choices": [4]}}, "search.lora_rnk"),
        ({"lora_rank": {"choices": []}}, "search.lora_rank.choices"),
        ({"lora_rank": {"choices": [0]}}, "search.lora_rank.choices"),
        ({"batch_size": {"low": 1, "high": 8, "step": 1.5}}, "search.batch_size.step"),
        ({"scheduler": {"low": 1, "high": 2}}, "search.scheduler"),
        ({"scheduler": {"choices": ["linear", "square"]}}, "search.scheduler.choices"),
        ({"max_seq_len": {"choices": [64, 128]}}, "search.max_seq_len"),
        ({"seed": {"low": 1, "high": 9}}, "search.seed"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_its_field(ranges: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(ranges)
    assert field in {fault.field for fault in faults_of(caught.value, TrainJobSpec)}


def test_all_that_is_wrong_with_ranges_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        spec({"lr": {"low": 1e-2, "high": 1e-5}, "seed": {"low": 1, "high": 2}, "lora_rank": {"choices": [0]}}, lr=7)
    fields = {fault.field for fault in faults_of(caught.value, TrainJobSpec)}
    assert fields == {"search.lr.high", "search.seed", "search.lora_rank.choices", "hyperparams.lr"}


def test_lora_is_not_searched_where_every_weight_is_trained() -> None:
    full = {**sft_spec("hf:/models/x", "full"), "search": {"lora_rank": {"choices": [4]}}, "dataset_ref": "desk@v1"}
    with pytest.raises(ValidationError, match="no effect with method full"):
        TrainJobSpec.model_validate(full)


def test_ranges_are_no_part_of_a_recipe_and_a_trial_is_one_of_its_own() -> None:
    plain, ranged = spec(), spec(RANGES)
    assert plain.recipe_key() == ranged.recipe_key()
    trial = search.spec_of(ranged, {"lr": 1e-4, "lora_rank": 8, "batch_size": 2})
    assert trial.search is None and trial.recipe_key() != ranged.recipe_key()
    assert trial.hyperparams.lora_alpha / 8 == ranged.hyperparams.lora_alpha / ranged.hyperparams.lora_rank
    assert search.spec_of(ranged, {"lora_rank": 8, "lora_alpha": 4.0}).hyperparams.lora_alpha == 4.0


def quadratic(study: optuna.Study, job: TrainJobSpec, count: int) -> None:
    """Stands for `count` trainings whose loss depends on the rate alone."""
    import math

    for _ in range(count):
        trial = study.ask()
        params = search.propose(trial, job.search)
        trial.set_user_attr(search.PARTITION, f"desk@v1|{search.spec_of(job, params).recipe_key()}")
        study.tell(trial, (math.log10(params["lr"]) + 3) ** 2)


def test_a_study_goes_on_where_it_was_left(tmp_path: Path) -> None:
    job = spec(RANGES)
    first = search.open_study(job, f"sqlite:///{tmp_path / 'a.db'}")
    quadratic(first, job, 4)
    shares, reason = search.importances(first)
    assert shares == {} and reason == "4 of the 5 trials that it takes have come to their end"
    assert search.facts(job, search.outcomes(first), shares, reason)["importance"] == f"not known yet: {reason}"
    again = search.open_study(job, f"sqlite:///{tmp_path / 'a.db'}")
    assert again.study_name == first.study_name and len(again.trials) == 4
    quadratic(again, job, 8)
    found = search.outcomes(again)
    assert [t.number for t in found] == list(range(12))
    assert len({t.params["lr"] for t in found}) == 12, "no trial is drawn twice"
    top = search.best(found)
    assert top.value == min(t.value for t in found)
    assert all(t.params["lora_rank"] in (4, 8) and t.params["batch_size"] in (2, 4, 6, 8) for t in found)
    other = search.open_study(spec({"lr": {"choices": [1e-3, 1e-4]}}), f"sqlite:///{tmp_path / 'a.db'}")
    assert other.study_name != first.study_name

    shares, reason = search.importances(again)
    assert reason == ""
    assert max(shares, key=shares.get) == "lr" and sum(shares.values()) == pytest.approx(1.0)
    shown = search.facts(job, found, shares)
    assert shown["best training"] == top.partition and shown["trials"] == 12
    assert shown["history"].startswith("![") and shown["importance"].startswith("![")
    assert shown["trials by number"].count("\n") == 13

    text = search.spec_text(job, top, again.study_name)
    search.write_spec(tmp_path / "best.yaml", text)
    written = TrainJobSpec.model_validate(yaml.safe_load((tmp_path / "best.yaml").read_text()))
    assert f"desk@v1|{written.recipe_key()}" == top.partition, "training it again trains nothing"


def test_a_trial_that_falls_behind_the_median_is_cut_off(tmp_path: Path) -> None:
    job = spec({"lr": {"low": 1e-5, "high": 1e-2, "log": True}})
    study = search.open_study(job, f"sqlite:///{tmp_path / 'a.db'}")
    for loss in (1.0, 1.1, 1.2, 1.3, 1.4):
        trial = study.ask()
        search.propose(trial, job.search)
        trial.report(loss, 0)
        assert not trial.should_prune(), "nothing to compare with yet"
        study.tell(trial, loss)
    for loss, cut in ((1.1, False), (1.3, True)):
        trial = study.ask()
        search.propose(trial, job.search)
        trial.report(loss, 0)
        assert bool(trial.should_prune()) is cut
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


@pytest.mark.parametrize(
    ("hyper", "done", "index"),
    [
        ({"eval_steps": 15}, Evaluation(60, 4.0, 1.0), 3),
        ({"eval_steps": 15}, Evaluation(15, 0.3, 1.0), 0),
        ({}, Evaluation(60, 4.0, 1.0), 3),
        ({}, Evaluation(30, 1.9999999, 1.0), 1),
        # `max_steps` ends the training within its third epoch, or within its first.
        ({}, Evaluation(20, 2.5, 1.0), 2),
        ({}, Evaluation(3, 0.2, 1.0), 0),
    ],
)
def test_a_validation_is_told_by_its_place_as_one_taken_up_again_begins_its_metrics_anew(
    hyper: dict[str, Any], done: Evaluation, index: int
) -> None:
    assert search.which_evaluation(spec(**hyper).hyperparams, done) == index
