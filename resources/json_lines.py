"""Files of one JSON value a line that several processes append to, and that any of them may leave half written."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class JsonLines:
    """What was read: (line number from 1, value) of each good line, and what is wrong with each other one."""

    rows: list[tuple[int, Any]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_json_lines(data: bytes) -> JsonLines:
    """Every line of `data` that is JSON. A line that is none is that entry's loss alone: it is named in `faults`.

    A last line without its newline was cut off while it was written, unless it is whole JSON all the same. Empty lines
    are no entries.
    """
    lines = JsonLines()
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            lines.rows.append((number, json.loads(line.decode("utf-8"))))
        except (ValueError, RecursionError) as error:
            shown = line[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
            lines.faults.append(f"line {number} is no JSON ({error}): {shown!r}")
    return lines


def append_json_line(path: Path, value: Any) -> None:
    """Append `value` as a line of its own, also after a line that lacks its end. The folder is made where it is not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(value, ensure_ascii=False).encode() + b"\n"
    with open(path, "a+b") as file:
        if file.tell() > 0:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                line = b"\n" + line
        # In append mode this goes to the end, wherever the file was read, and in one write.
        file.write(line)
