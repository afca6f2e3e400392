"""Experiments by hand: stopped, concluded, extended, and not undermined, whoever asks and however often."""

import pytest

from llmops_assets.operations.endpoints import delete_endpoint, want_endpoint
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.experiments import (
    conclude_experiment,
    extend_experiment,
    list_experiments,
    stop_experiment,
)
from llmops_assets.operations.models import promote
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound
from resources.tracking import Tracking
from tests.experiments.traffic import CONTROL, TREATMENT, routes, spec

NAME = "base-or-tuned"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory) -> Tracking:
    """A registry with both models, made once: nothing here changes it."""
    home = tmp_path_factory.mktemp("registry")
    made = Wiring(Settings(home=home / "home")).tracking
    for ref in (CONTROL, "desk-tuned@1", TREATMENT):
        folder = home / ref
        folder.mkdir()
        tags = {"dataset": "desk@v1", "recipe": "r-1", "content_hash": ref, "state": "approved"}
        made.register(ref.partition("@")[0], folder, None, tags | {"family": "llama", "job_type": "SFT"})
    return made


@pytest.fixture
def w(tmp_path, tracking: Tracking) -> Wiring:
    """A home whose endpoint serves two models that an experiment compares."""
    wiring = Wiring(Settings(home=tmp_path / "home"))
    vars(wiring)["tracking"] = tracking
    deployment = {
        "model_ref": CONTROL,
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "endpoint": "desk",
        "environment": "dev",
        "resources": {"gpus": 0},
    }
    wiring.catalog.want_endpoint(DeploymentSpec.model_validate(deployment))
    wiring.catalog.conclude_deployment("desk", 1, state="live")
    wiring.catalog.set_routes("desk", routes())
    wiring.catalog.create_experiment(spec())
    return wiring


def actions(w: Wiring, prefix: str = "experiment.") -> list[str]:
    return [line["action"] for line in w.catalog.audit_log() if line["action"].startswith(prefix)][::-1]


def wanted(w: Wiring) -> tuple[str, int]:
    endpoint = w.catalog.endpoint("desk")
    return endpoint.spec.model_ref, endpoint.revision


def test_a_stopped_experiment_gives_the_endpoint_back_to_the_control_once(w: Wiring) -> None:
    ended = stop_experiment(w, "kim", NAME, "the prompt was wrong")
    assert (ended.decision, ended.new) == ("inconclusive", True)
    assert "kim: the prompt was wrong" in w.catalog.experiment(NAME).reason
    assert wanted(w) == (CONTROL, 2)
    again = stop_experiment(w, "lee", NAME)
    assert (again.new, again.reason) == (False, ended.reason)
    assert wanted(w) == (CONTROL, 2) and actions(w).count("experiment.decide") == 1
    w.catalog.conclude_deployment("desk", 2, state="live")
    assert w.catalog.experiment(NAME).acted_at is not None
    assert list_experiments(w, "running") == [] and len(list_experiments(w)) == 1


@pytest.mark.parametrize(
    ("winner", "ref", "decision"), [("treatment", TREATMENT, "promote"), ("control", CONTROL, "rollback")]
)
def test_a_person_may_conclude_a_running_experiment(w: Wiring, winner, ref: str, decision: str) -> None:
    ended = conclude_experiment(w, "kim", NAME, winner)
    assert (ended.decision, ended.winner, ended.new) == (decision, ref, True)
    assert wanted(w) == (ref, 2)
    other = "control" if winner == "treatment" else "treatment"
    with pytest.raises(Conflict, match=f"concluded: {ref} is about to get all users"):
        conclude_experiment(w, "lee", NAME, other)
    assert not conclude_experiment(w, "lee", NAME, winner).new
    w.catalog.conclude_deployment("desk", 2, state="live")
    with pytest.raises(Conflict, match="was carried out"):
        conclude_experiment(w, "lee", NAME, other)
    assert wanted(w) == (ref, 2)


