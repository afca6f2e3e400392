"""Drift, reviewed answers and new versions become trainings: once, with a reason, and within the limits of the rule."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.access import Actor
from llmops_assets.operations.datasets import register_dataset
from llmops_assets.operations.errors import Forbidden
from llmops_assets.operations.retrainings import preview, remove_rule, request_due, set_rule
from llmops_assets.operations.reviews import review
from llmops_assets.records.serving import DriftRecord
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.files import load_spec
from llmops_assets.specs.retraining import RetrainingRule
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.retraining import Facts, NotYet, Past, Retrain, decide
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound
from sensors import retraining
from tests.operations.test_reviews import rating, said
from tests.resources.samples import deployment
from tests.sensors.killing import killed_at
from tests.training.conftest import sft_spec

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SPEC = TrainJobSpec.model_validate({**sft_spec("hf:/models/x"), "dataset_ref": "desk@v1"})
RECIPE = SPEC.recipe_key()
ALL = {"on_drift": True, "on_reviewed": {"rows": 3, "dataset": "desk-reviewed"}}


def rule(**changes) -> RetrainingRule:
    values = {"name": "desk", "recipe": RECIPE, "datasets": "desk*", "endpoint": "desk"}
    return RetrainingRule.model_validate({**values, **changes})


def facts(**changes) -> Facts:
    values = {"now": NOW, "since": NOW - timedelta(days=40), "versions": [], "trained": set(), "underway": None}
    return Facts(**{**values, "past": [], **changes})


V1, V2 = ("desk@v1", NOW - timedelta(days=50)), ("desk@v2", NOW - timedelta(days=1))
DRIFT = {"drifted": ["characters"], "drift_at": NOW}


@pytest.mark.parametrize(
    ("changes", "given", "dataset"),
    [
        ({}, {"versions": [V1, V2], "trained": {"desk@v1"}}, "desk@v2"),
        (ALL, {"reviewed": 3}, None),
        (ALL, {**DRIFT, "versions": [V1]}, "desk@v1"),
        (ALL, {**DRIFT, "versions": [V1], "trained": {"desk@v1"}, "reviewed": 1}, None),
    ],
)
def test_a_reason_and_rows_that_are_new_make_a_training(changes, given, dataset):
    found = decide(rule(**changes), facts(**given))
    assert isinstance(found, Retrain) and found.dataset == dataset and found.reason


@pytest.mark.parametrize(
    ("changes", "given", "words"),
    [
        ({}, {"versions": [V1, V2], "trained": {"desk@v1", "desk@v2"}}, "nothing is new"),
        # What was there before the rule nobody wanted to train on.
        ({}, {"versions": [V1]}, "nothing is new"),
        (ALL, {"reviewed": 2}, "nothing is new"),
        ({"on_new_version": False, **ALL}, {"versions": [V1, V2]}, "nothing is new"),
        ({}, {**DRIFT, "versions": [V1]}, "nothing is new"),
        (ALL, {**DRIFT, "versions": [V1], "trained": {"desk@v1"}}, "no rows that the recipe has not seen"),
        ({}, {"versions": [V2], "underway": "desk@v0|x"}, "waits for desk@v0|x"),
        ({}, {"versions": [V2], "past": [Past(NOW - timedelta(hours=23))]}, "waits until 2026-11-20 13:00"),
        ({"trainings_per_30_days": 2}, {"versions": [V2], "past": [Past(NOW - timedelta(days=9))] * 2}, "2 trainings"),
        ({"gpu_hours_per_30_days": 1}, {"versions": [V2], "past": [Past(NOW - timedelta(days=9), 3600)]}, "1.0 of 1"),
    ],
)
def test_without_either_or_within_its_limits_there_is_none(changes, given, words):
    found = decide(rule(**changes), facts(**given))
    assert isinstance(found, NotYet) and words in found.reason
    assert found.is_held is (words != "nothing is new")
    assert found.needs_person is (found.is_held and not words.startswith("waits"))


def test_what_is_older_than_the_period_costs_nothing_any_more():
    old = facts(versions=[V2], past=[Past(NOW - timedelta(days=31), 9e9)] * 9)
    assert isinstance(decide(rule(gpu_hours_per_30_days=1, trainings_per_30_days=1), old), Retrain)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"on_new_version": False}, "name a reason"),
        ({"endpoint": None, "on_drift": True}, "need the endpoint"),
        ({"on_reviewed": {"rows": 3, "dataset": "other"}}, "does not match"),
        ({"recipe": "a|b"}, "cannot be a partition key"),
        ({"cooldown_hours": -1}, "greater than or equal to 0"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        rule(**changes)


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    """A platform with a dataset that a recipe was trained on, and an endpoint."""
    found = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    prepare_home(found.settings)
    register(found, "v1")
    found.catalog.add_recipe(RECIPE, SPEC.recipe())
    found.catalog.request_training("desk@v1", RECIPE, "kim")
    found.catalog.intents.acknowledge("train", f"desk@v1|{RECIPE}", 1, actor="adapter")
    found.catalog.want_endpoint(deployment())
    return found


def register(w: Wiring, version: str, **changes) -> None:
    file = w.settings.root / f"desk-{version}.jsonl"
    turns = [{"role": "user", "content": f"질문 {version}"}, {"role": "assistant", "content": "답"}]
    file.write_text(json.dumps({"messages": turns}, ensure_ascii=False) + "\n", encoding="utf-8")
    values = {"name": "desk", "version": version, "type": "sft_pair", "files": [file.name], "owner": "x"}
    register_dataset(w, "kim", DatasetSpec.model_validate({**values, "description": "d", **changes}), [str(file)])


def open_trainings(w: Wiring) -> list[str]:
    return [intent.key for intent in w.catalog.intents.open("train")]


def drift(w: Wiring, drifted: list[str]) -> None:
    record = DriftRecord(endpoint="desk", model_ref="desk@1", requests=90, reference_rows=9, features={},
                         drifted=drifted, until=NOW)  # fmt: skip
    w.records.save("desk", record)


def test_a_new_version_is_trained_on_once_and_says_why(wiring):
    assert set_rule(wiring, "kim", rule(cooldown_hours=0)) and not set_rule(wiring, "kim", rule(cooldown_hours=0))
    assert [one.is_due for one in request_due(wiring)] == [False]
    register(wiring, "v2")
    assert [one.dataset for one in preview(wiring)] == ["desk@v2"] and open_trainings(wiring) == []
    assert [(one.dataset, one.is_due) for one in request_due(wiring)] == [("desk@v2", True)]
    (intent,) = wiring.catalog.intents.open("train")
    assert intent.key == f"desk@v2|{RECIPE}" and "desk@v2 is a new version" in intent.detail["reason"]
    (line,) = [
        a for a in wiring.catalog.audit_log() if a["action"] == "training.request" and a["actor"] == "retraining"
    ]
    assert line["detail"]["reason"] == intent.detail["reason"]
    # Another version meanwhile waits for this one, and comes when it is done.
    register(wiring, "v3")
    assert "one at a time" in preview(wiring)[0].reason and not request_due(wiring)[0].is_due
    wiring.catalog.intents.acknowledge("train", intent.key, 1, actor="adapter")
    assert request_due(wiring)[0].dataset == "desk@v3"
    assert len(wiring.catalog.retrainings.made("desk")) == 2


def test_a_version_of_another_type_or_name_is_none_of_the_recipes(wiring):
    set_rule(wiring, "kim", rule(datasets="desk"))
    register(wiring, "v1", name="other")
    pairs = {"prompt": [{"role": "user", "content": "q"}]}
    pairs |= {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    file = wiring.settings.root / "pairs.jsonl"
    file.write_text(json.dumps(pairs) + "\n")
    spec = DatasetSpec(name="desk", version="p1", type="rlhf_pair", files=["pairs.jsonl"], owner="x", description="d")
    register_dataset(wiring, "kim", spec, [str(file)])
    assert request_due(wiring)[0].reason == "nothing is new"


def test_drift_alone_trains_nothing_twice_and_with_reviewed_answers_makes_a_version(wiring):
    set_rule(wiring, "kim", rule(**ALL))
    drift(wiring, ["characters"])
    (held,) = request_due(wiring)
    assert held.is_held and "drifted: characters" in held.reason and "review answers" in held.reason
    wiring.catalog.add_traffic([said(n) for n in range(3)], [rating(n, 1, correction=f"맞는 답 {n}") for n in range(3)])
    review(wiring, "lee", "req-0", "accept")
    (made,) = request_due(wiring)
    assert made.is_due and "with 1 reviewed answers" in made.reason and made.dataset.startswith("desk-reviewed@r1-")
    assert wiring.catalog.dataset_entry(made.dataset).spec.type == "sft_pair"
    assert open_trainings(wiring) == [f"{made.dataset}|{RECIPE}"]


def test_enough_reviewed_answers_are_a_reason_and_count_once(wiring):
    set_rule(wiring, "kim", rule(cooldown_hours=0, **ALL))
    wiring.catalog.add_traffic([said(n) for n in range(9)], [rating(n, 1, correction=f"맞는 답 {n}") for n in range(9)])
    for n in range(2):
        review(wiring, "lee", f"req-{n}", "accept")
    review(wiring, "lee", "req-8", "reject")
    assert not request_due(wiring)[0].is_due
    review(wiring, "lee", "req-2", "accept")
    (made,) = request_due(wiring)
    assert made.is_due and made.reason == "3 answers of endpoint desk were reviewed since the last time"
    wiring.catalog.intents.acknowledge("train", f"{made.dataset}|{RECIPE}", 1, actor="adapter")
    assert request_due(wiring)[0].reason == "nothing is new"
    for n in range(3, 6):
        review(wiring, "lee", f"req-{n}", "accept")
    (again,) = request_due(wiring)
    assert again.is_due and again.dataset != made.dataset


def test_killed_at_any_line_it_asks_for_one_training_and_registers_one_version(wiring):
    set_rule(wiring, "kim", rule(**ALL))
    wiring.catalog.add_traffic([said(n) for n in range(3)], [rating(n, 1, correction=f"맞는 답 {n}") for n in range(3)])
    for n in range(3):
        review(wiring, "lee", f"req-{n}", "accept")
    hits = 0
    for line in range(1, 200):
        with killed_at(line, "llmops_assets/operations/retrainings.py") as kill:
            request_due(wiring)
        hits += kill.hit
        if not kill.hit:
            break
    assert hits > 20
    versions = [entry.key for entry in wiring.catalog.datasets() if entry.key.startswith("desk-reviewed")]
    assert len(versions) == 1
    assert open_trainings(wiring) == [f"{versions[0]}|{RECIPE}"]
    assert len(wiring.catalog.retrainings.made()) == 1


def test_a_fault_in_one_rule_leaves_the_others_alone(wiring):
    set_rule(wiring, "kim", rule(name="a-broken"))
    set_rule(wiring, "kim", rule(name="b-whole"))
    wiring.catalog.retrainings.put("a-broken", {**rule(name="a-broken").model_dump(mode="json"), "recipe": "gone"}, "x")
    register(wiring, "v2")
    broken, whole = request_due(wiring)
    assert "gone" in broken.reason and broken.is_held and whole.is_due


def test_a_rule_needs_what_it_names_and_somebody_who_may(wiring):
    with pytest.raises(NotFound, match="recipe"):
        set_rule(wiring, "kim", rule(recipe="gone"))
    with pytest.raises(NotFound, match="endpoint"):
        set_rule(wiring, "kim", rule(endpoint="gone"))
    with pytest.raises(Forbidden):
        set_rule(wiring, Actor("lee", ["viewer"]), rule())
    with pytest.raises(NotFound, match="llmops retrain list"):
        remove_rule(wiring, "kim", "gone")
    set_rule(wiring, "kim", rule())
    remove_rule(wiring, "kim", "desk")
    assert wiring.catalog.retrainings.rules() == [] and request_due(wiring) == []


def test_the_sensor_asks_and_says_what_it_asked_for(wiring):
    sensor = retraining.make(5, wiring)
    with dg.DagsterInstance.ephemeral() as instance:

        def tick() -> str:
            found = sensor(dg.build_sensor_context(instance=instance))
            assert isinstance(found, dg.SkipReason)
            return found.skip_message

        assert tick() == "there is no rule of retraining"
        set_rule(wiring, "kim", rule())
        register(wiring, "v2")
        assert "asked for: desk@v2 is a new version" in tick()
        assert "one at a time" in tick() or "nothing is new" in tick()
    assert open_trainings(wiring) == [f"desk@v2|{RECIPE}"]


def test_a_rule_is_read_from_a_file_with_its_faults_named(tmp_path):
    file = tmp_path / "rule.yaml"
    text = f"kind: retraining\nname: desk\nrecipe: {RECIPE}\ndatasets: desk*\nendpoint: desk\non_drift: true\n"
    file.write_text(text)
    assert load_spec(file) == rule(on_drift=True)
    file.write_text(text + "on_drfit: true\n")
    with pytest.raises(SpecError, match="on_drift"):
        load_spec(file)
