"""Seals files at rest: AES-256-GCM envelopes that name their key, so that keys can be changed one file at a time.

An envelope is a header (magic and version, 8 bytes; id of the key, 8; salt, 16) and frames of 1 MiB of plain bytes,
each with a tag of 16 bytes. Every file has a key of its own, derived with HKDF-SHA256 from the key at hand and the
salt, so nonces count the frames from zero and never meet; a nonce also says whether its frame is the last, so a file
that was cut off, or whose frames were put in another order, does not open. Google's Tink streams in the same way.
"""

import base64
import hashlib
import io
import os
import secrets
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from llmops_assets.specs.settings import Settings

MAGIC = b"\x93LLMOPS\x01"
KEY_BYTES = 32
FRAME = 1 << 20
"""Plain bytes of a frame: what is held in memory, and what must be read to reach one byte."""

VARIABLE = "LLMOPS_ENCRYPTION_KEY"
_SALT = 16
_TAG = 16
HEADER = len(MAGIC) + 8 + _SALT
_HOW = f"set {VARIABLE} or {VARIABLE}_FILE (`llmops keys new` makes a key)"


class EncryptionError(RuntimeError):
    """A key is missing, wrong or malformed, or sealed bytes were altered. Never holds a key or plain bytes."""


class Keyring:
    """Keys of 32 bytes: the first seals, all of them open. Without a key nothing is sealed and plain bytes pass."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        for key in keys:
            if len(key) != KEY_BYTES:
                raise EncryptionError(f"an encryption key has {KEY_BYTES} bytes, not {len(key)}: {_HOW}")
        self._by_id = {key_id(key): key for key in keys}
        self._ids = tuple(self._by_id)

    def __repr__(self) -> str:
        return f"Keyring({', '.join(i.hex() for i in self._ids) or 'no keys'})"

    def __bool__(self) -> bool:
        return bool(self._by_id)

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Keys as text, separated by commas or white space: 64 hexadecimal digits or base64 of 32 bytes each."""
        return cls([_decode(word, number) for number, word in enumerate(text.replace(",", " ").split(), start=1)])

    @classmethod
    def load(cls, text: str | None, file: Path | None) -> "Keyring":
        """The keys of the settings: those given as text first, then those in the file."""
        found = text or ""
        if file is not None:
            try:
                found += "\n" + file.expanduser().read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise EncryptionError(f"the key file {file} cannot be read ({error.__class__.__name__})") from error
            if not found.split():
                raise EncryptionError(f"the key file {file} is empty: `llmops keys new --out {file}` writes one")
        return cls.parse(found)

    @classmethod
    def of_settings(cls, settings: "Settings") -> "Keyring":
        """The keys of an installation."""
        key = settings.encryption_key
        return cls.load(key.get_secret_value() if key else None, settings.encryption_key_file)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Keyring":
        """The keys in the environment, as `environment()` of another process put them there."""
        file = environment.get(f"{VARIABLE}_FILE")
        return cls.load(environment.get(VARIABLE), Path(file) if file else None)

    def environment(self) -> dict[str, str]:
        """What a worker's environment must hold to read and write what this process does."""
        return {VARIABLE: ",".join(key.hex() for key in self._by_id.values())} if self else {}

    def and_to_open(self, key: bytes) -> "Keyring":
        """These keys and one behind them, which seals only where there is no other."""
        return Keyring([*self._by_id.values(), key])

    @property
    def ids(self) -> list[str]:
        """Ids of the keys, 16 hexadecimal digits each, the sealing one first. An id tells nothing of its key."""
        return [i.hex() for i in self._ids]

    # whole files in memory

    def seal(self, data: bytes) -> bytes:
        """`data` in an envelope under the first key; as it is when there is no key."""
        if not self:
            return data
        return b"".join(self._sealed([data[at : at + FRAME] for at in range(0, len(data), FRAME)] or [b""]))

    def open(self, data: bytes, what: object = "the file") -> bytes:
        """What is in an envelope. Bytes that are in none are given back as they are: older files were not sealed."""
        if not is_sealed(data):
            return data
        with self.reader(io.BytesIO(data), what) as stream:
            return stream.read()

    # files of any size

    def copy_sealed(self, source: BinaryIO, target: BinaryIO) -> str:
        """Copy a stream into an envelope (or as it is, without a key); the SHA-256 of the plain bytes."""
        digest = hashlib.sha256()

        def frames() -> Iterator[bytes]:
            following = _fill(source)
            while True:
                frame, following = following, _fill(source)
                digest.update(frame)
                yield frame
                if not following:
                    return

        for piece in self._sealed(frames()) if self else frames():
            target.write(piece)
        return digest.hexdigest()

    def reader(self, stream: BinaryIO, what: object = "the file") -> BinaryIO:
        """The plain bytes of a stream, sealed or not; seekable when the stream is. Closing it closes the stream."""
        head = stream.read(HEADER)
        if not is_sealed(head):
            if not stream.seekable():
                raise EncryptionError(f"{what} is not sealed and cannot be read twice: download it first")
            stream.seek(0)
            return stream
        if len(head) < HEADER:
            raise EncryptionError(f"{what} was cut off: restore it from a backup")
        identity = head[len(MAGIC) : len(MAGIC) + 8]
        if identity not in self._by_id:
            have = f"the keys here are {', '.join(self.ids)}" if self else "there is no key here"
            have += f": set {VARIABLE} or {VARIABLE}_FILE to that one (and to the newer before it) where this was read"
            raise EncryptionError(f"{what} is sealed with key {identity.hex()}; {have}")
        return io.BufferedReader(_Unsealed(stream, _cipher(self._by_id[identity], head), head, what), FRAME)

    def _sealed(self, frames: Iterator[bytes] | Sequence[bytes]) -> Iterator[bytes]:
        identity = self._ids[0]
        head = MAGIC + identity + secrets.token_bytes(_SALT)
        cipher = _cipher(self._by_id[identity], head)
        yield head
        frames = iter(frames)
        number, following = 0, next(frames)
        while following is not None:
            frame, following = following, next(frames, None)
            yield cipher.encrypt(_nonce(number, following is None), frame, head)
            number += 1


