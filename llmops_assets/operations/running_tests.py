"""What a running A/B test forbids: its endpoint is not changed beneath it."""

from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import InUse
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.wiring import Wiring


def end_for(wiring: Wiring, actor: str, endpoint: str, what: str, *, force: bool = False) -> None:
    """See that no experiment runs on an endpoint that is about to be changed: `what` says how.

    With `force` a running one ends on record, without a winner and with nothing carried out. Raises InUse without.
    """
    from resources.catalog import Withheld

    name = wiring.catalog.running_experiments().get(endpoint)
    if name is None:
        return
    if not force:
        raise InUse(
            f"experiment {name!r} is running on endpoint {endpoint!r}, and to {what} would end it: conclude or stop it "
            f"(llmops ab conclude {name} --winner …, llmops ab stop {name}); --force on the deployment or deletion "
            "ends it on record"
        )
    authorise(wiring, actor, "experiment.stop")
    reason = f"ended by {actor}, to {what} (--force)"
    gone = Withheld(reason)
    wiring.catalog.decide_experiment(
        name, "inconclusive", reason, figures_of(wiring, name), actor, carry_out=lambda _endpoint: gone
    )


def figures_of(wiring: Wiring, name: str) -> dict[str, Any]:
    """The newest figures of an experiment, which a decision by hand was made beside."""
    record = wiring.records.find(AbReportRecord, name)
    return {} if record is None else record.figures
