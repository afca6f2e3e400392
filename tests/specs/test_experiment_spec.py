"""The rules of an A/B test."""

import pytest

from llmops_assets.specs.experiment import ExperimentSpec
from tests.specs.builders import EXPERIMENT, GONE, changed, experiment_faults


def test_what_has_a_default_may_be_left_out():
    assert experiment_faults() == []
    spec = ExperimentSpec.model_validate(EXPERIMENT)
    assert spec.weights == (0.5, 0.5)
    assert (spec.target_users_per_arm, spec.expected_users) == (200, 400)
    assert spec.auto_promote


@pytest.mark.parametrize("missing", ["name", "endpoint", "control", "treatment", "duration_hours"])
def test_a_missing_field_is_named(missing):
    assert experiment_faults(**{missing: GONE}) == [missing]


@pytest.mark.parametrize("split", [[50, 49], [80, 30]])
def test_the_split_adds_up_to_100(split):
    assert experiment_faults(split=split) == ["split"]


@pytest.mark.parametrize("split", [[100, 0], [0, 100], [50], [50, 25, 25], [49.5, 50.5]])
def test_the_split_gives_both_arms_users(split):
    assert experiment_faults(split=split)
    assert experiment_faults(split=[80, 20]) == []


def test_a_model_is_not_compared_with_itself():
    assert experiment_faults(treatment="model@2") == ["treatment"]


def test_too_few_users_decide_nothing():
    assert experiment_faults(target_users_per_arm=199) == ["target_users_per_arm"]
    assert experiment_faults(target_users_per_arm=200) == []


def test_a_decision_is_expected_no_earlier_than_it_may_be_made():
    assert experiment_faults(target_users_per_arm=300, expected_users=599) == ["expected_users"]
    assert experiment_faults(target_users_per_arm=300, expected_users=600) == []
    spec = ExperimentSpec.model_validate(changed(EXPERIMENT, target_users_per_arm=300))
    assert spec.expected_users == 600


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("target_users_per_arm", "many"),
        ("target_users_per_arm", 1),
        ("expected_users", 3),
        ("duration_hours", 0),
        ("duration_hours", 10_000),
        ("rating_window_hours", 0),
        ("success_metric", "clicks"),
        ("guardrails.slow_requests", 2),
        ("guardrails.failed_requests", -0.1),
        ("control", "model"),
        ("name", "a|b"),
        ("auto_promote", "maybe"),
    ],
)
def test_a_bad_value_is_a_fault_of_its_field(path, bad):
    assert experiment_faults(**{path.replace(".", "__"): bad}) == [path]
