"""Where the policy says so, who trained a model or submitted its data does not decide that users get it."""

from pathlib import Path

import pytest

from llmops_assets.operations import endpoints, experiments, models
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Withheld
from llmops_assets.operations.four_eyes import contributions, refuse_own
from llmops_assets.specs.access import AccessPolicy
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.experiments.traffic import spec
from tests.serving.conftest import deployment_spec

STEPS = "[base.approve, model.approve, model.stage, model.promote]"


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    policy = tmp_path / "policy.yaml"
    shipped = (Path(__file__).parents[2] / "llmops_assets/specs/policy.yaml").read_text()
    policy.write_text(shipped.replace("four_eyes: []", f"four_eyes: {STEPS}"))
    wiring = Wiring(Settings(home=tmp_path / "home", policy_file=policy, _env_file=None))
    wiring.settings.root.mkdir()
    catalog = wiring.catalog
    for name in ("desk", "talk"):
        data = {"name": name, "version": "v1", "type": "sft_pair", "schema_ref": "sft_pair@1", "files": ["x"]}
        whole = DatasetSpec.model_validate({**data, "owner": "d", "description": "of a test"})
        catalog.register_dataset(whole, name, "lee")
    catalog.add_recipe("base-00000001", {"base_model_ref": "hf:org/base"})
    catalog.add_recipe("tuned-00000002", {"base_model_ref": "talk@v1|base-00000001"})
    catalog.request_training("talk@v1", "base-00000001", "choi")
    catalog.request_training("desk@v1", "tuned-00000002", "kim")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"1")
    lineage = {"dataset": "desk@v1", "recipe": "tuned-00000002", "family": "llama", "job_type": "SFT"}
    wiring.tracking.register("desk", folder, None, {**lineage, "content_hash": "x"})
    return wiring


def test_everybody_who_had_a_hand_in_a_model_is_known(wiring):
    assert contributions(wiring, "desk@1") == {
        "kim": "trained desk@v1|tuned-00000002",
        "lee": "submitted desk@v1",
        "choi": "trained talk@v1|base-00000001",
    }
    wiring.catalog.log("park", "base.register", "hf:org/base")
    assert contributions(wiring, "hf:org/base") == {"park": "registered hf:org/base"}


@pytest.mark.parametrize("who", ["kim", "lee", "choi", Actor("kim", ["admin"])])
def test_nobody_decides_about_their_own_model(wiring, who):
    production = deployment_spec("desk", model_ref="desk@1").model_copy(update={"environment": "production"})
    wiring.catalog.create_experiment(spec().model_copy(update={"treatment": "desk@1"}), "kim")
    for ask in (
        lambda: models.approve(wiring, who, "desk@1"),
        lambda: models.promote(wiring, who, "desk@1", "staging"),
        lambda: models.promote(wiring, who, "desk@1", "production"),
        lambda: endpoints.want_endpoint(wiring, who, production),
        lambda: experiments.conclude_experiment(wiring, who, spec().name, "treatment"),
    ):
        with pytest.raises(Withheld, match="somebody else has to do model"):
            ask()
    assert "desk" not in wiring.catalog.endpoint_names()


def test_others_decide_and_without_the_rule_everybody_may(wiring, tmp_path):
    for action in ("model.approve", "model.promote"):
        refuse_own(wiring, "park", action, "desk@1")
    refuse_own(Wiring(Settings(home=wiring.settings.home, _env_file=None)), "kim", "model.approve", "desk@1")
    staging = deployment_spec("desk", model_ref="desk@1").model_copy(update={"environment": "staging"})
    endpoints.refuse_own_promotion(wiring, "kim", staging)


def test_a_rule_about_what_cannot_be_kept_apart_is_refused():
    with pytest.raises(ValueError, match=r"dataset\.register is none of base\.approve"):
        AccessPolicy.model_validate({"four_eyes": ["dataset.register"]})
