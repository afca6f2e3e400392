"""What the gateway writes into its spool: what users asked, got, rated and were refused, personal data and all."""

from datetime import UTC, datetime

import msgspec


class Usage(msgspec.Struct, omit_defaults=True):
    """What a request used, and whose it was: `key` is the id of an API key, or `sub:` and the subject of a token.

    estimated: these tokens no model server counted.
    """

    key: str = ""
    team: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False


class Exposure(msgspec.Struct, tag="exposure", omit_defaults=True):
    """One request, as its handler saw it; `body` holds the answer's bytes, which only the shipper parses.

    source: `model`, `cache`, or `fallback` where another model than the assigned one gave the answer; verdicts: of
    guards, as JSON; consent: whether the user agreed to the use of the texts, None where nobody asked; retrieved:
    what an index was asked for it, as JSON (index, version, ids of the passages, whether nothing was answered); used:
    for the ledger, None of what an earlier version logged; turns and context: what was sent with the question
    (`context.context_of`), None of what an earlier version logged; is_cut: of the answer there is
    the end alone; address: the client's, or its IPv6 network; times in milliseconds.
    """

    request_id: str
    at: datetime
    endpoint: str
    salt: str
    experiment: str | None
    phase: int
    variant: int
    backend: str
    model_ref: str
    user: str
    session: str | None
    query: str
    streamed: bool
    body: bytes = b""
    status: int = 200
    error: str | None = None
    latency_ms: float = 0.0
    ttft_ms: float | None = None
    source: str = "model"
    prompt_version: str | None = None
    verdicts: str | None = None
    consent: bool | None = None
    retrieved: str | None = None
    used: Usage | None = None
    turns: int | None = None
    context: str | None = None
    is_cut: bool = False
    address: str | None = None


class Rating(msgspec.Struct, tag="rating", omit_defaults=True):
    """What a user says of one answer; `event` names it, so that writing it twice changes nothing."""

    event: str
    request_id: str
    at: datetime
    rating: int
    salt: str | None = None
    user: str | None = None
    comment: str | None = None
    correction: str | None = None
    scores: dict[str, float] | None = None


class Refusal(msgspec.Struct, tag="refusal", omit_defaults=True):
    """A request that reached no model, or in a sum how many alike there were within a second of the minute `at`.

    `endpoint` is empty where none was known yet, `key` (as in `Usage`) where nobody was; `reason` is the code of the
    error. There is no text in it.
    """

    request_id: str
    at: datetime
    endpoint: str
    reason: str
    status: int
    key: str = ""
    team: str = ""
    requests: int = 1
    is_sum: bool = False


class ShadowAnswer(msgspec.Struct, tag="shadow", omit_defaults=True):
    """What a candidate answered to a copy of a request, whose exposure has the same id; nobody got it."""

    request_id: str
    at: datetime
    endpoint: str
    candidate: str
    model_ref: str
    body: bytes = b""
    status: int = 200
    error: str | None = None
    latency_ms: float = 0.0
    consent: bool | None = None


class Embedded(msgspec.Struct, tag="embedded", omit_defaults=True):
    """What embeddings used within a second of the minute `at`, of one caller and one model; there is no text in it.

    `failed` of the `requests` have a status of 400 or above.
    """

    at: datetime
    endpoint: str
    model_ref: str
    key: str = ""
    team: str = ""
    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    estimated_tokens: int = 0
    request_id: str = ""


Entry = Exposure | Rating | Refusal | ShadowAnswer | Embedded

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry])


def encode(entries: list[Entry]) -> bytes:
    """Entries as the bytes of one frame."""
    return _encoder.encode(entries)


def decode(data: bytes) -> list[Entry]:
    """The entries of a frame; msgspec.DecodeError where it holds none. Fields of a later version are ignored."""
    return _decoder.decode(data)


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)
