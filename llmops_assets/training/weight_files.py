"""Looks at the weights in a model folder without loading them: shards whole and listed, numbers finite, types known."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_CHUNK = 1 << 24
"""Numbers that are looked at in one piece."""
_LARGEST_HEADER = 100_000_000
"""Bytes that the format allows for a header."""
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
LARGEST = 1e9
"""Beyond this no weight of a model is: sums of its products would leave the range of half precision at once."""
_LARGEST_BF16 = int(np.float32(LARGEST).view(np.uint32) >> 16)
"""The same as the bits of a bfloat16, whose order without the sign is that of the numbers."""
FLOATS = ("F64", "F32", "F16", "BF16")
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies: `start` and `end` are bytes of `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class WeightFiles:
    """The tensors of a folder by name, and what is wrong with its files."""

    tensors: dict[str, Tensor]
    faults: list[str]


def read(folder: Path) -> WeightFiles:
    """The tensors of the safetensors files in `folder`, by their headers, held against the index where there is one."""
    tensors: dict[str, Tensor] = {}
    faults: list[str] = []
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            found = header(file)
        except ValueError as error:
            faults.append(f"{file.name} is not whole: {error}. Copy it again")
            continue
        faults += [f"tensor {name} stands in {tensors[name].file.name} and in {file.name}: remove one of them"
                   for name in found if name in tensors]  # fmt: skip
        tensors |= found
    index = folder / INDEX
    if index.is_file():
        faults += _against_index(index, files, tensors)
    elif len(files) > 1:
        faults.append(f"there are {len(files)} files of weights and no {INDEX} that says what is in which: copy it too")
    return WeightFiles(tensors, faults)


def _against_index(index: Path, files: list[Path], tensors: dict[str, Tensor]) -> list[str]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = set(placed.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{index.name} cannot be read: {error!r}. Copy it again"]
    there = {file.name for file in files}
    faults = [f"{name} is missing, which {index.name} names: copy it too" for name in sorted(names - there)]
    faults += [f"{name} stands in no index: it is of another model. Remove it" for name in sorted(there - names)]
    lost = [
        name
        for name, file in placed.items()
        if file in there and (name not in tensors or tensors[name].file.name != file)
    ]
    if lost and not faults:
        faults.append(f"{index.name} places {_few(lost)} where it is not: copy the folder again")
    return faults


def header(file: Path) -> dict[str, Tensor]:
    """The tensors of one safetensors file; ValueError says what is wrong with it."""
    size = file.stat().st_size
    with open(file, "rb") as opened:
        first = opened.read(8)
        length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
        if not 2 <= length <= min(_LARGEST_HEADER, size - 8):
            raise ValueError(f"it has {size} bytes, which are no safetensors file")
        try:
            entries: dict[str, Any] = json.loads(opened.read(length))
        except ValueError as error:
            raise ValueError("its header is no JSON") from error
    begin, end, found = 8 + length, 8 + length, {}
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")
    entries.pop("__metadata__", None)
    try:
        ordered = sorted(entries.items(), key=lambda item: item[1]["data_offsets"])
        for name, entry in ordered:
            start, stop = (begin + int(offset) for offset in entry["data_offsets"])
            shape = tuple(int(length) for length in entry["shape"])
            wanted = int(np.prod(shape, dtype=np.int64)) * _BYTES[entry["dtype"]]
            if start != end or stop - start != wanted:
                raise ValueError(f"its tensor {name} of shape {shape} takes {stop - start} bytes instead of {wanted}")
            found[name], end = Tensor(name, file, entry["dtype"], shape, start, stop), stop
    except (KeyError, TypeError) as error:
        raise ValueError(f"its header is not that of a safetensors file: {error!r}") from error
    if end != size:
        raise ValueError(
            f"it has {size} bytes instead of {end}: {'it was cut' if end > size else 'something was added'}"
        )
    return found


def numbers(tensor: Tensor) -> np.ndarray:
    """The values of a tensor as they lie on the disk, flat; types that numpy lacks as unsigned integers."""
    kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2"}
    dtype = np.dtype(kinds.get(tensor.dtype, "u1"))
    count = (tensor.end - tensor.start) // dtype.itemsize
    return np.memmap(tensor.file, dtype=dtype, mode="r", offset=tensor.start, shape=(count,)) if count else np.empty(0)


def not_finite(tensor: Tensor) -> int:
    """How many values of a tensor are NaN, infinite, or larger than those of any model are."""
    if tensor.dtype not in (*FLOATS, "F8_E4M3", "F8_E5M2"):
        return 0
    values, count = numbers(tensor), 0
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        if tensor.dtype == "BF16":
            bad = (part & 0x7FFF) >= _LARGEST_BF16
        elif tensor.dtype == "F8_E4M3":
            bad = (part & 0x7F) == 0x7F
        elif tensor.dtype == "F8_E5M2":
            bad = (part & 0x7C) == 0x7C
        else:
            # NaN is not smaller either. Of sixteen bits none is so large.
            bad = ~np.isfinite(part) if tensor.dtype == "F16" else ~(np.abs(part) < LARGEST)
        count += int(np.count_nonzero(bad))
    return count


def not_finite_faults(tensors: dict[str, Tensor]) -> list[str]:
    """Which tensors hold what is no number; none where all is finite."""
    counts = {name: count for name, tensor in tensors.items() if (count := not_finite(tensor))}
    if not counts:
        return []
    return [
        f"{sum(counts.values())} values of {_few(list(counts))} are no numbers (NaN or infinite, or beyond "
        f"{LARGEST:.0e}): the model is damaged, or was trained so. Copy it again, or choose another"
    ]


def _few(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(sorted(names)[:most])}{more}"
