from pathlib import Path

import pytest

from llmops_assets.specs.files import load_spec
from llmops_assets.specs.training import TrainJobSpec

SPECS = Path(__file__).parents[2] / "examples" / "expressway" / "specs"


@pytest.fixture(scope="module")
def jobs() -> dict[str, TrainJobSpec]:
    return {name: load_spec(SPECS / f"{name}.yaml") for name in ("base", "tuned", "undertrained")}


def test_fine_tunings_start_from_the_base_as_it_is_written(jobs: dict[str, TrainJobSpec]):
    ref = f"{jobs['base'].dataset_ref}|{jobs['base'].recipe_key()}"
    for name in ("tuned", "undertrained"):
        assert jobs[name].base_model_ref == ref, f"base.yaml has changed: write base_model_ref: {ref} in {name}.yaml"


def test_the_undertrained_recipe_differs_from_the_tuned_one_in_its_steps_alone(jobs: dict[str, TrainJobSpec]):
    tuned, undertrained = jobs["tuned"].recipe(), jobs["undertrained"].recipe()
    assert undertrained["hyperparams"].pop("max_steps") <= 30
    assert undertrained["output"].pop("artifact_name") != tuned["output"].pop("artifact_name")
    assert undertrained == tuned


def test_the_models_that_are_trained_are_deployed_and_compared(jobs: dict[str, TrainJobSpec]):
    experiment = load_spec(SPECS / "experiment.yaml")
    deployed = [load_spec(SPECS / f"deploy-{name}.yaml") for name in ("base", "tuned")]
    assert [spec.model_name for spec in deployed] == [jobs[name].output.artifact_name for name in ("base", "tuned")]
    assert [spec.model_ref for spec in deployed] == [experiment.control, experiment.treatment]
    assert {spec.endpoint for spec in deployed} == {experiment.endpoint}
    assert [spec.job_type for spec in deployed] == [jobs[name].job_type for name in ("base", "tuned")]


def test_free_questions_are_asked_besides_the_test_split(jobs: dict[str, TrainJobSpec]):
    assert jobs["tuned"].evaluation.suites == ["expressway-free@v1"]
