"""What an experiment's decision makes of its endpoint, in the transaction that writes the decision."""

from datetime import UTC, datetime

import polars as pl
import pytest

from llmops_assets.specs.deployment import Rollout
from resources.catalog import NotFound, erasures
from tests.experiments.test_assets import NAME, Stack, recent
from tests.experiments.test_assets import stack as stack
from tests.experiments.traffic import CONTROL, TREATMENT

FAILING = {"failed": (0.0, 0.95)}


def affect(catalog, ref: str) -> None:
    begun = erasures.begin(catalog, name="desk", request="r", looked_for={"match": 1}, reason="asked", actor="kim")
    one = erasures.Affected(
        begun.id, "desk@v1|tuned-01", "hash", ref, "trained on 3 of the erased rows", datetime.now(UTC)
    )
    erasures.mark_affected(catalog, [one], "kim")
    erasures.mark_affected(catalog, [one], "kim")


def actions(catalog) -> list[str]:
    return [line["action"] for line in catalog.audit_log()]


def test_a_decision_wants_its_model_for_all_users_and_is_acted_on_when_that_is_observed(stack: Stack) -> None:
    stack.catalog.want_endpoint(stack.catalog.endpoint("desk").spec.for_all_users(TREATMENT, "llama", "SFT"))
    stack.catalog.conclude_deployment("desk", 2, state="live")
    stack.log(*recent(60, **FAILING))
    stack.report()
    endpoint, (intent,) = stack.catalog.endpoint("desk"), stack.catalog.intents.open()
    assert (endpoint.spec.model_ref, endpoint.spec.rollout, endpoint.revision) == (CONTROL, Rollout(), 3)
    assert (intent.name, intent.detail["experiment"]) == ("deploy:desk:3", NAME)
    assert stack.catalog.experiment(NAME).acted_at is None
    # A second report finds the decision, and wants nothing more.
    stack.report()
    assert stack.catalog.endpoint("desk").revision == 3
    stack.catalog.conclude_deployment("desk", 3, state="live")
    assert stack.catalog.experiment(NAME).acted_at is not None
    assert actions(stack.catalog).count("experiment.act") == 1


def test_a_model_comes_back_to_its_own_servers_and_not_to_those_of_the_other_one(stack: Stack) -> None:
    """The treatment is at an address that somebody else runs: under it the control would be the treatment."""
    catalog = stack.catalog
    own = catalog.endpoint("desk").spec.for_all_users(CONTROL, "llama", "SFT")
    own = own.model_copy(update={"runtime": own.runtime.model_copy(update={"max_output_tokens": 77})})
    runtime = own.runtime.model_copy(update={"backend": "url", "url": "http://vllm.internal:8000"})
    alias = TREATMENT.partition("@")[0] + "@staging"
    elsewhere = own.model_copy(update={"model_ref": alias, "engine": "vllm", "runtime": runtime})
    for spec, served in ((own, CONTROL), (elsewhere, TREATMENT)):
        revision = catalog.want_endpoint(spec).revision
        # Users have it, and an alias is still to be moved.
        catalog.conclude_deployment("desk", revision, state="live", outcome=None, served=served)
    assert catalog.served_as("desk", TREATMENT).runtime.url == "http://vllm.internal:8000"
    assert catalog.served_as("desk", alias) is None
    stack.log(*recent(60, **FAILING))
    stack.report()
    found = catalog.endpoint("desk").spec
    assert (found.model_ref, found.engine) == (CONTROL, own.engine)
    assert (found.runtime.backend, found.runtime.url, found.runtime.max_output_tokens) == ("local", None, 77)


@pytest.mark.parametrize("affected", [False, True])
def test_a_model_that_learned_from_erased_rows_gets_no_more_users(stack: Stack, affected: bool) -> None:
    if affected:
        affect(stack.catalog, CONTROL)
    before = stack.catalog.endpoint("desk").revision
    stack.log(*recent(60, **FAILING))
    stack.report()
    experiment = stack.catalog.experiment(NAME)
    assert experiment.decision == "rollback"
    assert (stack.catalog.endpoint("desk").revision == before) is affected
    assert ("experiment.withheld" in actions(stack.catalog)) is affected
    assert actions(stack.catalog).count("model.affected") == affected
    if affected:
        assert "nothing here unlearns" in experiment.withheld


def test_an_experiment_of_a_deleted_endpoint_is_withheld_and_stops_nobody_else(stack: Stack) -> None:
    stack.log(*recent(60, **FAILING))
    stack.catalog.remove_endpoint("desk", "kim")
    stack.report()
    experiment = stack.catalog.experiment(NAME)
    assert (experiment.decision, experiment.acted_at) == ("rollback", None)
    assert "'desk' is gone" in experiment.withheld
    with pytest.raises(NotFound):
        stack.catalog.endpoint("desk")
    assert stack.catalog.intents.open() == []


def test_a_registry_that_is_away_leaves_the_decision_to_the_next_report(stack: Stack, monkeypatch) -> None:
    stack.log(*recent(60, **FAILING))

    def away(_ref: str) -> None:
        raise ConnectionError("the registry does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(stack.tracking, "model", away)
        with pytest.raises(ConnectionError):
            stack.report()
    assert stack.catalog.experiment(NAME).decision is None
    stack.report()
    assert stack.catalog.experiment(NAME).decision == "rollback"
    assert [intent.key for intent in stack.catalog.intents.open()] == ["desk"]


def test_an_affected_model_is_known_by_content_cell_or_name(stack: Stack) -> None:
    affect(stack.catalog, "tuned@1")
    for key, value in (("content_hash", "hash"), ("cell", "desk@v1|tuned-01"), ("ref", "tuned@1")):
        with pytest.raises(erasures.ModelAffected, match="is affected by erasure 1"):
            erasures.assert_not_affected(stack.catalog, **{key: value})
        erasures.assert_not_affected(stack.catalog, **{key: f"{value}x"})


def test_what_a_gateway_dropped_is_rolled_back_by_the_next_report_whatever_came_in_since(stack: Stack) -> None:
    """Since then users of the control alone are logged, which looks like a broken split and is none."""
    exposures, feedback = recent(900, requests=1)
    stack.log(exposures.filter(pl.col("variant") == 0), feedback)
    stack.catalog.dropped_arms.note(
        NAME,
        TREATMENT,
        endpoint="desk",
        phase=stack.phase,
        reason="45% of the last 20 requests failed",
        figures={},
        actor="gateway",
    )
    record, _ = stack.report()
    assert (record.decision, record.reason) == ("rollback", "45% of the last 20 requests failed")
    decided = stack.catalog.experiment(NAME)
    assert decided.decision == "rollback" and decided.reason == record.reason
    # Under way as any decision: the control is wanted for all users, and acted on when the deployment has done it.
    assert stack.catalog.endpoint("desk").spec.model_ref == CONTROL
    intent = stack.catalog.intents.newest("deploy", "desk")
    assert intent.is_open and intent.detail["experiment"] == NAME
