"""Says which rows a batch is made of, by their tokens: for when one breaks the training."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


def rows_in(batch: Mapping[str, Any], ids: Sequence[str], sequences: Sequence[Sequence[int]]) -> list[str]:
    """Row ids of the rows in `batch`: `ids[i]` is that of the tokens `sequences[i]`.

    `batch` has the tensors `input_ids`, and `attention_mask` or `position_ids`. Of rows with the very same tokens the
    first is named.
    """
    known: dict[bytes, str] = {}
    for name, tokens in zip(ids, sequences, strict=True):
        known.setdefault(np.asarray(tokens, dtype=np.int64).tobytes(), name)
    found = (known.get(tokens.tobytes()) for tokens in _sequences(batch))
    return list(dict.fromkeys(name for name in found if name is not None))


def _sequences(batch: Mapping[str, Any]) -> Iterator[np.ndarray]:
    """The token sequences of a batch, without padding, and taken apart where several are packed into one."""
    tokens = batch["input_ids"].cpu().numpy().astype(np.int64)
    mask, positions = batch.get("attention_mask"), batch.get("position_ids")
    for i, row in enumerate(tokens):
        if positions is not None:
            place = positions.cpu().numpy()[min(i, len(positions) - 1)]
            yield from np.split(row, np.flatnonzero(place == 0)[1:])
        else:
            yield row if mask is None else row[mask[i].cpu().numpy().astype(bool)]
