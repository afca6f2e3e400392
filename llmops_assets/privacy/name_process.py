"""A process that looks for names beside this one: its analyser loads while this one imports, reads and compares."""

import atexit
import logging
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

import msgspec

log = logging.getLogger(__name__)

Found = tuple[int, int, float]
"""Where a name begins and ends in its sentence, and its score."""

_SIZE = struct.Struct("<Q")


class NameProcessError(RuntimeError):
    """The process has ended, or answered something else than was asked."""


class NameProcess:
    """One process with the analysers of `names`, which answers one request after another, from any thread."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "llmops_assets.privacy.name_worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._lock = threading.Lock()

    def found_in(self, sentences: Sequence[str]) -> list[list[Found]]:
        """The names in each sentence, as `names.judged` finds them. Raises NameProcessError."""
        to, back = self._process.stdin, self._process.stdout
        try:
            with self._lock:
                write(to, msgspec.msgpack.encode(sentences))
                answer = read(back)
            found = msgspec.msgpack.decode(answer or b"", type=list[list[Found]])
        except (OSError, ValueError) as error:
            raise NameProcessError(f"the process that looks for names has ended: {error}") from error
        if len(found) != len(sentences):
            raise NameProcessError(f"{len(found):,} answers to {len(sentences):,} sentences")
        return found

    def stop(self) -> None:
        """End the process at once; it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    log.debug("the process that looked for names had ended before", exc_info=True)


_running: NameProcess | None = None


def start() -> None:
    """Have names looked for in a process of their own from now on, until `stop` or the end of this process."""
    global _running
    if _running is None:
        try:
            _running = NameProcess()
        except OSError:
            log.warning("no process could be started that looks for names: this one does", exc_info=True)
            return
        atexit.register(stop)


def stop() -> None:
    """End the process, if one runs: names are looked for in this one again."""
    global _running
    if _running is not None:
        process, _running = _running, None
        process.stop()


def found_elsewhere(sentences: Sequence[str]) -> list[list[Found]] | None:
    """The names in each sentence where a process looks for them; None where none runs, or it has ended."""
    process = _running
    if process is None:
        return None
    try:
        return process.found_in(sentences)
    except NameProcessError:
        log.warning("names are looked for in this process now", exc_info=True)
        stop()
        return None


def write(stream: BinaryIO | None, message: bytes) -> None:
    """Send one message. Raises OSError where nobody reads any more."""
    if stream is None:
        raise OSError("the stream is closed")
    stream.write(_SIZE.pack(len(message)))
    stream.write(message)
    stream.flush()


def read(stream: BinaryIO | None) -> bytes | None:
    """One message; None at the end of the stream."""
    if stream is None or len(head := stream.read(_SIZE.size)) < _SIZE.size:
        return None
    return stream.read(_SIZE.unpack(head)[0])
