"""What is on record of a model: the steps of people, and the A/B tests that gave it users or took them away."""

from pathlib import Path

from llmops_assets.operations.models import history
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.experiments.traffic import CONTROL, TREATMENT, spec
from tests.serving.conftest import deployment_spec


def test_the_history_of_a_model_tells_of_the_experiment_that_promoted_it(tmp_path: Path) -> None:
    wiring = Wiring(Settings(home=tmp_path, _env_file=None))
    catalog = wiring.catalog
    catalog.want_endpoint(deployment_spec("desk", model_ref=CONTROL))
    catalog.create_experiment(spec(), "kim")
    catalog.decide_experiment(spec().name, "promote", "users rate it higher", {}, "ab_report")

    for ref in (TREATMENT, TREATMENT.split("@")[0]):
        decision = next(line for line in history(wiring, ref, 50) if line["action"] == "experiment.decide")
        assert (decision["actor"], decision["target"]) == ("ab_report", spec().name)
        assert decision["detail"]["decision"] == "promote" and decision["detail"]["treatment"] == TREATMENT
        assert decision["detail"]["reason"] == "users rate it higher"
    # The control lost its users by it; who never took part has nothing to do with it.
    assert "experiment.decide" in [line["action"] for line in history(wiring, CONTROL, 50)]
    assert history(wiring, "another@1", 50) == []
    assert len(history(wiring, TREATMENT, 1)) == 1
