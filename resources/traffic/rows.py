"""What the catalog takes of each entry of a spool: read, with personal data masked and names replaced."""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from resources.traffic.completions import read_answer
from resources.traffic.context import masked
from resources.traffic.entries import Embedded, Entry, Exposure, Rating, Refusal, ShadowAnswer

Row = dict[str, Any]


class Rows:
    """Makes rows of entries. `mask` replaces personal data in a text; `salt_of` looks up, by the id of a request, what
    names of its endpoint's users are hashed with, None where nobody knows."""

    def __init__(self, mask: Callable[[str], str], salt_of: Callable[[str], str | None]) -> None:
        self.mask = mask
        self._salt_of = salt_of
        # A user comes again and again; looking for personal data in the same name each time would cost the most.
        self.pseudonym = lru_cache(maxsize=20_000)(self._pseudonym)
        self._origin = lru_cache(maxsize=20_000)(origin_of)
        # Instructions, tools and earlier turns come with every request of a conversation.
        self._mask_part = lru_cache(maxsize=1000)(mask)

    def of(self, entry: Entry, worker: str, salts: dict[str, str]) -> tuple[str, Row]:
        """The kind of an entry, and what the catalog takes of it."""
        if isinstance(entry, Exposure):
            return "exposures", self._exposure(entry)
        if isinstance(entry, Rating):
            return "ratings", self.rating(entry, salts.get(entry.request_id))
        if isinstance(entry, Refusal):
            return "refusals", refusal_row(entry, worker)
        if isinstance(entry, Embedded):
            return "embedded", embedded_row(entry, worker)
        return "shadows", self._shadow(entry)

    def _shadow(self, entry: ShadowAnswer) -> Row:
        completion = read_answer(entry.body, False)
        values = ("request_id", "at", "endpoint", "candidate", "model_ref", "status", "latency_ms")
        return {name: getattr(entry, name) for name in values} | {
            "response": self._masked(completion.text) if entry.consent is not False else None,
            "error": self._masked(entry.error),
            "completion_tokens": completion.completion_tokens,
            "finish_reason": completion.finish_reason,
        }

    def _exposure(self, entry: Exposure) -> Row:
        completion = read_answer(entry.body, entry.streamed)
        # The status of a stream is sent before its first token; what fails later stands in the stream.
        failed_later = entry.streamed and entry.status == 200 and completion.error is not None
        # Who refused is counted; the words are not kept.
        may_keep = entry.consent is not False
        return {
            "request_id": entry.request_id,
            "at": entry.at,
            "endpoint": entry.endpoint,
            "experiment": entry.experiment,
            "phase": entry.phase,
            "variant": entry.variant,
            "backend": entry.backend,
            "model_ref": entry.model_ref,
            "user": self.pseudonym(entry.user, entry.salt),
            "origin": None if entry.address is None else self._origin(entry.address, entry.salt),
            "session": None if entry.session is None else self.pseudonym(entry.session, entry.salt),
            "query": self._masked(entry.query) if may_keep else None,
            "turns": entry.turns,
            "context": masked(entry.context, self._mask_part) if may_keep and entry.context is not None else None,
            "response": self._masked(completion.text) if may_keep and not entry.is_cut else None,
            "status": 502 if failed_later else entry.status,
            "error": self._masked(entry.error or completion.error),
            "latency_ms": entry.latency_ms,
            "ttft_ms": entry.ttft_ms,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "finish_reason": completion.finish_reason,
            "source": entry.source,
            "prompt_version": entry.prompt_version,
            "verdicts": entry.verdicts,
            "retrieved": entry.retrieved,
            "consent": entry.consent,
            "used": None if entry.used is None else msgspec.structs.asdict(entry.used),
        }

    def rating(self, entry: Rating, salt: str | None = None) -> Row:
        """A rating as the catalog has it, its texts masked; `salt` is the answer's, where the rating has none."""
        salt = entry.salt if entry.salt is not None else salt
        if salt is None and entry.user is not None:
            # The catalog was away, so that the gateway could not look up which endpoint had answered.
            salt = self._salt_of(entry.request_id) or ""
        return {
            "request_id": entry.request_id,
            "at": entry.at,
            "user": None if entry.user is None else self.pseudonym(entry.user, salt or ""),
            "rating": entry.rating,
            "comment": self._masked(entry.comment),
            "correction": self._masked(entry.correction),
            "scores": None
            if entry.scores is None
            else {self.mask(name): score for name, score in entry.scores.items()},
            "event": entry.event,
        }

    def _masked(self, text: str | None) -> str | None:
        return None if text is None else self.mask(text)

    def _pseudonym(self, user: str, salt: str) -> str:
        """`user` as it is, or a keyed hash of it where it holds personal data (an address used as a name)."""
        if self.mask(user) == user:
            return user
        digest = hashlib.sha256(f"{salt}:{user}".encode("utf-8", "surrogatepass")).hexdigest()
        return f"id-{digest[:16]}"


def origin_of(address: str, salt: str) -> str:
    """What stands for an address, of which the log keeps none: the same for the same one of an endpoint."""
    return f"from-{hashlib.sha256(f'{salt}:address:{address}'.encode()).hexdigest()[:16]}"


def refusal_row(entry: Refusal, worker: str) -> Row:
    """A refusal as the catalog takes it. Sums of one worker, minute and kind share a row."""
    row = {name: getattr(entry, name) for name in ("at", "endpoint", "key", "reason", "status", "requests")}
    row |= {"id": entry.request_id, "team": entry.team, "is_sum": entry.is_sum}
    if entry.is_sum:
        kind = (entry.at.isoformat(), entry.endpoint, entry.key, entry.team, entry.reason, str(entry.status))
        row["id"] = _of_minute(worker, *kind)
    return row


def embedded_row(entry: Embedded, worker: str) -> Row:
    """What embeddings used as the catalog takes it. What one worker counted in a minute, of one kind, shares a row."""
    row: Row = {name: getattr(entry, name) for name in entry.__struct_fields__ if name != "request_id"}
    return row | {
        "id": _of_minute(worker, entry.at.isoformat(), entry.endpoint, entry.model_ref, entry.key, entry.team)
    }


def _of_minute(*kind: str) -> str:
    """The id that sums of one worker, minute and kind share."""
    return f"sum-{hashlib.sha256(chr(0).join(kind).encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"
