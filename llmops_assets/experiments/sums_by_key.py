"""Sums under 64-bit keys, to which pieces are added: memory grows with the keys, and not with the rows."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

How = Literal["sum", "min", "max", "first"]
_FIRST_SIZE = 2**14
_UFUNCS: Mapping[How, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


class SumsByKey:
    """A row a key. `how` says of each column how two rows of a key become one; min and max heed no null."""

    def __init__(self, how: Mapping[str, How]) -> None:
        self.how = dict(how)
        self._count = 0
        self._columns: dict[str, NDArray[Any]] = {}
        # Keys in order, and where the row of each is: rows stay where they are, only these two are sorted.
        self._keys: NDArray[np.uint64] = np.empty(0, dtype=np.uint64)
        self._places: NDArray[np.uint32] = np.empty(0, dtype=np.uint32)

    def __len__(self) -> int:
        return self._count

    def add(self, part: pl.DataFrame) -> None:
        """Add rows: `key` (UInt64, each once), and a column of integers, floats or times for each of `how`."""
        part = part.sort("key")
        keys = part["key"].to_numpy()
        at = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), dtype=bool)
        inside = at < len(self._keys)
        known[inside] = self._keys[at[inside]] == keys[inside]
        new = np.flatnonzero(~known)
        places = np.empty(len(keys), dtype=np.uint32)
        places[known] = self._places[at[known]]
        places[new] = np.arange(self._count, self._count + len(new))
        self._grow(part, self._count + len(new))
        for name, how in self.how.items():
            column, values = self._columns[name], _plain(part[name], how)
            column[places[new]] = values[new]
            if how != "first":
                met = places[known]
                # Each key is there once in a piece, so no place is met twice.
                column[met] = _UFUNCS[how](column[met], values[known])
        if len(new):
            self._keys = np.insert(self._keys, at[new], keys[new])
            self._places = np.insert(self._places, at[new], places[new])
        self._count += len(new)

    def frame(self, schema: Mapping[str, Any]) -> pl.DataFrame:
        """The sums, in the order in which keys came; `schema` has the types of the columns."""
        found = {}
        for name, how in self.how.items():
            column = pl.Series(name, self._columns.pop(name)[: self._count])
            if isinstance(schema[name], pl.Datetime):
                none = _none(np.int64, how)
                column = pl.select(pl.when(column != none).then(column)).to_series().alias(name)
            found[name] = column.cast(schema[name])
        return pl.DataFrame(found)

    def _grow(self, part: pl.DataFrame, needed: int) -> None:
        for name, how in self.how.items():
            if name not in self._columns:
                self._columns[name] = np.empty(max(needed, _FIRST_SIZE), dtype=_plain(part[name].clear(), how).dtype)
            elif needed > len(self._columns[name]):
                size = max(needed, len(self._columns[name]) * 3 // 2)
                self._columns[name].resize(size, refcheck=False)


def _plain(column: pl.Series, how: How) -> NDArray[Any]:
    """A column as numbers without nulls."""
    if isinstance(column.dtype, pl.Datetime):
        column = column.cast(pl.Int64)
        return column.fill_null(_none(np.int64, how)).to_numpy()
    return column.fill_null(0).to_numpy()


def _none(dtype: Any, how: How) -> int:
    """What stands for a null: no minimum or maximum heeds it."""
    return int(np.iinfo(dtype).min if how == "max" else np.iinfo(dtype).max)
