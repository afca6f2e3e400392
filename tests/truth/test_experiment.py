"""Faults of an A/B test, whose decision moves every user."""

import polars as pl
import pytest

from benchmarks.installation import Installation
from llmops_assets.specs.deployment import DeploymentSpec
from tests.experiments.traffic import CONTROL, TREATMENT, routes, spec, traffic
from tests.truth.conftest import fault
from tests.truth.table import Row

NAME = "base-or-tuned"


@pytest.mark.parametrize("lost", [fault("sample-ratio-mismatch", 0.4), fault("some-users-lost", 0.25)])
def test_an_arm_that_loses_users_before_they_are_logged_is_not_promoted(
    one: Installation, row: Row, lost: float
) -> None:
    catalog = one.w.catalog
    for ref in (CONTROL, TREATMENT):
        name, _, version = ref.partition("@")
        for number in range(1, int(version) + 1):
            tags = {"dataset": "desk@v1", "recipe": "r-1", "content_hash": f"{name}-{number}", "state": "approved"}
            folder = one.root / "made-up" / f"{name}-{number}"
            folder.mkdir(parents=True)
            one.w.tracking.register(name, folder, None, tags | {"family": "llama", "job_type": "SFT"})
    wanted = catalog.endpoint("desk").spec.model_dump(mode="json") | {"model_ref": CONTROL, "environment": "dev"}
    catalog.want_endpoint(DeploymentSpec.model_validate(wanted))
    phase = catalog.set_routes("desk", routes())
    catalog.create_experiment(spec())
    one.add_experiment(NAME)
    # The treatment is better by far, and some of its users never reach the log.
    exposures, feedback = traffic(1600, phase=phase, levels=(3.0, 4.4))
    seen = pl.col("user").hash(1) % 100 >= int(100 * lost)
    exposures = exposures.filter((pl.col("model_ref") == CONTROL) | seen)
    known = set(exposures["request_id"])
    catalog.add_traffic(exposures.to_dicts(), feedback.filter(pl.col("request_id").is_in(known)).to_dicts())
    row.assert_stopped(one.run(NAME, "ab_report"))
    assert catalog.experiment(NAME).decision != "promote"
