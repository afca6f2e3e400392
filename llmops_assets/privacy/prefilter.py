"""Says in one pass over a text which of many regular expressions may match it: never fewer than do.

RE2 runs all of them as one automaton, whose cost depends on neither their number nor on how they are written. It knows
no assertions, so each expression is loosened first: what is left is found wherever the original is, and now and then
elsewhere. Python's `re` decides.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import lru_cache
from re import IGNORECASE
from re import _constants as ops
from re import _parser as parser
from typing import Any

try:
    import re2
except ImportError:  # no wheel for this platform: what uses this searches by words instead
    re2 = None

log = logging.getLogger("privacy.prefilter")

_MEMORY = 64 * 1024 * 1024
"""Bytes that an automaton may take for its program and the states that it has met; older ones are then forgotten."""
_MOST_LEAST = 20
"""Repetitions asked for at most: counting further makes the automaton large."""
_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
_ANY = "(?s:.)"
_SPACE = r"\t-\r\x1c-\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}"
# In a class, at least what Python's is; in a negated one, at most. RE2's own are of ASCII alone.
_MORE = {
    ops.CATEGORY_SPACE: _SPACE, ops.CATEGORY_DIGIT: r"\p{Nd}", ops.CATEGORY_WORD: r"\p{L}\p{N}_",
    ops.CATEGORY_NOT_SPACE: r"\S", ops.CATEGORY_NOT_DIGIT: r"\D", ops.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip
_LESS = {ops.CATEGORY_SPACE: _SPACE, ops.CATEGORY_DIGIT: "0-9", ops.CATEGORY_WORD: "0-9A-Za-z_"}
# What `re` takes for these letters too where case does not count.
_OTHER_CASE = {"i": "\u0130\u0131", "s": "\u017f", "k": "\u212a"}
_CASELESS = ((0x3000, 0x303F), (0x3130, 0x318F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3))
_SENTINEL = "\x00\x01a prefilter that works\x01\x00"


class Prefilter:
    """Which of some expressions may match a text, by their places; safe to use from several threads."""

    def __init__(self, expressions: Sequence[str]) -> None:
        self._set = None
        self._always: list[int] = []
        if re2 is None:
            log.warning("google-re2 is not installed: texts are searched expression by expression, which takes longer")
            return
        automaton = re2.Set.SearchSet(_options())
        self._places: list[int] = []
        for place, expression in enumerate(expressions):
            if (loose := loosened(expression)) is None:
                self._always.append(place)
            else:
                automaton.Add(loose)
                self._places.append(place)
        automaton.Add("".join(map(_literal, map(ord, _SENTINEL))))
        automaton.Compile()
        # An automaton for which there was no room would find nothing, and not say so.
        if automaton.Match(_SENTINEL) and len(self._places) in automaton.Match(_SENTINEL):
            self._set = automaton
        else:
            log.warning("%d expressions are too many for one automaton: each is searched for", len(expressions))

    @property
    def works(self) -> bool:
        """Whether anything can be said at all."""
        return self._set is not None

    def may_match(self, text: str | bytes) -> Sequence[int] | None:
        """Places of the expressions that may match `text` (bytes: in UTF-8), in order; None where nobody can say."""
        if self._set is None:
            return None
        try:
            found = self._set.Match(text.encode() if isinstance(text, str) else text)
        except UnicodeEncodeError:
            # Half a character, which UTF-8 has not.
            return None
        if not found:
            return self._always
        places = [self._places[number] for number in found if number < len(self._places)]
        return sorted([*self._always, *places])


@lru_cache(64)
def prefilter(expressions: tuple[str, ...]) -> Prefilter:
    """The prefilter of these expressions, made once: that takes some tenths of a second."""
    return Prefilter(expressions)


def unfinished(expressions: Iterable[str]) -> Any | None:
    """What finds where at the end of a text one of `expressions` may have begun that could go on behind it.

    A compiled expression of RE2, whose first match begins there and ends with the text; None where there is none.
    """
    if re2 is None:
        return None
    try:
        begun = [_beginnings(list(parsed), _ignores_case(parsed)) for parsed in map(parser.parse, expressions)]
        return re2.compile(f"(?:{'|'.join(begun)})\\z", _options())
    except (re2.error, _Unknown):
        return None


@lru_cache(1024)
def loosened(expression: str) -> str | None:
    """`expression` as RE2 reads it, without assertions and upper bounds: found in every text that it is found in.

    None where it has something for which nothing looser is known, or RE2 would not take it.
    """
    if re2 is None:
        return None
    try:
        parsed = parser.parse(expression)
        loose = _loose(list(parsed), _ignores_case(parsed), is_last=True)
        re2.compile(loose, _options())
    except (re2.error, _Unknown):
        return None
    return loose


class _Unknown(ValueError):
    """An element of an expression for which nothing looser is known."""


def _options() -> Any:
    options = re2.Options()
    options.max_mem, options.log_errors, options.never_capture = _MEMORY, False, True
    return options


def _ignores_case(parsed: Any) -> bool:
    return bool(parsed.state.flags & IGNORECASE)


def _loose(parts: list[tuple[Any, Any]], ignores_case: bool, *, is_last: bool = False) -> str:
    """A sequence; `is_last`: nothing but the end of the expression comes after it."""
    out = []
    for number, (op, argument) in enumerate(parts):
        ends = is_last and number == len(parts) - 1
        out.append(_element(op, argument, ignores_case, is_last=ends))
    return "".join(out)


def _element(op: Any, argument: Any, ignores_case: bool, *, is_last: bool) -> str:
    if op is ops.LITERAL:
        return _in_either_case(argument) if ignores_case else _literal(argument)
    if op is ops.NOT_LITERAL:
        return f"[^{_literal(argument)}]"
    if op is ops.ANY:
        return _ANY
    if op is ops.IN:
        return _class(argument, ignores_case)
    if op is ops.SUBPATTERN:
        inner, case = _inside(argument, ignores_case)
        return f"(?:{_loose(inner, case, is_last=is_last)})"
    if op is ops.ATOMIC_GROUP:
        return f"(?:{_loose(list(argument), ignores_case, is_last=is_last)})"
    if op is ops.BRANCH:
        return f"(?:{'|'.join(_loose(list(b), ignores_case, is_last=is_last) for b in argument[1])})"
    if op in _REPEATS:
        return _repeated(argument, _loose(list(argument[2]), ignores_case))
    if op is ops.ASSERT and argument[0] > 0 and is_last:
        # What must follow the whole match can be part of it: nothing else comes after.
        return f"(?:{_loose(list(argument[1]), ignores_case, is_last=True)})"
    if op in (ops.ASSERT, ops.ASSERT_NOT, ops.AT):
        return ""
    raise _Unknown(str(op))


def _inside(argument: Any, ignores_case: bool) -> tuple[list[tuple[Any, Any]], bool]:
    """What a group holds, and whether case counts in it."""
    _, added, taken, inner = argument
    return list(inner), (ignores_case or bool(added & IGNORECASE)) and not taken & IGNORECASE


def _repeated(argument: Any, inner: str) -> str:
    least, most, _ = argument
    if not inner or not most:
        return ""
    if most == 1:
        return inner if least else f"(?:{inner})?"
    return f"(?:{inner})" + ("*" if not least else "+" if least == 1 else f"{{{min(least, _MOST_LEAST)},}}")


def _beginnings(parts: list[tuple[Any, Any]], ignores_case: bool, *, is_last: bool = True) -> str:
    """Every beginning of what a sequence matches, but the empty one; the whole of it too."""
    if not parts:
        return "(?:)"
    (op, argument), rest = parts[0], parts[1:]
    ends = is_last and not rest
    whole = _element(op, argument, ignores_case, is_last=ends)
    if not whole:
        return _beginnings(rest, ignores_case, is_last=is_last)
    after = f"(?:{_beginnings(rest, ignores_case, is_last=is_last)})?" if rest else ""
    if op is ops.SUBPATTERN:
        inner, case = _inside(argument, ignores_case)
        begun = _beginnings(inner, case, is_last=ends)
    elif op is ops.ATOMIC_GROUP:
        begun = _beginnings(list(argument), ignores_case, is_last=ends)
    elif op is ops.ASSERT:
        begun = _beginnings(list(argument[1]), ignores_case, is_last=True)
    elif op is ops.BRANCH:
        begun = "|".join(_beginnings(list(branch), ignores_case, is_last=ends) for branch in argument[1])
    elif op in _REPEATS:
        again = _loose(list(argument[2]), ignores_case)
        first = _beginnings(list(argument[2]), ignores_case, is_last=False)
        begun = f"(?:{again})*(?:{first})" if argument[1] != 1 else first
    else:
        return whole + after
    return f"(?:{whole}{after}|{begun})"


def _class(items: list[tuple[Any, Any]], ignores_case: bool) -> str:
    if items[0][0] is ops.NEGATE:
        inside = "".join(_item(kind, value, _LESS) for kind, value in items[1:])
        return f"[^{inside}]" if inside else _ANY
    inside = []
    for kind, value in items:
        if ignores_case and kind is not ops.CATEGORY:
            low, high = (value, value) if kind is ops.LITERAL else value
            if high < 128:
                inside += [_members(code) for code in range(low, high + 1)]
                continue
            if not _is_caseless(low, high):
                return _ANY
        inside.append(_item(kind, value, _MORE))
    return f"[{''.join(inside)}]"


def _item(kind: Any, value: Any, categories: dict[Any, str]) -> str:
    if kind is ops.LITERAL:
        return _literal(value)
    if kind is ops.RANGE:
        return f"{_literal(value[0])}-{_literal(value[1])}"
    if kind is ops.CATEGORY:
        return categories.get(value, "")
    raise _Unknown(str(kind))


def _literal(code: int) -> str:
    return chr(code) if code < 128 and chr(code).isalnum() else f"\\x{{{code:x}}}"


def _members(code: int) -> str:
    """An ASCII character and what is taken for it in either case, inside a class."""
    lower = chr(code).lower()
    return "".join(_literal(ord(char)) for char in {chr(code), lower, lower.upper(), *_OTHER_CASE.get(lower, "")})


def _in_either_case(code: int) -> str:
    if code < 128:
        return f"[{_members(code)}]" if chr(code).isalpha() else _literal(code)
    return _literal(code) if _is_caseless(code, code) else _ANY


def _is_caseless(low: int, high: int) -> bool:
    return any(first <= low and high <= last for first, last in _CASELESS)
