"""The audit log: read, proven to be whole, and taken elsewhere."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring
from resources.catalog.audit_chain import Broken, Head, check


@dataclass(frozen=True)
class Proof:
    """What following the chain found: its end, and every place (up to twenty) where it does not hold."""

    head: Head
    broken: list[Broken]

    def as_dict(self) -> dict[str, Any]:
        return {"whole": not self.broken, **asdict(self)}


def list_lines(
    wiring: Wiring, actor: str, *, target: str | None = None, limit: int = 100, before: int | None = None
) -> list[dict[str, Any]]:
    """The newest lines (about a target, if one is named), newest first; with `before`, those before the line of that
    id."""
    authorise(wiring, actor, "audit.read")
    if target is None:
        return wiring.catalog.audit_log(limit, before)
    return wiring.catalog.audit_of(target, exact=True, limit=limit, before=before)


def verify_log(wiring: Wiring, actor: str, known: Head | None = None) -> Proof:
    """Follow the log of the catalog from its first line to its last.

    `known` is an end that was written down elsewhere: who can write to the database can also write a chain of their
    own there, and only what is kept elsewhere shows that.
    """
    authorise(wiring, actor, "audit.read")
    # Read before the lines: what is appended meanwhile makes the log longer, and no shorter.
    head = wiring.catalog.audit_head()
    other: list[Broken] = []
    found, broken = check(_compared(wiring.catalog.audit_lines(), known, other), head)
    return Proof(found, [*other, *broken])


def _compared(lines: Iterator[dict[str, Any]], known: Head | None, broken: list[Broken]) -> Iterator[dict[str, Any]]:
    """Pass lines on, and note where the one that `known` names is another."""
    count = 0
    for line in lines:
        count += 1
        if known is not None and count == known.lines and line["sha256"] != known.sha256:
            broken.append(Broken(line["id"], f"line {count} is another than the one that was written down"))
        yield line
    if known is not None and count < known.lines:
        broken.append(Broken(None, f"there are {count} lines, and {known.lines} were written down"))


def export_log(wiring: Wiring, actor: str, file: Path) -> Head:
    """Write every line to a new file, a JSON object a line, and the end of the chain last; that end.

    Raises Refused for a file that is there. Who took the log with them is on record in it.
    """
    authorise(wiring, actor, "audit.read")
    wiring.catalog.log(actor, "audit.export", file.name)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refused(f"{file} is there already: name another") from None
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        count, last = 0, Head().sha256
        for line in wiring.catalog.audit_lines():
            stream.write(json.dumps(line, ensure_ascii=False, default=_plain) + "\n")
            count, last = count + 1, line["sha256"]
        head = Head(count, last)
        stream.write(json.dumps({"head": asdict(head)}) + "\n")
    return head


def verify_file(file: Path) -> Proof:
    """Follow the chain of an exported log; raises Refused for a file that is none."""
    end: dict[str, Any] = {}

    def lines() -> Iterator[dict[str, Any]]:
        with open(file, encoding="utf-8") as stream:
            for number, text in enumerate(stream, 1):
                try:
                    line = json.loads(text)
                    if "head" in line:
                        end.update(line["head"])
                    else:
                        yield {name: line[name] for name in _COLUMNS}
                except (ValueError, TypeError, KeyError) as error:
                    raise Refused(f"{file}:{number}: this is no line of an exported audit log ({error!r})") from error

    found, broken = check(lines(), Head())
    if not end:
        broken.append(Broken(None, "the file has no end: it was cut"))
    elif Head(**end) != found:
        broken.append(Broken(None, f"it should end with line {end['lines']}, {end['sha256']}"))
    return Proof(found, broken)


_COLUMNS = ("id", "at", "actor", "action", "target", "detail", "previous", "sha256")


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
