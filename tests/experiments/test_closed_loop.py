"""The closed loop once, by the platform's own processes: users, tests, corrections, data, a better model, its gain.

Real are the gateway, the catalog, the registry, the graph's assets (datasets, `deployment`, `ab_report`) and a process
a model that speaks HTTP. The models are not: each is a table of the questions that it can answer, so that its quality
is known, and the *retrained* one is the table of the promoted model with the rows of the training split added, which
corrections of users went into. That a model learns from such rows at all is for `tests/training` to show.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llmops_assets.operations.endpoints import delete_endpoint, want_endpoint
from llmops_assets.operations.errors import InUse
from llmops_assets.operations.experiments import conclude_experiment, extend_experiment, holdout_gain
from llmops_assets.operations.retrainings import Outcome, request_due, set_rule
from llmops_assets.operations.reviews import review, review_queue
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.serving.report import questions
from llmops_assets.specs.retraining import RetrainingRule
from llmops_assets.specs.training import TrainJobSpec
from resources.catalog import Experiment
from sensors import intents
from tests.experiments.desk import Desk, running_desk
from tests.experiments.people import Asked
from tests.operations.test_reviews import materialise, question
from tests.serving.conftest import deployment_spec, until
from tests.training.conftest import sft_spec

QUESTIONS = [question(number) for number in range(100)]
RIGHT = {text: f"{number + 3}일 안에 계좌로 돌려 드립니다." for number, text in enumerate(QUESTIONS)}
RECIPE = TrainJobSpec.model_validate({**sft_spec("hf:/models/x"), "dataset_ref": "desk@v1"})
CANARY = {"strategy": "canary", "traffic_split": {"old": 50, "new": 50}}
FIRST = 700
"""Users of whom far more than 200 have each model: harm is seen, and that two are alike takes more of them."""
HELD = {"holdout": {"percent": 30}}


def knowing(*of_ten: int) -> dict[str, str]:
    """What a model knows that answers these of every ten questions."""
    return {text: RIGHT[text] for number, text in enumerate(QUESTIONS) if number % 10 in of_ten}


@dataclass
class Story:
    """What happened, in the order that it happened in."""

    desk: Desk
    reports: dict[str, AbReportRecord] = field(default_factory=dict)
    experiments: dict[str, Experiment] = field(default_factory=dict)
    served: dict[str, dict[str, float]] = field(default_factory=dict)
    users_of_three: int = 0
    checks: dict[str, dict[str, bool]] = field(default_factory=dict)
    corrected: Asked = field(default_factory=Asked)
    learned: dict[str, str] = field(default_factory=dict)
    before_reviews: Outcome | None = None
    asked: Outcome | None = None
    event: Any = None
    trained_on: list[str | None] = field(default_factory=list)
    held: int = 0

    def end(self, name: str) -> None:
        """Have what was decided carried out."""
        self.desk.carry_out()
        self.experiments[name] = self.desk.catalog.experiment(name)
        self.checks[name] = self.desk.checks
        self.served[name] = self.desk.serves()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as patch, running_desk(tmp_path_factory.mktemp("loop")) as desk:
        told = Story(desk)
        _two_that_are_no_better(told)
        _one_that_is_better(told)
        _what_it_does_not_know(told, patch)
        _the_retrained_one(told)
        yield told


def _two_that_are_no_better(story: Story) -> None:
    desk = story.desk
    base = desk.register("desk-base", knowing(0, 1, 2, 3))
    equal, worse = desk.register("desk-equal", knowing(2, 3, 4, 5)), desk.register("desk-worse", knowing(9))
    desk.want(base)
    desk.want(equal, rollout=CANARY)
    split = {"traffic_split": {"old": 67, "new": 33}, "keep_models": 2}
    desk.want(worse, rollout=CANARY | split)
    others = {"other_treatments": [worse], "split": [34, 33, 33], "minimum_effect": 0.35}
    desk.compare(name="three", control=base, treatment=equal, **others)
    story.reports["three"] = desk.decide("three", RIGHT, first=FIRST)
    story.users_of_three = desk.users
    story.end("three")


def _one_that_is_better(story: Story) -> None:
    desk = story.desk
    better = desk.register("desk-better", knowing(*range(7)))
    desk.want(better, rollout=CANARY, **HELD)
    desk.compare(name="better", control="desk-base@1", treatment=better)
    story.reports["better"] = desk.decide("better", RIGHT, first=620)
    story.end("better")


def _what_it_does_not_know(story: Story, patch: pytest.MonkeyPatch) -> None:
    desk, wiring = story.desk, story.desk.wiring
    story.corrected = desk.visit(RIGHT, 120, correcting=0.5)
    wiring.catalog.add_recipe(RECIPE.recipe_key(), RECIPE.recipe())
    rule = {"name": "desk", "recipe": RECIPE.recipe_key(), "datasets": "desk-*", "endpoint": "desk"}
    rule["on_reviewed"] = {"rows": 10, "dataset": "desk-reviewed"}
    set_rule(wiring, "kim", RetrainingRule.model_validate(rule))
    (story.before_reviews,) = request_due(wiring)
    for item in review_queue(wiring, "desk").items:
        # The reviewer accepts what a user wrote, and leaves alone who only complained.
        if item.answer.get("correction"):
            review(wiring, "kim", item.request_id, "accept")
    (story.asked,) = request_due(wiring)
    dataset = story.asked.dataset
    assert dataset is not None, story.asked.reason
    materialise(wiring, dataset, patch)
    splits = wiring.records.load(SplitsRecord, dataset)
    rows = wiring.store.read(splits.manifests["train"], columns=["messages"])["messages"].to_list()
    story.learned = {row[0]["content"]: row[-1]["content"] for row in rows}
    story.trained_on = questions(wiring.store.read(splits.manifests["train"]), splits.type)
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"catalog": wiring.catalog, "records": wiring.records}
        tick = intents.make(1)(dg.build_sensor_context(instance=instance, resources=resources))
    assert isinstance(tick, dg.SensorResult)
    (story.event,) = tick.asset_events
    desk.register("desk-retrained", knowing(*range(7)) | story.learned, dataset=dataset)


def _the_retrained_one(story: Story) -> None:
    desk = story.desk
    desk.want("desk-retrained@1", rollout=CANARY, **HELD)
    desk.compare(name="retrained", control="desk-better@1", treatment="desk-retrained@1")
    story.reports["retrained"] = desk.decide("retrained", RIGHT, first=640)
    story.end("retrained")
    desk.visit(RIGHT, 150)
    # Somebody who is held out comes back after all of it.
    held = desk.catalog.exposures(endpoint="desk").filter(pl.col("model_ref") == "desk-base@1").sort("at")["user"][-1]
    story.held = int(held.removeprefix("user-"))
    desk.visit_again(RIGHT, [story.held])


def test_the_better_is_promoted_the_equal_ends_by_futility_and_the_worse_is_rolled_back(story: Story) -> None:
    three, better = story.reports["three"], story.reports["better"]
    found = {name: one["decision"] for name, one in three.figures["comparisons"].items()}
    assert found == {"desk-equal@1": "no_difference", "desk-worse@1": "rollback"}
    assert "lies within ± 0.35" in three.figures["comparisons"]["desk-equal@1"]["reason"]
    assert (three.decision, story.served["three"]) == ("rollback", {"desk-base@1": 100.0})
    assert (better.decision, better.figures["winner"]) == ("promote", "desk-better@1")
    assert story.served["better"] == {"holdout": 30.0, "desk-better@1": 70.0}
    for experiment in story.experiments.values():
        assert experiment.acted_at is not None and experiment.withheld is None
    actions = [line["action"] for line in story.desk.catalog.audit_log(limit=10_000)]
    assert actions.count("experiment.decide") == actions.count("experiment.act") == 3


def test_whom_a_model_harms_has_the_control_while_the_others_go_on(story: Story) -> None:
    assert list(story.desk.catalog.dropped_arms.of("three")) == ["desk-worse@1"]
    users = [f"user-{number}" for number in range(FIRST, story.users_of_three)]
    later = story.desk.catalog.exposures(endpoint="desk").filter(pl.col("user").is_in(users))
    assert later.height and set(later["model_ref"]) == {"desk-base@1", "desk-equal@1"}
    # What its users got from the control counts for neither arm.
    assert 0.2 < later["experiment"].null_count() / later.height < 0.5
    # The control alone had users since then: that is no broken split.
    assert story.checks["three"]["no_sample_ratio_mismatch"]


def test_what_users_met_is_what_the_models_know(story: Story) -> None:
    assert sum(asked.failed for asked in story.desk.asked) == 0
    ratings = story.reports["better"].figures
    assert ratings["arms"]["treatment"]["response_rate"] > 0.9
    assert ratings["rating_treatment"] - ratings["rating_control"] == pytest.approx(0.9, abs=0.3)


def test_corrections_become_data_and_a_training_of_them_is_asked_for(story: Story) -> None:
    assert story.before_reviews.is_due is False and story.asked.is_due
    reviewed = f"{story.corrected.corrections} answers of endpoint desk were reviewed"
    assert story.asked.reason.startswith(reviewed)
    assert story.event.partition == f"{story.asked.dataset}|{RECIPE.recipe_key()}"
    assert str(story.event.metadata["reason"].value).startswith(reviewed)
    assert set(story.trained_on) == story.learned.keys()
    # Also what those who are held out on the first model corrected, which the promoted one knew.
    assert len(story.learned.keys() - knowing(*range(7)).keys()) > 10
    assert story.learned == {text: RIGHT[text] for text in story.learned}


def test_the_retrained_model_is_better_and_its_gain_is_measured_against_the_holdout(story: Story) -> None:
    report = story.reports["retrained"]
    assert (report.decision, report.figures["winner"]) == ("promote", "desk-retrained@1")
    assert story.served["retrained"] == {"holdout": 30.0, "desk-retrained@1": 70.0}
    found = holdout_gain(story.desk.wiring, "desk").figures
    assert found["models_held_out"] == ["desk-base@1"] and found["low"] > 0.3
    assert found["models_of_others"] == ["desk-base@1", "desk-better@1", "desk-retrained@1"]
    assert found["users_who_moved"] == 0 and found["srm_p"] > 0.001
    # The report of a test shows it too, as it was then.
    assert report.figures["gain_over_holdout"]["low"] > 0
    held = story.desk.catalog.exposures(endpoint="desk").filter(pl.col("user") == f"user-{story.held}")
    assert held.height == 6 and set(held["model_ref"]) == {"desk-base@1"}


def test_a_test_is_extended_concluded_and_its_endpoint_deleted_by_hand_while_another_serves(story: Story) -> None:
    """On an endpoint of its own, beside the one whose story this is."""
    desk, wiring, name = story.desk, story.desk.wiring, "counter"
    desk.want("desk-base@1", name)
    desk.want("desk-better@1", name, rollout=CANARY)
    first = {"endpoint": name, "control": "desk-base@1", "treatment": "desk-better@1"}
    desk.compare(name="by-hand", **first)
    assert extend_experiment(wiring, "kim", "by-hand", 48) and not extend_experiment(wiring, "kim", "by-hand", 48)
    assert desk.catalog.experiment("by-hand").spec.duration_hours == 48
    # Nobody asked yet, so nothing is decided, and nobody takes the models from beneath it.
    assert desk.report("by-hand").decision == "continue"
    for change in (
        lambda: delete_endpoint(wiring, "kim", name),
        lambda: want_endpoint(wiring, "kim", deployment_spec(name, "desk-base@1")),
    ):
        with pytest.raises(InUse, match="by-hand"):
            change()
    assert desk.serves(name) == {"desk-base@1": 50.0, "desk-better@1": 50.0}
    ended = conclude_experiment(wiring, "kim", "by-hand", "treatment")
    assert (ended.decision, ended.winner, ended.new) == ("promote", "desk-better@1", True)
    desk.carry_out()
    assert desk.serves(name) == {"desk-better@1": 100.0}
    assert desk.catalog.experiment("by-hand").acted_at is not None

    desk.want("desk-base@1", name, rollout=CANARY)
    desk.compare(name="cut-off", **first | {"control": "desk-better@1", "treatment": "desk-base@1"})
    delete_endpoint(wiring, "kim", name, force=True)
    cut = desk.catalog.experiment("cut-off")
    assert cut.decision == "inconclusive" and "delete the endpoint" in cut.reason
    assert name not in desk.catalog.endpoint_names() and desk.catalog.backends(name) == []
    until(lambda: name not in desk.gateway.routes()["endpoints"])
    assert desk.serves() == story.served["retrained"]
    assert desk.visit(RIGHT, 5).failed == 0
