"""Makes the conversation in which a reader answers from passages; training, evaluation and serving ask it alike."""

from collections.abc import Sequence

from llmops_assets.specs.jobs import RagBlock

Message = dict[str, str]


def context_of(passages: Sequence[str]) -> str:
    """Passages as they stand in a prompt, numbered from 1."""
    return "\n\n".join(f"[{number}] {text.strip()}" for number, text in enumerate(passages, 1))


def asked(rag: RagBlock, question: str, passages: Sequence[str]) -> list[Message]:
    """The prompt of a reader: the job's template with at most its number of passages, the first ones given."""
    # Replaced one after the other, and never inside of what was put in.
    before, _, after = rag.template.partition("{context}")
    parts = [part.replace("{question}", question) for part in (before, after)]
    return [{"role": "user", "content": context_of(passages[: rag.passages]).join(parts)}]
