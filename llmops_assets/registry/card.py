"""Writes the model card: Hugging Face's front matter, then what a person must know before using the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llmops_assets.evaluation.gate import GateOutcome
from llmops_assets.evaluation.report import category_table, leakage_lines, metric_table, versus_base_table
from llmops_assets.evaluation.suites import TEST
from llmops_assets.records.datasets import CleanRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.registry import card_jobs
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.verdict import Verdict

UNKNOWN_LICENSE = "unknown"
_METRIC_TYPES = {"accuracy": "accuracy", "macro_f1": "f1", "perplexity": "perplexity"}


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card tells; all of it comes from records of the graph and from the catalog."""

    ref: str
    spec: TrainJobSpec
    dataset: DatasetSpec
    splits: Mapping[str, int]
    data_hash: str
    plan: PlanRecord
    adapter: AdapterRecord
    merged: MergedModelRecord
    evaluation: EvaluationRecord
    gate: GateOutcome
    base_license: str | None
    clean: CleanRecord | None = None
    marks: Verdict | None = None
    """Whether the model shows the marks of its watermark; None where it has none, or nobody asked."""


def model_card(facts: CardFacts) -> str:
    """The card as Markdown, in the format of the Hugging Face hub."""
    return f"---\n{yaml.safe_dump(_front_matter(facts), allow_unicode=True, sort_keys=False)}---\n\n{_body(facts)}"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    spec, evaluation = facts.spec, facts.evaluation
    loaded_by, task = card_jobs.library(spec.job_type)
    results = [
        {
            "task": {"type": task},
            "dataset": {"name": facts.dataset.key if m.suite == TEST else m.suite, "type": "private", "split": "test"},
            "metrics": [{"type": _METRIC_TYPES.get(m.name, m.name), "name": m.name, "value": round(m.value, 6)}],
        }
        for m in evaluation.metrics
        if m.model == "tuned"
    ]
    front: dict[str, Any] = {
        "license": license_of(facts),
        "library_name": loaded_by,
        "pipeline_tag": task,
        "tags": [spec.model_family, spec.job_type.lower(), spec.method],
        "datasets": [facts.dataset.name],
    }
    if facts.plan.base is not None:
        front["base_model"] = facts.plan.base.ref
    front["model-index"] = [{"name": spec.output.artifact_name, "results": results}]
    return front


def license_of(facts: CardFacts) -> str:
    """The licence that the model falls under as far as it is known: that of the base, or of the data without a base.

    Where the two differ it is `other`, and the card names both: which of them binds is for a person to say.
    """
    known = [x for x in (facts.base_license, facts.dataset.license) if x]
    if not known or (facts.plan.base is not None and not facts.base_license):
        return UNKNOWN_LICENSE
    return known[0] if len(set(known)) == 1 else "other"


def _body(facts: CardFacts) -> str:
    spec, merged, adapter = facts.spec, facts.merged, facts.adapter
    base = facts.plan.base
    rows = ", ".join(f"{count:,} {split}" for split, count in facts.splits.items())
    made = f"fine-tuned ({spec.method}) from `{base.ref}`" if base else "pre-trained from nothing"
    sections = [
        f"# {facts.ref}",
        f"A {spec.model_family} model of {merged.parameters:,} parameters, {made} by a {spec.job_type} job on the "
        f"dataset version `{facts.dataset.key}`.",
        *_usage(facts),
        "## Data",
        f"{facts.dataset.description.strip()}\n\n"
        f"- Owner: {facts.dataset.owner}\n"
        f"- Rows: {rows} (after masking of personal data, removal of duplicates and filtering)\n"
        + _cleaning(facts.clean)
        + f"- Licence: {facts.dataset.license or 'not stated'}\n"
        f"- Hash of the rows: `{facts.data_hash}`",
        "## Intended use",
        _intended_use(facts),
        "## Training",
        f"- Recipe `{facts.evaluation.recipe}`, training key `{merged.training_key}`\n"
        f"- {adapter.steps:,} steps, learning rate {spec.hyperparams.lr:g}, batch {spec.hyperparams.batch_size}"
        f" × {spec.hyperparams.gradient_accumulation_steps}, sequences of {spec.hyperparams.max_seq_len} tokens, "
        f"{spec.hyperparams.precision}, seed {spec.hyperparams.seed}\n"
        f"- Loss {adapter.first_loss:.3f} at the beginning, {adapter.last_loss:.3f} at the end"
        + (f", {adapter.eval_loss:.3f} on the validation split" if adapter.eval_loss is not None else "")
        + "\n"
        f"- Content hash of the model: `{merged.content_hash}`\n"
        f"- Watermarked: {_watermark(facts)}",
        "## Evaluation",
        facts.gate.text,
        metric_table(facts.evaluation),
        "By category:\n\n" + category_table(facts.evaluation),
    ]
    if facts.evaluation.versus_base:
        sections.append("Against the base on the same items:\n\n" + versus_base_table(facts.evaluation))
    sections += [
        "## Limits",
        "\n".join(f"- {limit}" for limit in limits(facts.spec, facts.evaluation, facts.gate.bound)),
        "## Licence",
        _license_text(facts),
    ]
    return "\n\n".join(sections) + "\n"


