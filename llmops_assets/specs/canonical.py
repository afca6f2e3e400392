"""The one text of a value: what keys, digests and identities are made of."""

import hashlib
import json
from typing import Any


def canonical_json(value: Any, *, allow_nan: bool = False) -> str:
    """`value` as JSON with sorted keys, no white space and text as it is: equal values, equal text.

    Raises ValueError for NaN and infinities, which no other reader of JSON takes, unless `allow_nan`.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=allow_nan)


def digest(value: Any, digits: int = 16) -> str:
    """The first `digits` hexadecimal digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value, allow_nan=True).encode()).hexdigest()[:digits]
