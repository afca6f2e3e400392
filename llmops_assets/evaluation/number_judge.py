"""Judges an answer by a number: which of the numbers in it is the answer, and whether it is the reference's."""

import re

from llmops_assets.evaluation.quantities import Quantity, prepared, quantities, same

_MARKER = re.compile(
    r"####\s*"
    r"|(?:최종\s?)?(?:정답|답변|(?<![가-힣])답|결론)\s?(?:은|는|:|=|->|→)\s*"
    r"|(?:final\s+|correct\s+)?answer\s*(?:is|:|=)\s*(?:approximately\s|about\s)?",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\n|(?<=[.!?。])\s|\Z")
_DENIED = re.compile(r"[가-힣%A-Za-z]{0,4}?(?:이|가|은|는)?\s?(?:아니|아닙|아닌|아님)")
_NOT_BEFORE = re.compile(r"\b(?:not|isn't|is not)\s+$", re.IGNORECASE)
_STATED = re.compile(
    r"\s?[가-힣A-Za-z%]{0,4}?(?:입니다|이에요|예요|이다|이며|이고|임|이죠|됩니다|이라고|으로|다)(?![가-힣])|\s*[.!。)\"'\]]*\s*(?:\n|$)"
)
_UNDECIDABLE = re.compile(r"[√π∞≤≥<>≠≈±∫∑]|\\(?:sqrt|pi|infty|leq?|geq?|pm)\b|\b(?:sqrt|log|sin|cos)\b")
_ALGEBRA = re.compile(
    r"\d\s?[a-z](?![A-Za-z])|(?<![A-Za-z])[a-z]\s?[=+*/^]|[+*/]\s?[a-z](?![A-Za-z])|(?<!\d)\s?[+*/^]\s?\("
)


def _reference(reference: str) -> str:
    """What of a reference is compared: GSM8K's works the answer out, and gives it behind four hashes."""
    return prepared(reference).rpartition("####")[2]


def fault(reference: str) -> str | None:
    """Why no answer can be compared with `reference`, or None when one can."""
    text = _reference(reference)
    found = [q for q in quantities(text) if not _denied(q, text)]
    if not found:
        return f"{reference!r} holds no number to compare with: give the number, or judge by exact or contains"
    if (sign := _UNDECIDABLE.search(text)) is not None:
        return (
            f"{reference!r} holds {sign[0]}, which the number judge does not work out: give the number, "
            "or judge by exact, contains or regex"
        )
    covered = text
    for q in found:
        covered = covered[: q.start] + "\0" * (q.end - q.start) + covered[q.end :]
    if any(c.isdigit() for c in covered) or _ALGEBRA.search(_without_units(text, found)):
        return (
            f"{reference!r} is an expression, and the number judge reads single numbers only: give the number that "
            "it comes to, or judge by exact, contains or regex"
        )
    return None


def _without_units(text: str, found: list[Quantity]) -> str:
    """`text` with a 0 for every quantity and its unit."""
    out, at = [], 0
    for q in found:
        out.append(text[at : q.start] + "0")
        at = q.end
    return "".join(out) + text[at:]


def right(answer: str, reference: str) -> bool:
    """Whether the number that `answer` gives is that of `reference`; of several in the reference all, in their order.

    What stands behind "정답은", "The answer is", "####" or in a ``\\boxed{}`` is the answer, else the last number is.
    """
    wanted_text = _reference(reference)
    wanted = [q for q in quantities(wanted_text) if not _denied(q, wanted_text)]
    marked = _marked(wanted_text, wanted)
    if marked:
        wanted = marked[:1]
    text = prepared(answer)
    found = [q for q in quantities(text) if not _denied(q, text)]
    if not wanted or not found:
        return False
    if len(wanted) == 1:
        return same(wanted[0], _given(text, found))
    last = _last_sentence(text, found)
    return any(
        len(group) == len(wanted) and all(map(same, wanted, group)) for group in (_marked(text, found), last, found)
    )


def _denied(quantity: Quantity, text: str) -> bool:
    return bool(_DENIED.match(text, quantity.end) or _NOT_BEFORE.search(text[: quantity.start]))


def _marked(text: str, found: list[Quantity]) -> list[Quantity]:
    """The numbers of the sentence behind the last marker that has any; of an equation those behind the last =."""
    for marker in reversed(list(_MARKER.finditer(text))):
        end = _SENTENCE_END.search(text, marker.end()).end()  # type: ignore[union-attr]
        clause = [q for q in found if marker.end() <= q.start < end]
        if not clause:
            continue
        equals = text.rfind("=", marker.end(), end)
        return [q for q in clause if q.start > equals] or clause
    return []


def _given(text: str, found: list[Quantity]) -> Quantity:
    marked = _marked(text, found)
    if not marked:
        return found[-1]
    return next((q for q in marked if _STATED.match(text, q.end)), marked[0])


def _last_sentence(text: str, found: list[Quantity]) -> list[Quantity]:
    ends = [m.end() for m in _SENTENCE_END.finditer(text)]
    start = max((end for end in ends if end <= found[-1].start), default=0)
    return [q for q in found if q.start >= start]
