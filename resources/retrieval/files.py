"""The files of one version of an index: written once, sealed at rest, and checked against their hashes when read."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from llmops_assets.records.base import PATHS
from llmops_assets.records.retrieval import IndexEncoder, IndexFacts
from llmops_assets.specs.canonical import canonical_json
from resources import files
from resources.encryption import NO_KEYS, EncryptionError, Keyring
from resources.retrieval.bm25 import SparseRows, description
from resources.stored_paths import StoredPaths

FACTS, PASSAGES, VECTORS, SPARSE = "index.json", "passages.parquet", "vectors.safetensors", "sparse.safetensors"
FORMAT = 1
COLUMNS: dict[str, Any] = {
    "id": pl.String,
    "text": pl.String,
    "document": pl.String,
    "page": pl.Int64,
    "start": pl.Int64,
    "end": pl.Int64,
    "heading": pl.String,
    "rows": pl.List(pl.String),
    "sources": pl.List(pl.String),
}
"""A passage each: `rows` are the dataset's rows that it came from, `sources` the hashes of its texts before masking."""


class IndexCorrupt(RuntimeError):
    """The files of an index are not what was written; the message names the file and says what to do."""


@dataclass(frozen=True)
class PassageIndex:
    """What is searched: passages, a unit vector each (float32, passages × dimensions), and their sparse vectors."""

    facts: IndexFacts
    passages: pl.DataFrame
    vectors: NDArray[np.float32]
    sparse: SparseRows


def version_of(passages: pl.DataFrame, dataset: str, encoder: IndexEncoder, sparse: str) -> str:
    """16 hex digits over all that decides an index: its passages in order, their dataset, the encoder, the settings."""
    head = {
        "format": FORMAT,
        "dataset": dataset,
        "encoder": encoder.content_hash,
        "prompts": [encoder.query_prompt, encoder.passage_prompt],
        "sparse": sparse,
    }
    digest = hashlib.sha256(canonical_json(head).encode())
    for row in passages.select(list(COLUMNS)).iter_rows():
        digest.update(json.dumps(row, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


def write(
    folder: Path,
    passages: pl.DataFrame,
    vectors: NDArray[np.float32],
    sparse: SparseRows,
    *,
    dataset: str,
    recipe: str,
    encoder: IndexEncoder,
    keys: Keyring,
    paths: StoredPaths,
    reduced_by: int | None = None,
) -> PassageIndex:
    """Write an index to `folder`, its facts last: a folder without them is half an index, and written again."""
    if not len(vectors) == passages.height == len(sparse):
        raise ValueError(f"{passages.height} passages, {len(vectors)} vectors and {len(sparse)} sparse vectors")
    passages = passages.select(list(COLUMNS))
    buffer = io.BytesIO()
    passages.write_parquet(buffer, compression="zstd")
    data = {
        PASSAGES: buffer.getvalue(),
        VECTORS: save({"vectors": np.ascontiguousarray(vectors)}),
        SPARSE: save({"starts": sparse.starts, "terms": sparse.terms, "weights": sparse.weights}),
    }
    facts = IndexFacts(
        version=version_of(passages, dataset, encoder, description()),
        dataset=dataset,
        recipe=recipe,
        encoder=encoder,
        passages=passages.height,
        dimensions=int(vectors.shape[1]),
        sparse=description(),
        average_terms=sparse.average_terms,
        files={name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
        reduced_by=reduced_by,
    )
    for name, content in data.items():
        files.write_bytes(folder / name, keys.seal(content))
    files.write_bytes(folder / FACTS, keys.seal(facts.model_dump_json(indent=1, context={PATHS: paths}).encode()))
    return PassageIndex(facts, passages, vectors, sparse)


def read_facts(folder: Path, keys: Keyring = NO_KEYS, paths: StoredPaths | None = None) -> IndexFacts:
    """What an index is, without its passages; IndexCorrupt where that cannot be read."""
    path = folder / FACTS
    try:
        data = keys.open(path.read_bytes(), path)
        return IndexFacts.model_validate_json(data, context={PATHS: paths} if paths else None)
    except FileNotFoundError as error:
        raise IndexCorrupt(f"the index in {folder} is not there, or half written: build it again") from error
    except (OSError, EncryptionError, ValidationError) as error:
        raise IndexCorrupt(f"{path} cannot be read ({type(error).__name__}: {error}): build the index again") from error


def read(folder: Path, keys: Keyring = NO_KEYS, paths: StoredPaths | None = None) -> PassageIndex:
    """An index with all of it in memory; IndexCorrupt where a file is not what was written."""
    facts = read_facts(folder, keys, paths)
    data: dict[str, bytes] = {}
    for name, digest in facts.files.items():
        try:
            data[name] = keys.open((folder / name).read_bytes(), folder / name)
        except (OSError, EncryptionError) as error:
            raise IndexCorrupt(f"{folder / name} cannot be read ({error}): build the index again") from error
        if hashlib.sha256(data[name]).hexdigest() != digest:
            raise IndexCorrupt(f"{folder / name} was changed since it was written: build the index again")
    try:
        passages = pl.read_parquet(io.BytesIO(data[PASSAGES]))
        vectors, arrays = load(data[VECTORS])["vectors"], load(data[SPARSE])
        sparse = SparseRows(arrays["starts"], arrays["terms"], arrays["weights"], facts.average_terms)
    except (KeyError, SafetensorError, pl.exceptions.PolarsError) as error:
        raise IndexCorrupt(f"{folder} holds no index that this release reads ({error}): build it again") from error
    if version_of(passages, facts.dataset, facts.encoder, facts.sparse) != facts.version:
        raise IndexCorrupt(f"{folder} holds other passages than version {facts.version}: build the index again")
    return PassageIndex(facts, passages, vectors, sparse)


def contents(passages: pl.DataFrame) -> list[str]:
    """What of each passage is searched: its heading, where its text does not begin with it, and its text."""
    return [
        text if not heading or heading in text[: len(heading) + 8] else f"{heading}\n{text}"
        for heading, text in passages.select("heading", "text").iter_rows()
    ]


def without(index: PassageIndex, ids: Mapping[str, Any] | set[str]) -> tuple[pl.DataFrame, NDArray[np.float32]]:
    """The passages of an index without some of them, with the vectors that they had."""
    keep = ~index.passages["id"].is_in(list(ids))
    return index.passages.filter(keep), index.vectors[keep.to_numpy()]
