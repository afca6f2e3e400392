"""Personal data of an installation's own, described in the policy: a regular expression that cannot run away.

The expressions are those that a finite automaton can match, so that the engine of polars can look through a column
first, and none in which a repetition holds a repetition, so that Python's engine needs no exponential time. Their
``\\d``, ``\\w``, ``\\s`` and ``\\b`` mean ASCII: a Korean particle may follow a number directly.
"""

import re
from typing import Literal

from pydantic import Field, model_validator

from llmops_assets.specs.base import Bool, Float, Part, Text

Checksum = Literal["luhn", "rrn", "brn", "iban"]

_SETS = {"d": "0-9", "w": "0-9A-Za-z_", "s": " \\t\\n\\r\\f\\v"}
_WORD = "[0-9A-Za-z_]"
_BOUNDARY = f"(?:(?<!{_WORD})(?={_WORD})|(?<={_WORD})(?!{_WORD}))"
_CONTROLS = "ntrfv"
_QUANTIFIER = re.compile(r"[*+?]|\{([0-9]*)(,?)([0-9]*)\}")
_LONGEST = 1000


class Recognizer(Part):
    """One kind of personal data: what it looks like, what stands near it, and what takes its place."""

    name: Text = Field(description="What it is, for messages.")
    type: Text = Field(pattern=r"^[A-Z][A-Z0-9_]*$", description="Key of the type, for example STAFF_ID.")
    regex: Text = Field(description="The shape; look-around, back references and anchors are not allowed.")
    ignore_case: Bool = False
    context: list[Text] = Field(default_factory=list, description="Words of which one must stand near.")
    score: Float = Field(default=0.8, gt=0, le=1, description="Of overlapping spans the surer one stays.")
    placeholder: Text | None = Field(default=None, description="What replaces it; by default [name].")
    checksum: Checksum | None = None

    @model_validator(mode="after")
    def _can_be_matched(self) -> "Recognizer":
        try:
            re.compile(translated(self.regex, ignore_case=self.ignore_case))
        except re.error as error:
            raise ValueError(f"{self.regex!r} is no regular expression: {error}") from error
        if re.compile(translated(self.regex)).fullmatch("") is not None:
            raise ValueError(f"{self.regex!r} matches nothing at all, which is everywhere")
        return self

    @property
    def shown(self) -> str:
        """The placeholder."""
        return self.placeholder or f"[{self.name}]"


def translated(expression: str, *, ignore_case: bool = False) -> str:
    """`expression` with its shorthands written out, so that every engine reads it alike.

    Raises ValueError with the place and the reason when it holds what could run away or what engines read differently.
    """
    if len(expression) > _LONGEST:
        raise ValueError(f"it has {len(expression)} characters, more than {_LONGEST}")
    return _Translation(expression, ignore_case).whole()


class _Translation:
    """One pass over an expression, character by character."""

    def __init__(self, expression: str, ignore_case: bool) -> None:
        self.expression, self.ignore_case = expression, ignore_case
        self.at = 0

    def whole(self) -> str:
        text, _ = self._alternatives()
        if self.at < len(self.expression):
            self._refuse("a ) without its (")
        return text

    def _refuse(self, reason: str) -> None:
        raise ValueError(f"{self.expression!r}, character {self.at + 1}: {reason}")

    def _alternatives(self) -> tuple[str, bool]:
        """Up to the end or the closing bracket: the text, and whether it repeats something without end."""
        out, endless = [], False
        while self.at < len(self.expression) and self.expression[self.at] != ")":
            if self.expression[self.at] == "|":
                out.append("|")
                self.at += 1
                continue
            piece, inside = self._piece()
            mark, unbounded = self._quantifier()
            if unbounded and inside:
                self._refuse("a repetition without end inside another one, as in (a+)+, can take exponential time")
            endless |= inside or unbounded
            out.append(piece + mark)
        return "".join(out), endless

    def _piece(self) -> tuple[str, bool]:
        char = self.expression[self.at]
        if char == "(":
            return self._group()
        if char == "[":
            return self._class(), False
        if char == "\\":
            return self._escape(), False
        if char in "^$":
            self._refuse(f"{char} is not allowed: it is looked for anywhere in a text")
        if char in "*+?{":
            self._refuse(f"nothing stands before {char} that it could repeat")
        self.at += 1
        return (f"[{char.lower()}{char.upper()}]" if self._two_cases(char) else char), False

    def _two_cases(self, char: str) -> bool:
        return self.ignore_case and char.isascii() and char.isalpha()

    def _group(self) -> tuple[str, bool]:
        if self.expression.startswith("(?", self.at) and not self.expression.startswith("(?:", self.at):
            self._refuse("of groups with (? only (?:…) is allowed: no look-around, no names, no flags")
        self.at += 3 if self.expression.startswith("(?:", self.at) else 1
        inside, endless = self._alternatives()
        if self.at >= len(self.expression):
            self._refuse("a ( without its )")
        self.at += 1
        # What an alternation repeats may match in several ways: it counts as a repetition.
        return f"(?:{inside})", endless or "|" in inside

    def _class(self) -> str:
        self.at += 1
        negated = self.expression.startswith("^", self.at)
        self.at += negated
        parts: list[str] = []
        while self.at < len(self.expression) and self.expression[self.at] != "]":
            char = self.expression[self.at]
            if char == "[" or self.expression.startswith(("&&", "--", "~~", "||"), self.at):
                self._refuse("engines read [ and doubled signs inside a class differently: write \\[ or leave them out")
            if char == "\\":
                parts.append(self._escape(inside=True))
                continue
            parts.append(char)
            self.at += 1
        if self.at >= len(self.expression) or not parts:
            self._refuse("a [ without its ]" if parts else "a class of no character")
        self.at += 1
        content = "".join(parts)
        if self.ignore_case:
            content += (
                content.swapcase()
                if re.fullmatch(r"[A-Za-z-]*", content)
                else re.sub("[^A-Za-z]", "", content).swapcase()
            )
        return f"[{'^' if negated else ''}{content}]"

    def _escape(self, *, inside: bool = False) -> str:
        char = self.expression[self.at + 1 : self.at + 2]
        if char in _SETS and char:
            text = _SETS[char] if inside else f"[{_SETS[char]}]"
        elif char and char.lower() in _SETS and not inside:
            text = f"[^{_SETS[char.lower()]}]"
        elif char == "b" and not inside:
            text = _BOUNDARY
        elif char and (char in _CONTROLS or not char.isalnum()):
            text = f"\\{char}"
        else:
            self._refuse(f"\\{char} is not allowed; \\d \\w \\s \\b \\n \\t and escaped signs are")
        self.at += 2
        return text

    def _quantifier(self) -> tuple[str, bool]:
        found = _QUANTIFIER.match(self.expression, self.at)
        if found is None:
            return "", False
        self.at = found.end()
        lazy = self.expression.startswith("?", self.at)
        self.at += lazy
        if self.expression[self.at : self.at + 1] in ("*", "+", "{"):
            self._refuse("a repetition of a repetition")
        unbounded = found[0] in "*+" or (bool(found[2]) and not found[3])
        if found[0].startswith("{"):
            if not found[1]:
                self._refuse("write how many times at least, as in {2,4}")
            most = int(found[3] or found[1])
            if most > 200:
                self._refuse("more than 200 repetitions")
            unbounded |= most > 20
        return found[0] + ("?" if lazy else ""), unbounded