def _usage(facts: CardFacts) -> list[str]:
    usage = card_jobs.usage(facts.spec, facts.ref)
    return ["## Use", usage] if usage else []


def _cleaning(clean: CleanRecord | None) -> str:
    """What was masked and dropped on the way from the registered files to the rows."""
    if clean is None:
        return ""
    masked, dropped = _counts(clean.masked_by_type), _counts(clean.dropped_by_reason)
    return f"- Masked: {masked}\n- Dropped: {dropped}\n"


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in by_name.items() if count) or "nothing"


def _intended_use(facts: CardFacts) -> str:
    categories = ", ".join(list(facts.evaluation.by_category)[:12])
    if facts.spec.job_type == "PRETRAIN":
        return "A base to fine-tune from. It is not made to be talked to."
    return (
        f"Answering questions of the kind that `{facts.dataset.key}` holds"
        + (f" (categories: {categories})" if categories else "")
        + ", with a person responsible for what is done with the answers. Other subjects, advice on law, health or "
        "money, and decisions about people are outside of what it was evaluated for."
    )


def _watermark(facts: CardFacts) -> str:
    if facts.plan.watermark is None:
        return "no"
    trained = f"trained with the marks of a key (commitment `{facts.plan.watermark[:16]}…`)"
    if facts.marks is None:
        return trained
    return f"{'yes' if facts.marks.passed else 'not shown'}; {trained}; {facts.marks.text}"


def limits(spec: TrainJobSpec, evaluation: EvaluationRecord, bound: float | None) -> list[str]:
    """What the figures do not say, derived from the evaluation itself; bound: of the gate."""
    lines = [card_jobs.limits(spec)]
    headline = evaluation.metric(TEST, "accuracy")
    for metric in evaluation.metrics:
        if metric.model == "tuned" and metric.name == "accuracy" and metric.suite != TEST and headline is not None:
            gap = headline.value - metric.value
            if gap > 0.1:
                lines.append(
                    f"On suite `{metric.suite}` it is right in {metric.value:.3f} of {metric.n} items, "
                    f"{gap:.3f} less than on its test split."
                )
    weak = [
        f"{name} ({m.value:.2f}, n = {m.n})"
        for name, m in evaluation.by_category.items()
        if m.name == "accuracy" and bound is not None and m.value < bound
    ]
    if weak:
        lines.append(f"Categories below the gate: {', '.join(weak)}.")
    lines += [f"{line}." for line in leakage_lines(evaluation)]
    asked = sum(evaluation.items.values())
    for count, what in (
        (evaluation.empty_answers, "were empty"),
        (evaluation.length_truncated, "were cut by the length limit"),
        (evaluation.refusals, "declined to answer"),
    ):
        if count:
            lines.append(f"{count} of {asked} answers {what}.")
    lines.append(
        "It knows nothing that is not in its training data, and says wrong things with the same confidence as right "
        "ones. Personal data was masked by patterns and rules, which miss some."
    )
    return lines


def _license_text(facts: CardFacts) -> str:
    data = facts.dataset.license or "not stated"
    parts = [f"Dataset `{facts.dataset.key}`: {data}."]
    if facts.plan.base is not None:
        parts.append(f"Base `{facts.plan.base.ref}`: {facts.base_license or 'not stated'}.")
    if license_of(facts) in (UNKNOWN_LICENSE, "other"):
        parts.append("Ask the owners before this model leaves the organisation.")
    return " ".join(parts)
