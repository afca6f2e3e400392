"""Ends what runs at a given line, as a kill would."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any


class Killed(BaseException):
    """The process ended here."""


@dataclass
class Kill:
    """How many lines were executed, of the files that are looked at."""

    lines: int = 0
    hit: bool = False


@contextmanager
def killed_at(line: int | None, *files: str) -> Iterator[Kill]:
    """End the body when the given number of lines of the files were executed; with None only count them."""
    kill = Kill()

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            kill.lines += 1
            if kill.lines == line:
                kill.hit = True
                raise Killed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield kill
    except Killed:
        if not kill.hit:
            raise
    finally:
        sys.settrace(before)
