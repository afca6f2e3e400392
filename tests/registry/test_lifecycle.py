"""A version's way to production: which step follows which, what each demands, and who took it."""

from pathlib import Path
from typing import Any

import pytest

from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.records.registry import ParityRecord
from llmops_assets.registry.lifecycle import NotAllowed, TransitionEvidence, judge
from llmops_assets.registry.transition import Registry, evidence_of, parity_key, transition
from llmops_assets.serving import admission
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from resources.content import content_hash
from resources.records import Records
from resources.tracking import Tracking
from tests.cli.test_commands import home, llmops  # noqa: F401  fixture
from tests.serving.conftest import deployment_spec, models  # noqa: F401  fixture

FIT: dict[str, Any] = {"evaluated": True, "gate": (True, "0.95"), "parity": (True, "8 of 8"), "erasure": None}


def where(state: str, **more: Any) -> TransitionEvidence:
    return TransitionEvidence(ref="desk@1", state=state, **(FIT | more))


ALLOWED = {
    ("approve", "draft"),
    ("approve", "archived"),
    ("stage", "approved"),
    ("promote", "staging"),
    ("archive", "draft"),
    ("archive", "approved"),
    ("archive", "staging"),
}


@pytest.mark.parametrize("action", ["approve", "stage", "promote", "archive"])
@pytest.mark.parametrize("state", ["draft", "approved", "staging", "production", "archived"])
def test_exactly_these_steps_follow_one_another(action, state):
    step = judge(action, where(state))
    assert (not step.refusals) == ((action, state) in ALLOWED)
    assert all(refusal.why and refusal.advice for refusal in step.refusals)


def test_what_was_in_staging_before_goes_back_to_production_at_once():
    assert judge("promote", where("approved")).refusals
    assert not judge("promote", where("approved", was_staged=True)).refusals


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"evaluated": False, "gate": None}, "no evaluation"),
        ({"gate": (False, "accuracy is 0.4")}, "accuracy is 0.4"),
        ({"erasure": "erasure 3"}, "erasure 3"),
        ({"parity": None}, "llmops model parity desk@1"),
        ({"parity": (False, "8 × template")}, "8 × template"),
    ],
)
def test_production_demands_evidence_and_says_what_to_do(change, told):
    with pytest.raises(NotAllowed) as refused:
        judge("promote", where("staging", **change)).check()
    assert told in str(refused.value)
    assert len(refused.value.refusals) == 1


def test_every_reason_is_told_at_once():
    step = judge("promote", where("draft", gate=(False, "x"), erasure="y", parity=None))
    assert len(step.refusals) == 4


def test_what_is_in_production_and_served_is_not_archived_for_two_reasons():
    refusals = judge("archive", where("production", served_on=("desk", "web"))).refusals
    assert [refusal.why for refusal in refusals] == ["desk, web serve desk@1", "desk@1 is in production"]


def test_what_is_served_is_not_archived():
    assert "desk-endpoint" in str(judge("archive", where("approved", served_on=("desk-endpoint",))).refusals[0])


