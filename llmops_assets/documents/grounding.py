"""How much of an answer stands in its passage: Korean by morphemes, other words by their stems."""

from resources.retrieval.morphemes import tokens

__all__ = ["groundedness", "tokens"]


def groundedness(answer: str, passage: str) -> float:
    """Share of the answer's tokens that the passage has, 0 to 1; 0 for an answer that says nothing."""
    answered = tokens(answer)
    if not answered:
        return 0.0
    known = set(tokens(passage))
    return sum(token in known for token in answered) / len(answered)
