"""A decided A/B test promotes no model that learned from rows which were erased since."""

from datetime import UTC, datetime

import pytest

from resources import erasures
from sensors import experiments as ab
from tests.sensors.test_sensors import catalog as catalog
from tests.sensors.test_sensors import evaluate, experiment, want
from tests.sensors.test_sensors import instance as instance


def affect(catalog, ref: str) -> None:
    begun = erasures.begin(catalog, name="desk", request="r", looked_for={"match": 1}, reason="asked", actor="kim")
    one = erasures.Affected(
        begun.id, "desk@v1|tuned-01", "hash", ref, "trained on 3 of the erased rows", datetime.now(UTC)
    )
    erasures.mark_affected(catalog, [one], "kim")
    erasures.mark_affected(catalog, [one], "kim")


@pytest.mark.parametrize("affected", [False, True])
def test_a_winner_that_is_affected_gets_no_more_users(catalog, instance, affected):
    want(catalog, "base@1")
    catalog.create_experiment(experiment())
    if affected:
        affect(catalog, "tuned@1")
    assert catalog.decide_experiment("ab", "promote", "it is better", {})
    found = evaluate(ab.promotion(5), instance, catalog=catalog)
    assert [request.partition_key for request in found.run_requests] == ([] if affected else ["desk"])
    assert catalog.experiment("ab").acted_at is not None
    log = [line["action"] for line in catalog.audit_log()]
    assert ("experiment.withheld" in log) is affected and log.count("model.affected") == affected
    if affected:
        assert "nothing here unlearns" in catalog.endpoint("desk").message


def test_an_affected_model_is_known_by_content_cell_or_name(catalog):
    affect(catalog, "tuned@1")
    for key, value in (("content_hash", "hash"), ("cell", "desk@v1|tuned-01"), ("ref", "tuned@1")):
        with pytest.raises(erasures.ModelAffected, match="is affected by erasure 1"):
            erasures.assert_not_affected(catalog, **{key: value})
        erasures.assert_not_affected(catalog, **{key: f"{value}x"})
