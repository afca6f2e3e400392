"""What the checks on generated rows say."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmops_assets.datasets.reading.quarantine import in_words
from llmops_assets.records.documents import QuestionAnswersRecord
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.verdict import Verdict


def passages_answered(
    record: QuestionAnswersRecord, spec: GenerationSpec, reasons: Sequence[Mapping[str, Any]] = ()
) -> Verdict:
    """Whether few enough passages and documents came to nothing, and rows came of the others.

    `reasons` are the commonest of the quarantine, as `quarantine.common_reasons` gives them.
    """
    why = f" {in_words(reasons)}." if reasons else ""
    why += f" Every reason: `llmops dataset quarantine {record.dataset}`."
    share = record.failed_passages / record.passages if record.passages else 1.0
    passed = share <= spec.max_failed and record.rows > 0
    unreadable = f"{record.unreadable_documents:,} of {record.documents:,} documents cannot be read"
    figures: dict[str, float | int | str] = {"share": round(share, 4), "rows": record.rows}
    if not record.passages:
        text = f"There is nothing to ask about: {unreadable}."
        return Verdict(False, f"{text}{why} Mend the documents and register them anew.", figures)
    failed = f"{record.failed_passages:,} of {record.passages:,} passages failed"
    text = f"{failed} ({share:.1%}, at most {spec.max_failed:.1%}); {unreadable}."
    if passed:
        return Verdict(True, text, figures)
    if share > spec.max_failed:
        advice = "Mend what failed, or ask another model; given the same command again, only what failed is asked."
    else:
        text += f" All {record.ungrounded_rows:,} rows were set aside: their passages do not say what they answer."
        advice = "Take another model or a lower temperature, or hold the answers to less (--grounded)."
    return Verdict(False, f"{text}{why} {advice}", figures)


def grounded(record: QuestionAnswersRecord, spec: GenerationSpec) -> Verdict:
    """Whether the answers stand in their passages on the whole: a model that makes things up is no source."""
    passed = record.groundedness_mean >= spec.min_groundedness
    if not record.rows and not record.ungrounded_rows:
        return Verdict(False, "No answer was written, so nothing is known of how they stand in their passages.")
    text = (
        f"{record.groundedness_mean:.1%} of the answers' words are in their passages on average; "
        f"{record.ungrounded_rows:,} rows are below {spec.min_groundedness:.0%} and set aside."
    )
    advice = "" if passed else " Take another model, a lower temperature, or fewer rows a passage."
    return Verdict(passed, text + advice, {"groundedness": record.groundedness_mean})


def traced(record: QuestionAnswersRecord) -> Verdict:
    """Whether every row leads back to a passage of a registered document."""
    lost = record.without_provenance
    return Verdict(lost == 0, f"{lost:,} rows lead to no passage." if lost else "Every row leads to its passage.")
