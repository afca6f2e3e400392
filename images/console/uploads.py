"""Takes uploaded files to a folder of their own, as streams: no file is held in memory, none lands elsewhere."""

import contextlib
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from images.console.parts import Part
from images.console.problems import Problem
from resources import files

_UNSAFE = re.compile(r"[\x00-\x1f/\\]")
_LONGEST_FIELD = 64 * 1024


def safe_name(name: str) -> str:
    """The name of a file without any folder; raises Problem 422 for one that could lead elsewhere, or is hidden."""
    last = re.split(r"[/\\]", name)[-1]
    if not last or last.startswith(".") or len(last.encode()) > 200 or _UNSAFE.search(last):
        raise Problem(422, f"files: {name!r} is no name that a file may have here: letters, digits, no leading dot")
    return last


async def receive(request: Request, folder: Path, largest: int) -> list[str]:
    """Write the files of a multipart request into `folder`; their names. Raises Problem 413 and 422."""
    sink = await _parse(request, folder, largest)
    if sink.fields:
        raise Problem(422, f"{min(sink.fields)}: an upload has files and no other fields")
    return sink.names


async def receive_form(request: Request, folder: Path, largest: int) -> dict[str, str]:
    """As `receive`, of a form that has other fields too; those fields."""
    return (await _parse(request, folder, largest)).fields


async def _parse(request: Request, folder: Path, largest: int) -> "_Sink":
    from python_multipart.multipart import MultipartParser, parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise Problem(415, "an upload is multipart/form-data with its boundary: files=@NAME")
    sink = _Sink(folder, largest)
    parser = MultipartParser(options[b"boundary"], sink.callbacks(parse_options_header))
    try:
        async for chunk in request.stream():
            # Parsing writes to the disk: in a thread, so that other requests go on.
            await run_in_threadpool(parser.write, chunk)
        parser.finalize()
    except ClientDisconnect:
        raise Problem(400, "the upload broke off: send it again") from None
    except (Problem, OSError):
        # What cannot be written is no fault of the body's.
        raise
    except Exception as error:
        raise Problem(400, f"this is no whole multipart body: {error}") from error
    finally:
        sink.close()
    if not sink.is_ended:
        raise Problem(400, "the multipart body has no end: the upload broke off")
    return sink


class _Sink:
    """Writes the parts of a multipart body that are files."""

    def __init__(self, folder: Path, largest: int) -> None:
        self.folder, self.largest = folder, largest
        self.names: list[str] = []
        self.fields: dict[str, str] = {}
        self.size = 0
        self.is_ended = False
        self._file: int | None = None
        self._name, self._text = "", b""
        self._field, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self, options_of: Callable[..., Any]) -> dict[str, Callable[..., None]]:
        def begin() -> None:
            self._headers, self._field, self._value = {}, b"", b""

        def field(data: bytes, start: int, end: int) -> None:
            self._field += data[start:end]

        def value(data: bytes, start: int, end: int) -> None:
            self._value += data[start:end]

        def header() -> None:
            self._headers[self._field.lower()] = self._value
            self._field, self._value = b"", b""

        def headers() -> None:
            _, options = options_of(self._headers.get(b"content-disposition", b""))
            field_name = options.get(b"name", b"").decode("utf-8", "replace")
            if (name := options.get(b"filename")) is not None:
                self._open(name.decode("utf-8", "replace"))
            else:
                self._name, self._text = field_name, b""

        def data(data: bytes, start: int, end: int) -> None:
            if self._file is not None:
                self._write(memoryview(data)[start:end])
            elif len(self._text) + end - start > _LONGEST_FIELD:
                raise Problem(413, f"{self._name}: more than {_LONGEST_FIELD:,} bytes; only files may be larger")
            else:
                self._text += data[start:end]

        def part() -> None:
            if self._file is None:
                self.fields[self._name] = self._text.decode("utf-8", "replace")
            self.close()

        return {
            "on_part_begin": begin,
            "on_header_field": field,
            "on_header_value": value,
            "on_header_end": header,
            "on_headers_finished": headers,
            "on_part_data": data,
            "on_part_end": part,
            "on_end": self._end,
        }

    def _open(self, name: str) -> None:
        safe = safe_name(name)
        if safe in self.names:
            raise Problem(422, f"files: two are named {safe}")
        self._file = os.open(self.folder / safe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        self.names.append(safe)

    def _write(self, data: memoryview) -> None:
        assert self._file is not None
        self.size += len(data)
        if self.size > self.largest:
            raise _too_large(self.largest)
        while data:
            data = data[os.write(self._file, data) :]

    def _end(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


async def append(part: Part, request: Request, largest: int) -> int:
    """Add a piece to a file at its `Upload-Offset` (0 where there is none); the size then.

    Raises Problem 409 for a piece that does not begin where the last one ended: `Upload-Offset` says where.
    """
    given = request.headers.get("upload-offset", "0")
    offset, size = int(given) if given.isdigit() else -1, part.size
    if offset != size:
        there = f"{part.name} has {size:,} bytes: the next piece begins there, not at {given}"
        raise Problem(409, there, **{"Upload-Offset": str(size)})

    async def pieces() -> AsyncIterator[bytes]:
        arrived = size
        async for chunk in request.stream():
            arrived += len(chunk)
            if arrived > largest:
                raise _too_large(largest)
            yield chunk

    try:
        await part.append(pieces(), run_in_threadpool)
    except ClientDisconnect:
        raise Problem(400, "the piece broke off: HEAD says how far it came") from None
    return part.size


class Folder:
    """A folder that files are uploaded to, plain for those who read them; gone when closed, and when we are killed."""

    def __init__(self, uploads: Path) -> None:
        uploads.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._held = contextlib.ExitStack()
        self.path = self._held.enter_context(files.plain_folder(uploads))

    def close(self) -> None:
        """Remove it with what is in it."""
        self._held.close()


def _too_large(largest: int) -> Problem:
    return Problem(413, f"more than the {largest:,} bytes of limits.max_upload_bytes: split the dataset, or raise it")
