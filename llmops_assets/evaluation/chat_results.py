"""What a model and its baselines answered, as it was judged: what records, tables and worst answers are made of."""

from dataclasses import dataclass, field
from typing import Any

from llmops_assets.evaluation.llm_judge import Verdicts
from llmops_assets.evaluation.suites import TEST, Scored
from llmops_assets.specs.suite import SuiteSpec


@dataclass(frozen=True)
class ChatEvaluation:
    """Judged answers by model ("tuned", "base", "production") and suite; a baseline has what it could be asked."""

    scored: dict[str, dict[str, list[Scored]]]
    specs: dict[str, SuiteSpec]
    baseline: str
    settings: dict[str, Any]
    seconds: float
    latency: list[dict[str, Any]] = field(default_factory=list)
    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    similarities: dict[str, dict[str, float]] = field(default_factory=dict)
    too_long: dict[str, int] = field(default_factory=dict)
    """Items by suite whose reference is longer than the model may write."""
    alone: dict[str, float] = field(default_factory=dict)
    """By the items that were asked alone too: by how much a logit is above that of the batch, where answers part."""

    @property
    def tuned(self) -> dict[str, list[Scored]]:
        return self.scored["tuned"]

    @property
    def headline(self) -> list[Scored]:
        """The suite that is shown by category: the test split where it was asked."""
        return self.tuned.get(TEST) or next(iter(self.tuned.values()))
