"""Notes of treatments that get no users any more, on both databases."""

from datetime import UTC, datetime

from resources.catalog import Catalog
from tests.experiments.traffic import spec
from tests.serving.conftest import deployment_spec


def test_notes_are_written_once_and_on_record(url: str) -> None:
    catalog = Catalog(url)
    catalog.create_experiment(spec())

    def note(reason: str) -> bool:
        return catalog.dropped_arms.note(
            "base-or-tuned", "desk-tuned@2", endpoint="desk", phase=1, reason=reason, figures={"n": 1}, actor="gateway"
        )

    assert note("it failed") and not note("another worker found so too")
    found = catalog.dropped_arms.of("base-or-tuned")["desk-tuned@2"]
    assert found.reason == "it failed" and found.figures == {"n": 1} and found.at <= datetime.now(UTC)
    # The endpoint is not on record: nobody is to be sent anywhere.
    assert catalog.dropped_arms.in_force() == {}
    assert [line["action"] for line in catalog.audit_steps("base-or-tuned", ("experiment.drop",))] == [
        "experiment.drop"
    ]


def test_a_note_holds_until_the_decision_is_carried_out_and_not_for_a_later_test(url: str) -> None:
    catalog = Catalog(url)
    catalog.want_endpoint(deployment_spec("desk"))
    both = [{"backend_id": m, "model_ref": m, "weight": 50} for m in ("desk-base@1", "desk-tuned@2")]
    phase = catalog.set_routes("desk", both)
    catalog.create_experiment(spec())
    catalog.dropped_arms.note(
        "base-or-tuned", "desk-tuned@2", endpoint="desk", phase=phase, reason="it failed", figures={}, actor="gateway"
    )
    held = {"desk": {"desk-tuned@2": ("base-or-tuned", "desk-base@1")}}
    assert catalog.dropped_arms.in_force() == held
    # A server more opens no new phase, a person who changes shares does: the note holds while the test is under way.
    catalog.set_routes("desk", [{**route, "weight": 40 + 20 * n} for n, route in enumerate(both)])
    assert catalog.dropped_arms.in_force() == held
    catalog.decide_experiment("base-or-tuned", "rollback", "it failed", {}, carry_out=lambda endpoint: endpoint.spec)
    assert catalog.dropped_arms.in_force() == held
    catalog.mark_acted("base-or-tuned")
    assert catalog.dropped_arms.in_force() == {}
    catalog.create_experiment(spec(name="again"))
    assert catalog.dropped_arms.in_force() == {}
    assert catalog.running_controls() == {"desk": ("again", "desk-base@1")}
