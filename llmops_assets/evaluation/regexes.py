"""Whether a regular expression of a suite compiles, and matches any answer in reasonable time."""

import re
import warnings
from collections.abc import Iterable, Iterator
from re import _constants as sre  # type: ignore[attr-defined]
from re import _parser as sre_parser  # type: ignore[attr-defined]
from typing import Any

_ENDLESS = 20
"""Repetitions from which a bounded one counts as endless."""
_CHARS = [*map(chr, range(32, 127)), "\n", "가", "힣", "é", "あ"]
"""A sample of characters by which two pieces of a pattern are seen to match the same."""
LONGEST = 2000


def fault(pattern: str) -> str | None:
    """Why answers cannot be judged by `pattern`, or None when they can.

    Refused are patterns that do not compile, that match the empty text (and so every answer), and those in which a
    repetition without end holds another that matches the same characters, as in ``(a+)+``: a few dozen characters
    can take such a pattern hours.
    """
    if len(pattern) > LONGEST:
        return f"the regular expression {pattern[:40]!r}… has {len(pattern)} characters, more than {LONGEST}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
            parsed = sre_parser.parse(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"{pattern!r} is no regular expression: {error}"
    except Warning as warning:
        return f"{pattern!r} is read in more than one way: {warning}. Put a backslash before the sign"
    if (reason := _runaway(parsed, parsed.state.flags)) is not None:
        return f"the regular expression {pattern!r} can take hours: {reason}"
    if compiled.search("") is not None:
        return f"the regular expression {pattern!r} matches an empty answer, and so every one"
    return None


def _runaway(parsed: Iterable[tuple[Any, Any]], flags: int) -> str | None:
    for op, value in _nodes(parsed):
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and _endless(value):
            body = list(value[2])
            inner = [v for o, v in _nodes(body) if o in (sre.MAX_REPEAT, sre.MIN_REPEAT) and _endless(v)]
            if inner and not _parted(body, inner, flags):
                return (
                    "a repetition without end inside another one, as in (a+)+; part them by a sign that neither matches"
                )
            if _ambiguous_branches(body, flags):
                return "a repetition of alternatives that begin alike, as in (a|ab?)+"
    run = 0
    for op, value in parsed:
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT) and _endless(value):
            run += 1
            if run > 2:
                return "three repetitions without end in a row"
        elif op is not sre.AT and _least(op, value):
            run = 0
    return None


def _endless(value: Any) -> bool:
    return value[1] is sre.MAXREPEAT or value[1] > _ENDLESS


def _nodes(parsed: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """All nodes of a parsed pattern, the inner ones too."""
    for op, value in parsed:
        yield op, value
        for part in _parts(op, value):
            yield from _nodes(part)


def _parts(op: Any, value: Any) -> list[Any]:
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return [value[2]]
    if op is sre.SUBPATTERN:
        return [value[3]]
    if op is sre.BRANCH:
        return list(value[1])
    if op in (sre.ASSERT, sre.ASSERT_NOT):
        return [value[1]]
    if op is sre.GROUPREF_EXISTS:
        return [part for part in value[1:] if part is not None]
    return []


def _matched(op: Any, value: Any, flags: int) -> set[str]:
    """The sample's characters that a node can match first."""
    if op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN):
        one = sre_parser.SubPattern(sre_parser.State(), [(op, value)])
        one.state.flags = flags
        if op is sre.LITERAL and chr(value) not in _CHARS:
            return {chr(value)}
        found = re._compiler.compile(
            one, flags & ~sre.SRE_FLAG_TEMPLATE if hasattr(sre, "SRE_FLAG_TEMPLATE") else flags
        )  # type: ignore[attr-defined]
        return {char for char in _CHARS if found.fullmatch(char)}
    if op is sre.SUBPATTERN:
        return _first(value[3], flags)
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return _first(value[2], flags)
    if op is sre.BRANCH:
        return set().union(*(_first(branch, flags) for branch in value[1]))
    return set() if op is sre.AT else set(_CHARS)


def _first(parsed: Iterable[tuple[Any, Any]], flags: int) -> set[str]:
    found: set[str] = set()
    for op, value in parsed:
        found |= _matched(op, value, flags)
        if _least(op, value):
            break
    return found


def _least(op: Any, value: Any) -> bool:
    """Whether a node needs at least one character."""
    if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
        return value[0] > 0 and any(_least(o, v) for o, v in value[2])
    if op is sre.SUBPATTERN:
        return any(_least(o, v) for o, v in value[3])
    if op is sre.BRANCH:
        return all(any(_least(o, v) for o, v in branch) for branch in value[1])
    return op in (sre.LITERAL, sre.NOT_LITERAL, sre.ANY, sre.IN)


def _parted(body: list[tuple[Any, Any]], inner: list[Any], flags: int) -> bool:
    """Whether each round of a repetition needs a character that its inner repetitions do not match."""
    inside: set[str] = set()
    for repeat in inner:
        for op, value in _nodes(repeat[2]):
            if op in (sre.LITERAL, sre.NOT_LITERAL, sre.IN, sre.ANY):
                inside |= _matched(op, value, flags)
    if len(body) == 1 and body[0][0] is sre.SUBPATTERN:
        body = list(body[0][1][3])
    return any(op in (sre.LITERAL, sre.IN) and not (_matched(op, value, flags) & inside) for op, value in body)


def _ambiguous_branches(body: list[tuple[Any, Any]], flags: int) -> bool:
    for op, value in _nodes(body):
        if op is sre.BRANCH:
            firsts = [_first(branch, flags) for branch in value[1]]
            lengths = [all(o is sre.LITERAL for o, _ in branch) for branch in value[1]]
            taken: set[str] = set()
            for first in firsts:
                if first & taken and not all(lengths):
                    return True
                taken |= first
            if all(lengths):
                words = ["".join(chr(v) for _, v in branch) for branch in value[1]]
                if any(a != b and b.startswith(a) for a in words for b in words) or len(set(words)) < len(words):
                    return True
    return False
