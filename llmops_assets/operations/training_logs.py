"""What a training's workers say, and the curves that they report."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmops_assets.records.training import PlanRecord
from llmops_assets.training import progress
from llmops_assets.training.progress import Tail
from llmops_assets.wiring import Wiring
from resources.run_log import Check


class TrainingLog:
    """The log of a training, read on from where it was read last; empty until the training is planned."""

    def __init__(self, wiring: Wiring, partition: str) -> None:
        self._wiring, self._partition = wiring, partition
        self._tail: Tail | None = None

    def lines(self) -> Iterator[str]:
        """Whole lines that were not read yet."""
        if self._tail is None and (plan := self._wiring.records.find(PlanRecord, self._partition)):
            self._tail = Tail(Path(plan.model_dir))
        return self._tail.lines() if self._tail is not None else iter(())


def curve(wiring: Wiring, partition: str) -> dict[str, list[dict[str, Any]]]:
    """By metric, its values in order of their steps, as the worker reported them; empty before it has."""
    plan = wiring.records.find(PlanRecord, partition)
    return progress.curves(Path(plan.model_dir)) if plan else {}


def plan_of(wiring: Wiring, partition: str) -> PlanRecord | None:
    """What was planned before the training began; None while it is not."""
    return wiring.records.find(PlanRecord, partition)


def training_checks(wiring: Wiring, partition: str) -> list[Check]:
    """The last evaluation of every check of a training, in the order of its steps."""
    return wiring.run_log.checks(partition, ["training_plan", "adapter", "merged_model", "evaluation"])
