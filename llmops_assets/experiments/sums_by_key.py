"""Sums under 64-bit keys, to which rows are added piece by piece: memory grows with the keys, and not with the rows."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

How = Literal["sum", "min", "max", "first"]
_FIRST_SIZE = 2**14
_FIRST_SLOTS = 2**15
_MOST_FULL = 0.6
_NOBODY = np.iinfo(np.uint32).max
_UFUNCS: Mapping[How, np.ufunc] = {"sum": np.add, "min": np.minimum, "max": np.maximum}


class SumsByKey:
    """A row a key. `how` says of each column how two rows of a key become one; min and max heed no null.

    Keys are found in a table with open addressing: a key lies in the first slot from its own on that no other has. They
    are hashes already, so that their lowest bits spread them.
    """

    def __init__(self, how: Mapping[str, How]) -> None:
        self.how = dict(how)
        self._count = 0
        self._columns: dict[str, NDArray[Any]] = {}
        self._keys: NDArray[np.uint64] = np.empty(_FIRST_SLOTS, dtype=np.uint64)
        self._places: NDArray[np.uint32] = np.full(_FIRST_SLOTS, _NOBODY, dtype=np.uint32)

    def __len__(self) -> int:
        return self._count

    def add(self, part: pl.DataFrame) -> None:
        """Add rows: `key` (UInt64, any number of times), and a column of integers, floats or times for each of `how`.

        What is to be "first" is the same in all rows of a key.
        """
        before = self._count
        places, new = self._placed(part["key"].to_numpy())
        fresh = places[new]
        plain = part.select(_plain(part[name], how) for name, how in self.how.items())
        for name, how in self.how.items():
            values = plain[name].to_numpy()
            column = self._grown(name, values.dtype)
            # A row begins as its key's first row has it where nothing is added to that, and else as nothing.
            column[before : self._count] = 0 if how == "sum" else values[new][np.argsort(fresh)]
            if how != "first":
                _UFUNCS[how].at(column, places, values)

    def frame(self, schema: Mapping[str, Any]) -> pl.DataFrame:
        """The sums, in the order in which keys came; `schema` has the types of the columns. They are gone then."""
        self._keys, self._places = self._keys[:0], self._places[:0]
        found = {}
        for name, how in self.how.items():
            column = pl.Series(name, self._columns.pop(name)[: self._count])
            if isinstance(schema[name], pl.Datetime):
                none = _none(np.int64, how)
                column = pl.select(pl.when(column != none).then(column)).to_series().alias(name)
            found[name] = column.cast(schema[name])
        return pl.DataFrame(found)

    def _placed(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where the row of each key is, and for each key that is new the first of its rows in this piece."""
        slots = self._slots(keys)
        places = self._places[slots]
        unknown = np.flatnonzero(places == _NOBODY)
        # Written from the last to the first, so that of the rows of one key the first stays.
        self._places[slots[unknown[::-1]]] = np.arange(len(unknown), dtype=np.uint32)[::-1]
        first = unknown[self._places[slots[unknown]] == np.arange(len(unknown))]
        self._places[slots[first]] = np.arange(self._count, self._count + len(first))
        places[unknown] = self._places[slots[unknown]]
        self._count += len(first)
        return places.astype(np.intp), first

    def _slots(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        """The slot of each key; those that are new have one now, and no place."""
        most = self._count + len(keys)
        if most > _MOST_FULL * len(self._keys):
            # All may be new; usually few are, and the table is as large as those need that there are.
            most = self._count + len(np.unique(keys))
            while most > _MOST_FULL * len(self._keys):
                self._double()
        return self._claimed(keys)

    def _claimed(self, keys: NDArray[np.uint64]) -> NDArray[np.intp]:
        mask = len(self._keys) - 1
        slots = (keys & np.uint64(mask)).astype(np.intp)
        claimed: list[NDArray[np.intp]] = []
        left = np.arange(len(keys))
        while len(left):
            at = slots[left]
            free = self._places[at] == _NOBODY
            wanted = at[free]
            # Of several keys that want one slot the last has it; the others look on from there.
            self._keys[wanted] = keys[left[free]]
            self._places[wanted] = 0
            claimed.append(wanted)
            left = left[self._keys[at] != keys[left]]
            slots[left] = (slots[left] + 1) & mask
        self._places[np.concatenate(claimed) if claimed else []] = _NOBODY
        return slots

    def _double(self) -> None:
        taken = self._places != _NOBODY
        keys, places = self._keys[taken], self._places[taken]
        size = 2 * len(self._keys)
        self._keys, self._places = np.empty(size, dtype=np.uint64), np.full(size, _NOBODY, dtype=np.uint32)
        self._places[self._claimed(keys)] = places

    def _grown(self, name: str, dtype: Any) -> NDArray[Any]:
        """The column with room for all rows; what is new in it is anything."""
        if name not in self._columns:
            self._columns[name] = np.empty(max(self._count, _FIRST_SIZE), dtype=dtype)
        elif self._count > len(self._columns[name]):
            size = max(self._count, len(self._columns[name]) * 3 // 2)
            self._columns[name].resize(size, refcheck=False)
        return self._columns[name]


def _plain(column: pl.Series, how: How) -> pl.Expr:
    """A column as numbers without nulls."""
    if isinstance(column.dtype, pl.Datetime):
        return pl.col(column.name).cast(pl.Int64).fill_null(_none(np.int64, how))
    return pl.col(column.name).fill_null(0)


def _none(dtype: Any, how: How) -> int:
    """What stands for a null: no minimum or maximum heeds it."""
    return int(np.iinfo(dtype).min if how == "max" else np.iinfo(dtype).max)
