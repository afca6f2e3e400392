"""What the checks on generated rows say."""

from llmops_assets.records.documents import QuestionAnswersRecord
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.verdict import Verdict


def passages_answered(record: QuestionAnswersRecord, spec: GenerationSpec) -> Verdict:
    """Whether few enough passages and documents came to nothing."""
    share = record.failed_passages / record.passages if record.passages else 1.0
    passed = share <= spec.max_failed and record.rows > 0
    failed = f"{record.failed_passages:,} of {record.passages:,} passages failed"
    told = (
        f"{failed} ({share:.1%}, at most {spec.max_failed:.1%}); "
        f"{record.unreadable_documents:,} of {record.documents:,} documents cannot be read."
    )
    advice = "" if passed else " The quarantine has the reasons; asked again, only what failed is asked."
    return Verdict(passed, told + advice, {"share": round(share, 4), "rows": record.rows})


def grounded(record: QuestionAnswersRecord, spec: GenerationSpec) -> Verdict:
    """Whether the answers stand in their passages on the whole: a model that makes things up is no source."""
    passed = record.groundedness_mean >= spec.min_groundedness
    told = (
        f"{record.groundedness_mean:.1%} of the answers' words are in their passages on average; "
        f"{record.ungrounded_rows:,} rows are below {spec.min_groundedness:.0%} and set aside."
    )
    advice = "" if passed else " Take another model, a lower temperature, or fewer rows a passage."
    return Verdict(passed, told + advice, {"groundedness": record.groundedness_mean})


def traced(record: QuestionAnswersRecord) -> Verdict:
    """Whether every row leads back to a passage of a registered document."""
    lost = record.without_provenance
    return Verdict(lost == 0, f"{lost:,} rows lead to no passage." if lost else "Every row leads to its passage.")
