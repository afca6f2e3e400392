"""Builds a version of an index: passages and questions become vectors in the worker, and the files are written."""

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors.numpy import load

from llmops_assets.records.jobs import EmbedJob, Job
from llmops_assets.records.retrieval import IndexEncoder
from resources import files
from resources.encryption import Keyring
from resources.retrieval import files as index_files
from resources.retrieval.bm25 import description, sparse_rows
from resources.retrieval.files import PassageIndex, contents, version_of
from resources.retrieval.indexes import Indexes


class Worker(Protocol):
    """The part of the trainer that is used here."""

    @property
    def keys(self) -> Keyring: ...

    def run(self, context: Any | None, job: Job, *, work_dir: Path) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Built:
    """An index, the vectors of the questions, and how it came about.

    `encoder_hash` is what the worker found the encoder to be; `reused` vectors were there before.
    """

    index: PassageIndex
    questions: NDArray[np.float32]
    encoder_hash: str
    reused: int
    seconds: dict[str, float]


def build(
    passages: pl.DataFrame,
    questions: Sequence[str],
    encoder: IndexEncoder,
    *,
    dataset: str,
    recipe: str,
    indexes: Indexes,
    worker: Worker,
    context: Any | None,
    gpus: int = 0,
) -> Built:
    """Build the version of these passages by this encoder, or find it built; one that was cut off goes on.

    The same passages and encoder are the same version. Raises ValueError without passages, TrainerError where the
    worker fails.
    """
    if not passages.height:
        raise ValueError("there is no passage to index")
    version = version_of(passages, dataset, encoder, description())
    began = time.monotonic()
    known = indexes.read(version) if indexes.is_whole(version) else None
    texts = [] if known is not None else [encoder.passage_prompt + text for text in contents(passages)]
    asked = [encoder.query_prompt + text for text in questions]
    vectors, result = embed(
        [*texts, *asked], encoder, folder=indexes.root / "work" / version, worker=worker, context=context, gpus=gpus
    )
    embedded = time.monotonic()
    if known is None:
        known = index_files.write(
            indexes.folder(version),
            passages,
            vectors[: len(texts)],
            sparse_rows(contents(passages)),
            dataset=dataset,
            recipe=recipe,
            encoder=encoder,
            keys=indexes.keys,
            paths=indexes.paths,
        )
    shutil.rmtree(indexes.root / "work" / version, ignore_errors=True)
    return Built(
        known,
        vectors[len(texts) :],
        result.get("encoder", encoder.content_hash),
        known.passages.height if not texts else min(result["reused"], len(texts)),
        {"embedding": embedded - began, "writing": time.monotonic() - embedded},
    )


def embed(
    texts: Sequence[str], encoder: IndexEncoder, *, folder: Path, worker: Worker, context: Any | None, gpus: int = 0
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """The unit vectors of texts by an encoder, in a process of the worker, and its result; no texts need no process."""
    if not texts:
        return np.zeros((0, 0), dtype=np.float32), {"reused": 0}
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"id": str(n), "text": text}, ensure_ascii=False) + "\n" for n, text in enumerate(texts))
    given, output = folder / "texts.jsonl", folder / f"{hashlib.sha256(lines.encode()).hexdigest()[:16]}.safetensors"
    files.write_bytes(given, worker.keys.seal(lines.encode()), durable=False)
    job = EmbedJob(model_dir=encoder.path, texts_file=str(given), output_file=str(output), gpus=gpus)
    result = worker.run(context, job, work_dir=folder)
    vectors = load(worker.keys.open(output.read_bytes(), output))["vectors"]
    if len(vectors) != len(texts):
        raise ValueError(f"the worker gave {len(vectors)} vectors of {len(texts)} texts")
    return vectors, result