def test_a_decision_left_to_people_keeps_both_models_until_somebody_concludes(w: Wiring) -> None:
    from llmops_assets.experiments.assets import _carrying_out
    from llmops_assets.experiments.decision import Decision

    experiment = w.catalog.experiment(NAME)
    by_hand = experiment.spec.model_copy(update={"auto_promote": False})
    decided = Decision("promote", "better", experiment.started_at)
    carry_out = _carrying_out(decided, type(experiment)(**{**vars(experiment), "spec": by_hand}), w.catalog, w.tracking)
    w.catalog.decide_experiment(NAME, "promote", "better", {}, carry_out=carry_out)
    after = w.catalog.experiment(NAME)
    assert after.acted_at is None and "llmops ab conclude base-or-tuned" in after.withheld
    assert wanted(w) == (CONTROL, 1) and len(w.catalog.endpoint("desk").routes) == 2
    ended = conclude_experiment(w, "kim", NAME, "treatment")
    assert (ended.decision, ended.new) == ("promote", True)
    assert wanted(w) == (TREATMENT, 2) and w.catalog.experiment(NAME).withheld is None
    # The deployment refuses it: that stands on the experiment, and another choice may be made.
    w.catalog.conclude_deployment("desk", 2, state="failed", message="nobody approved it", outcome="failed")
    assert "nobody approved it" in w.catalog.experiment(NAME).withheld
    assert conclude_experiment(w, "kim", NAME, "control").new
    assert wanted(w) == (CONTROL, 3)
    assert actions(w).count("experiment.conclude") == 2


def test_an_experiment_is_extended_and_never_cut_short(w: Wiring) -> None:
    before = w.catalog.experiment(NAME)
    assert extend_experiment(w, "kim", NAME, 96)
    assert not extend_experiment(w, "kim", NAME, 96)
    assert w.catalog.experiment(NAME).spec.duration_hours == 96
    assert w.catalog.experiment(NAME).started_at == before.started_at
    with pytest.raises(Conflict, match="not cut to 24"):
        extend_experiment(w, "kim", NAME, 24)
    with pytest.raises(Refused, match="at most"):
        extend_experiment(w, "kim", NAME, 10_000)
    stop_experiment(w, "kim", NAME)
    with pytest.raises(Conflict, match="is over"):
        extend_experiment(w, "kim", NAME, 120)
    with pytest.raises(NotFound):
        extend_experiment(w, "kim", "another", 120)
    assert actions(w).count("experiment.extend") == 1


def test_an_endpoint_with_a_running_test_is_changed_by_force_alone_and_that_is_on_record(w: Wiring) -> None:
    other = w.catalog.endpoint("desk").spec.for_all_users(TREATMENT, "llama", "SFT")
    for attempt in (lambda: want_endpoint(w, "kim", other), lambda: delete_endpoint(w, "kim", "desk")):
        with pytest.raises(Refused, match="experiment 'base-or-tuned' is running"):
            attempt()
    assert wanted(w) == (CONTROL, 1) and w.catalog.experiment(NAME).state == "running"
    want_endpoint(w, "kim", other, force=True)
    experiment = w.catalog.experiment(NAME)
    assert (experiment.state, experiment.decision) == ("concluded", "inconclusive")
    assert "kim, to deploy desk-tuned@2 (--force)" in experiment.withheld
    assert wanted(w) == (TREATMENT, 2)
    # What the experiment would have wanted comes no more.
    assert [intent.detail.get("experiment") for intent in w.catalog.intents.open()] == [None]
    want_endpoint(w, "kim", other)


def test_a_promotion_by_hand_does_not_undermine_a_running_test(w: Wiring) -> None:
    spec_ = w.catalog.endpoint("desk").spec.model_copy(update={"environment": "production"})
    w.catalog.want_endpoint(spec_)
    with pytest.raises(Refused, match="is running"):
        promote(w, "kim", CONTROL, "production")


def test_two_who_decide_at_once_decide_once(w: Wiring) -> None:
    w.catalog.decide_experiment(NAME, "rollback", "worse", {}, actor="ab_report")
    ended = stop_experiment(w, "kim", NAME)
    assert (ended.decision, ended.reason, ended.new) == ("rollback", "worse", False)
    assert wanted(w)[1] == 1
