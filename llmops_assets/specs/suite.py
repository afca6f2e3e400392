"""How the rows of an evaluation suite are asked and judged: the part of a dataset's spec that makes it a suite."""

from typing import Any, Literal, get_args

from pydantic import Field

from llmops_assets.specs.base import Bool, Part, Text

JudgeKind = Literal["exact", "contains", "regex", "number", "multiple_choice", "letter", "calls", "llm"]
JUDGE_KINDS: tuple[str, ...] = get_args(JudgeKind)
LengthNorm = Literal["none", "characters", "bytes", "tokens"]
LENGTH_NORMS: tuple[str, ...] = get_args(LengthNorm)
MetricName = Literal["bleu", "chrf", "rouge1", "rouge2", "rouge_l", "bertscore", "entity_f1"]
METRIC_NAMES: tuple[str, ...] = get_args(MetricName)


class HarnessSpec(Part):
    """A task that lm-evaluation-harness itself runs, on the documents that the suite's rows hold."""

    config: dict[str, Any] = Field(description="The content of the task's YAML, without where its data lies.")
    metric: Text | None = Field(default=None, description="The metric that counts; left out, the task's first.")


class SuiteSpec(Part):
    """How a suite is asked and judged. A row's own metadata (`judge`, `references`, `choices`) goes before it."""

    judge: JudgeKind = Field(default="exact", description="Rule by which an answer is right.")
    format: Text | None = Field(default=None, description="Reader that the files were converted by.")
    length_norm: LengthNorm = Field(
        default="none",
        description="multiple_choice: what the log-likelihood of a choice is divided by before the largest wins.",
    )
    metrics: list[MetricName] = Field(
        default_factory=list, description="Further figures; left out, those that suit the references."
    )
    encoder: Text | None = Field(default=None, description="Folder of the local encoder that BERTScore needs.")
    cluster_by: Text | None = Field(
        default=None, description="Metadata field whose equal values are phrasings of one question."
    )
    general: Bool = Field(
        default=False, description="Measures general ability: a training must not make it fall (forgetting)."
    )
    as_published: Bool = Field(
        default=False, description="Ask the rows as brought, without the masking of personal data."
    )
    harness: HarnessSpec | None = None