LINEAGE = {"dataset": "desk@v1", "recipe": "desk-0123abcd", "family": "llama", "job_type": "SFT"}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Three versions of one model: evaluated and served as evaluated; evaluated only; neither."""
    tracking = Tracking(f"sqlite:///{tmp_path / 'home' / 'mlflow.db'}")
    (tmp_path / "home").mkdir(exist_ok=True)
    catalog, records = Catalog(f"sqlite:///{tmp_path / 'home' / 'catalog.db'}"), Records(tmp_path / "home" / "records")
    registry = Registry(tracking, records, catalog, load_policy())
    for number in (1, 2, 3):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([number]))
        tags = LINEAGE | {"recipe": f"desk-0000000{number}", "content_hash": content_hash(folder)}
        tracking.register("desk", folder, None, tags)
        if number < 3:
            evaluated(records, tags["recipe"], tags["content_hash"])
    model = tracking.model("desk@1")
    served(records, parity_key(model), model.recipe, model.content_hash)
    return registry


def evaluated(records: Records, recipe: str, digest: str) -> None:
    accuracy = Metric(suite="test", name="accuracy", value=0.95, low=0.91, high=0.97, n=205)
    record = EvaluationRecord(
        dataset="desk@v1",
        recipe=recipe,
        training_key="k",
        model_hash=digest,
        metrics=[accuracy],
        empty_answers=0,
        length_truncated=0,
        by_category={},
        answers="",
        seconds=1.0,
    )
    records.save(training_key("desk@v1", recipe), record)


def served(records: Records, key: str, recipe: str, digest: str) -> None:
    from datetime import UTC, datetime

    record = ParityRecord(
        dataset="desk@v1",
        recipe=recipe,
        model_hash=digest,
        engine="transformers",
        items=8,
        differences=[],
        explanation="8 of 8",
        passed=True,
        at=datetime.now(UTC),
    )
    records.save(key, record)


def test_a_version_is_taken_to_production_and_back_with_who_and_when(registry: Registry):
    tracking, catalog = registry.tracking, registry.catalog
    assert evidence_of(registry, "desk@1").state == "draft"
    for action, state in (("approve", "approved"), ("stage", "staging"), ("promote", "production")):
        assert transition(registry, action, "desk@1", "kim") == []
        assert tracking.version("desk@1").state == state
    version = tracking.version("desk@1")
    assert version.aliases == ("production",)
    assert (version.tags["approved_by"], version.tags["promoted_by"]) == ("kim", "kim")
    assert version.tags["promoted_at"].startswith("20")
    actions = [(line["action"], line["actor"]) for line in catalog.audit_of("desk@1")]
    assert actions == [("model.promote", "kim"), ("model.stage", "kim"), ("model.approve", "kim")]
    with pytest.raises(NotAllowed, match="in production"):
        transition(registry, "archive", "desk@1", "kim")

    # The second was never asked how it is served; then it was, and takes the place of the first.
    transition(registry, "approve", "desk@2", "lee")
    transition(registry, "stage", "desk@2", "lee")
    with pytest.raises(NotAllowed, match="nobody has asked whether it is served"):
        transition(registry, "promote", "desk@2", "lee")
    assert tracking.version("desk@2").state == "staging"
    second = tracking.model("desk@2")
    served(registry.records, parity_key(second), second.recipe, second.content_hash)
    transition(registry, "promote", "desk@2", "lee")
    assert tracking.version("desk@production").version == 2
    assert tracking.version("desk@1").state == "approved"
    # Back, without a second round in staging.
    transition(registry, "promote", "desk@1", "kim")
    assert tracking.version("desk@production").version == 1

    # The third was never evaluated.
    with pytest.raises(NotAllowed, match="no evaluation of the weights of desk@3"):
        transition(registry, "approve", "desk@3", "kim")
    transition(registry, "archive", "desk@3", "kim")
    assert tracking.version("desk@3").state == "archived"


def test_files_that_changed_tags_and_aliases_set_by_hand_take_no_version_further(registry: Registry):
    tracking, catalog = registry.tracking, registry.catalog
    transition(registry, "approve", "desk@1", "kim")
    transition(registry, "stage", "desk@1", "kim")
    weights = Path(tracking.model("desk@1").path) / "model.safetensors"
    weights.write_bytes(b"other")
    with pytest.raises(NotAllowed, match=r"is not what was registered as desk@1"):
        transition(registry, "promote", "desk@1", "kim")
    weights.write_bytes(bytes([1]))
    known = admission.registration(tracking.model("desk@1"), catalog)
    catalog.log("registered_model", "model.update", "desk@1", **known)
    tracking.tag("desk", 1, "recipe", "desk-00000002")
    with pytest.raises(NotAllowed, match="tag recipe of desk@1 was changed by hand: desk-00000001 became"):
        transition(registry, "promote", "desk@1", "kim")
    tracking.tag("desk", 1, "recipe", "desk-00000001")
    transition(registry, "promote", "desk@1", "kim")
    # A draft that somebody gave the alias of what is tried, past everybody who approves.
    tracking.set_alias("desk", "staging", 2)
    second = tracking.model("desk@2")
    served(registry.records, parity_key(second), second.recipe, second.content_hash)
    with pytest.raises(NotAllowed, match="nobody approved desk@2: its tag or alias was set by hand"):
        transition(registry, "promote", "desk@2", "kim")


def test_a_promotion_goes_through_the_endpoint_that_serves_the_model(registry: Registry):
    for action in ("approve", "stage"):
        transition(registry, action, "desk@1", "kim")
    registry.catalog.want_endpoint(deployment_spec(environment="production", model_ref="desk@9"))
    registry.catalog.want_endpoint(deployment_spec("other", environment="dev", model_ref="desk@9"))
    assert transition(registry, "promote", "desk@1", "kim") == ["desk"]
    assert registry.catalog.endpoint("desk").spec.model_ref == "desk@1"
    assert registry.catalog.endpoint("desk").state == "pending"
    assert registry.catalog.endpoint("other").spec.model_ref == "desk@9"
    # The alias moves when the model has the users, not before.
    assert tracking_aliases(registry) == ("staging",)
    # A promotion that names another model than is wanted there changes nothing else.
    assert registry.catalog.audit_of("desk@1")[0]["detail"]["through"] == ["desk"]


def tracking_aliases(registry: Registry) -> tuple[str, ...]:
    return registry.tracking.version("desk@1").aliases


def test_the_command_refuses_with_reasons_lists_newest_first_and_hands_out_what_was_registered(
    registry: Registry,
    home: Path,  # noqa: F811
    models: dict[str, Path],  # noqa: F811
):
    code, _, told = llmops("model", "promote", "nobody@1")
    assert code == 1 and "no model 'nobody'" in told
    code, _, told = llmops("model", "promote", "desk@1", "production")
    assert code == 3
    assert "is a draft" in told and "llmops model approve desk@1" in told
    assert llmops("model", "approve", "desk@1")[0] == 0
    assert llmops("model", "promote", "desk@1", "staging")[0] == 0
    code, out, _ = llmops("model", "list", "desk", "--json")
    import json

    assert [v["ref"] for v in json.loads(out)["versions"]] == ["desk@3", "desk@2", "desk@1"]
    code, out, _ = llmops("model", "list", "desk", "--sort", "version", "--ascending", "--state", "draft", "--json")
    assert [v["ref"] for v in json.loads(out)["versions"]] == ["desk@2", "desk@3"]
    assert llmops("model", "list", "--sort", "size")[0] == 1
    assert "model.stage" in llmops("model", "history", "desk")[1]

    tags = LINEAGE | {"content_hash": content_hash(models["old"])}
    registry.tracking.register("given", models["old"], None, tags)
    code, _, told = llmops("model", "download", "given@1", home / "copy")
    assert code == 0, told
    assert content_hash(home / "copy") == content_hash(models["old"])
    assert llmops("model", "download", "given@1", home / "copy")[0] == 1
    assert registry.catalog.audit_of("given@1")[0]["action"] == "model.download"
