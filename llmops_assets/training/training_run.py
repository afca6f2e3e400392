"""The MLflow run of a training: one for all attempts at it."""

from pathlib import Path
from typing import Any

from llmops_assets.records.training import PlanRecord
from llmops_assets.training import report
from resources.tracking import Tracking


def noted(tracking: Tracking, note: Path) -> str | None:
    """The MLflow run of an earlier attempt at a training, where the store still has it."""
    known = note.read_text() if note.exists() else None
    return known if known is not None and tracking.has_run(known) else None


def taken_up(tracking: Tracking, note: Path, plan: PlanRecord, cell: Any) -> str:
    """The MLflow run of a training: that of an earlier attempt, so that one taken up again goes on in it, or a new."""
    run_id = noted(tracking, note)
    if run_id is None:
        run_id = tracking.start_run(
            plan.spec["output"]["artifact_name"],
            f"{plan.dataset} {plan.recipe}",
            report.parameters(plan),
            {"llmops.partition": str(cell), "llmops.training_key": plan.training_key},
        )
        note.write_text(run_id)
    return run_id
