"""The chain of the audit log: every line carries the hash of the one before, so that none is changed or lost unseen."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

FIRST = "0" * 64
"""What the first line has in place of a hash of the one before."""


@dataclass(frozen=True)
class Head:
    """The end of a chain: how many lines it has, and the hash of the last. Kept elsewhere, it proves all before it."""

    lines: int = 0
    sha256: str = FIRST


@dataclass(frozen=True)
class Broken:
    """A place where a chain does not hold: the line's id, or None for its end, and what is wrong there."""

    line: int | None
    reason: str


def digest(previous: str, line: Mapping[str, Any]) -> str:
    """SHA-256 of a line of the log behind the hash of the one before, as 64 hexadecimal digits.

    `line` has at (aware, or as ISO 8601 in UTC), actor, action, target and detail, whose keys may be in any order.
    """
    at = line["at"]
    moment = at.astimezone(UTC).isoformat() if isinstance(at, datetime) else str(at)
    parts = [previous, moment, line["actor"], line["action"], line["target"], line["detail"]]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def check(lines: Iterable[Mapping[str, Any]], head: Head, most: int = 20) -> tuple[Head, list[Broken]]:
    """Follow a chain in the order of its lines; its end, and up to `most` places where it does not hold.

    `head` is what is known of its end: a log that was cut there has fewer lines, or another hash.
    """
    previous, count, broken = FIRST, 0, list[Broken]()
    for line in lines:
        count += 1
        if line["previous"] != previous:
            broken.append(Broken(line["id"], "the line before it was changed, removed or put there"))
        if line["sha256"] != digest(line["previous"] or "", line):
            broken.append(Broken(line["id"], "it is not what was written"))
        previous = line["sha256"]
        if len(broken) >= most:
            return Head(count, previous or ""), broken
    end = Head(count, previous or "")
    if count < head.lines:
        broken.append(Broken(None, f"there are {count} lines, and there were {head.lines}"))
    elif count == head.lines and end != head:
        broken.append(Broken(None, "its last line is another than it was"))
    return end, broken
