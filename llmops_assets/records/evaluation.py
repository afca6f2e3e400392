"""What an evaluation leaves behind: figures with intervals, and comparisons."""

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from llmops_assets.records.base import Record, StoredPath
from llmops_assets.records.training import BaseReading


class Metric(BaseModel):
    """One figure with its 95 % interval."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    suite: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    model: Literal["tuned", "base", "production"] = "tuned"


class Difference(BaseModel):
    """The model against another one on the same items of one suite."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
    suite: str
    against: Literal["base", "production"]
    ref: str
    only_tuned: int = Field(description="Items that only this model has right.")
    only_other: int
    both: int
    neither: int
    p: float = Field(description="McNemar's test, two-sided.")
    test: str = Field(description="exact, or chi-squared with continuity correction.")
    difference: float = Field(description="Accuracy of this model less that of the other.")
    low: float
    high: float
    changed: int = Field(description="Items with another answer.")


class OneAnswer(BaseModel):
    """What stands for every answer of a suite: what the model says to all items, or where the right choice stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["answer", "right choice"]
    text: str
    items: int = Field(description="Items that have it.")
    of: int = Field(description="Items that were answered.")
    right: int = Field(description="Items of which it is right.")


class JudgeControls(BaseModel):
    """What an LLM judge said of pairs whose better answer is known: a reference, and the answer to something else."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    asked: int = Field(description="Pairs, each in both orders.")
    right: int = Field(description="Pairs of which it found the reference better in either order.")
    turned: int = Field(description="Pairs of which it took the same place in either order.")
    ties: int = Field(description="Pairs of which it found neither better in either order.")
    reversed: int = Field(description="Pairs of which it found the wrong answer better in either order.")


class EvaluationRecord(Record):
    """Scores of one model on the test split and on every suite of its recipe, with its base beside it."""

    asset: ClassVar[str] = "evaluation"
    dataset: str
    recipe: str
    training_key: str
    model_hash: str
    metrics: list[Metric]
    empty_answers: int
    length_truncated: int
    by_category: dict[str, Metric]
    answers: StoredPath = Field(
        description="Path of the answers (JSONL: id, suite, category, prompt, expected, got, correct)."
    )
    answers_sha256: str = Field(
        default="", description="Of the answers before they are sealed; empty in records of earlier releases."
    )
    seconds: float
    items: dict[str, int] = Field(default_factory=dict, description="Items asked, by suite.")
    answered: dict[str, int] = Field(default_factory=dict, description="Items that got an answer, by suite.")
    refusals: int = Field(default=0, description="Answers that decline to answer where the reference does not.")
    right: int = Field(default=0, description="Answers that are right, of all suites together.")
    right_but_cut: int = Field(default=0, description="Right answers that were cut where the length limit is.")
    references_too_long: dict[str, int] = Field(
        default_factory=dict, description="Items whose reference is longer than the model may write, by suite."
    )
    baseline: str = Field(default="", description="What the model was compared with, or why with nothing.")
    versus_base: dict[str, dict[str, float]] = Field(
        default_factory=dict,
        description="McNemar's test by suite: only_tuned, only_base, both, neither (items right), p.",
    )
    differences: list[Difference] = Field(
        default_factory=list, description="Against the base and the model in production, by suite."
    )
    general: list[str] = Field(default_factory=list, description="Suites that measure general ability.")
    leaked: dict[str, float] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("leaked", "seen"),
        description="Share of a suite's items that stand in rows which the model, or one that it was made from, was "
        "trained on; suites of which none does are left out.",
    )
    archived: list[str] = Field(
        default_factory=list, description="Suites that the spec or the policy names and that were not asked: archived."
    )
    leaked_rows: list[dict[str, str]] = Field(
        default_factory=list, description="Up to twenty test rows that a base was trained on, and where they stand."
    )
    asked_alone: dict[str, float] = Field(
        default_factory=dict,
        description="Items that were asked alone too: by how much the logit of what the model says alone is above that "
        "of what it said in its batch, where the two part; 0 where they are the same.",
    )
    one_answer: dict[str, OneAnswer] = Field(
        default_factory=dict, description="By suite what stands for every answer, where the question does not matter."
    )
    base_reading: BaseReading | None = Field(
        default=None, description="How the base predicted the texts of the rows before it was trained."
    )
    judges: dict[str, str] = Field(default_factory=dict, description="Rule by which answers are judged, by suite.")
    position_flips: int = Field(default=0, description="Verdicts of an LLM judge that changed with the order.")
    judge_controls: JudgeControls | None = Field(
        default=None, description="None without an LLM judge, and in records of earlier releases."
    )
    unjudged: int = Field(default=0, description="Answers that an LLM judge gave no verdict on; they count as wrong.")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="What the figures depend on: engine, decoding, precision, seed, hashes."
    )
    report: StoredPath | None = Field(default=None, description="Path of the self-contained report.")

    def metric(self, suite: str, name: str, model: str = "tuned") -> Metric | None:
        return next((m for m in self.metrics if (m.suite, m.name, m.model) == (suite, name, model)), None)
