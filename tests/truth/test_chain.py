"""A clean chain goes from files to an endpoint at the first try: nothing cries wolf."""

from benchmarks.installation import Installation
from llmops_assets.records.evaluation import EvaluationRecord
from tests.truth.conftest import Finished


def test_a_clean_chain_is_served_at_the_first_try(finished: Finished, one: Installation) -> None:
    # Building it has raised nothing: no check failed, no step did.
    endpoint = one.w.catalog.endpoint("desk")
    assert (endpoint.state, [r["model_ref"] for r in endpoint.routes]) == ("live", [finished.chain.model_ref])
    assert one.w.records.load(EvaluationRecord, finished.chain.tuned).metric("test", "accuracy").value > 0.9
    assert one.w.tracking.version("tiny-desk@production").ref == finished.chain.model_ref


def test_a_copy_goes_on_where_the_chain_ended_without_training_again(one: Installation, finished: Finished) -> None:
    ran = one.run(finished.chain.tuned, "training_plan", "adapter", "merged_model", "evaluation", "registered_model")
    assert ran.success and not ran.failed
    assert not (one.root / "pipes").exists() and one.trainer.process is None, "nothing was left for a worker to do"
    assert one.w.servers.reconcile() == [f"started {one.w.catalog.backends('desk')[0].id} of desk again: it was gone"]