NO_KEYS = Keyring()


def new_key() -> str:
    """A fresh key, as text for the settings."""
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def key_id(key: bytes) -> bytes:
    """8 bytes that name a key."""
    return hashlib.sha256(b"llmops key id\0" + key).digest()[:8]


def is_sealed(data: bytes) -> bool:
    """Whether bytes begin like an envelope."""
    return data.startswith(MAGIC)


def _decode(word: str, number: int) -> bytes:
    """A key given as text. The error names its place only: what was given may be nearly the key."""
    try:
        key = bytes.fromhex(word) if len(word) == 2 * KEY_BYTES else base64.b64decode(word, validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise EncryptionError(
            f"encryption key {number} is not {KEY_BYTES} bytes in base64 or as {2 * KEY_BYTES} hexadecimal digits: "
            "`llmops keys new` makes one"
        )
    return key


def _cipher(key: bytes, head: bytes) -> AESGCM:
    salt = head[len(MAGIC) + 8 :]
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt, b"llmops file").derive(key))


def _nonce(number: int, last: bool) -> bytes:
    return struct.pack(">IQ", last, number)


def _fill(stream: BinaryIO) -> bytes:
    """The next FRAME bytes; fewer only at the end."""
    data = stream.read(FRAME)
    while data and len(data) < FRAME and (more := stream.read(FRAME - len(data))):
        data += more
    return data


class _Unsealed(io.RawIOBase):
    """The plain bytes of an envelope, frame by frame."""

    def __init__(self, stream: BinaryIO, cipher: AESGCM, head: bytes, what: object) -> None:
        self._stream, self._cipher, self._head, self._what = stream, cipher, head, what
        self._seekable = stream.seekable()
        self._position = 0
        self._number, self._frame = -1, b""
        # What follows tells whether a frame is the last one, also where a stream cannot say how long it is.
        self._following = self._next()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            at = self._stream.tell()
            sealed = self._stream.seek(0, io.SEEK_END) - HEADER
            self._stream.seek(at)
            size = sealed - _TAG * -(-sealed // (FRAME + _TAG))
            offset += size
        elif whence == io.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        number, inside = divmod(self._position, FRAME)
        if number != self._number and not self._load(number):
            return 0
        data = self._frame[inside : inside + len(target)]
        target[: len(data)] = data
        self._position += len(data)
        if not data and self._following and len(self._frame) == FRAME:
            return self.readinto(buffer)
        return len(data)

    def _load(self, number: int) -> bool:
        if number != self._number + 1:
            self._stream.seek(HEADER + number * (FRAME + _TAG))
            self._following = self._next()
        sealed, self._following = self._following, b""
        if not sealed:
            if number == 0:
                raise EncryptionError(f"{self._what} was cut off: restore it from a backup")
            self._number, self._frame = -2, b""
            return False
        self._following = self._next()
        try:
            self._frame = self._cipher.decrypt(_nonce(number, not self._following), sealed, self._head)
        except InvalidTag:
            raise EncryptionError(f"{self._what} was altered or cut off: restore it from a backup") from None
        self._number = number
        return True

    def _next(self) -> bytes:
        wanted = FRAME + _TAG
        data = self._stream.read(wanted)
        while data and len(data) < wanted and (more := self._stream.read(wanted - len(data))):
            data += more
        return data

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
