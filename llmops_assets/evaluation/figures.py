"""The figures of one suite: accuracy and F1 of what is right or wrong, and scores of free texts beside them."""

from collections.abc import Mapping, Sequence

from llmops_assets.evaluation import text_metrics as texts
from llmops_assets.evaluation.metrics import Estimate
from llmops_assets.evaluation.suites import Scored, as_metric, labels_of, suite_metrics
from llmops_assets.records.evaluation import Metric
from llmops_assets.specs.suite import MetricName

FREE_TEXT: tuple[MetricName, ...] = ("bleu", "chrf", "rouge_l")


def wanted(scored: Sequence[Scored], named: Sequence[MetricName]) -> tuple[MetricName, ...]:
    """The text metrics of a suite: those named, else the usual ones where the references are sentences to be matched.

    Labels, numbers, patterns and key facts are right or wrong: a similarity to them says nothing.
    """
    if named:
        return tuple(named)
    free = all(s.item.judge.kind in ("exact", "llm") for s in scored) and not labels_of(scored)
    return FREE_TEXT if free else ()


def figures_of(
    scored: Sequence[Scored],
    suite: str,
    model: str,
    named: Sequence[MetricName] = (),
    similarity: Mapping[str, float] | None = None,
) -> list[Metric]:
    """All figures of one model on one suite; `similarity` is BERTScore's F1 by key of the item."""
    metrics = suite_metrics(scored, suite, model)
    for name in wanted(scored, named):
        estimate = _estimate(name, scored, similarity)
        if estimate is not None:
            metrics.append(as_metric(estimate, suite, name, model))
    return metrics


def _estimate(name: MetricName, scored: Sequence[Scored], similarity: Mapping[str, float] | None) -> Estimate | None:
    answers = [s.judged for s in scored]
    references = [s.item.references for s in scored]
    if name == "bleu":
        return texts.bleu(answers, references)
    if name == "chrf":
        return texts.chrf(answers, references)
    if name == "entity_f1":
        return texts.entity_f1(answers, [group[0] for group in references])
    if name == "bertscore":
        return texts.mean([similarity.get(s.item.key, 0.0) for s in scored]) if similarity is not None else None
    return texts.rouge(answers, references, name)
