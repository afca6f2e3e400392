"""What a RAG endpoint needs beside its model: an index that can be searched, asked as the reader was trained."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.deployment import DeploymentSpec, RagServing
from resources import content
from resources.backends.protocol import RETRIEVER, new_backend
from resources.catalog import Backend
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import IndexCorrupt, Indexes, UnknownIndex


def refusals(spec: DeploymentSpec, model: RegisteredModelRecord, indexes: Callable[[], Indexes]) -> list[str]:
    """Why the model cannot answer from the index that `spec` names; none for an endpoint without retrieval."""
    if spec.rag is None:
        return []
    reasons = _of_index(spec.rag, indexes()) + _of_reader(spec.rag, Path(model.path))
    reranker = spec.rag.reranker
    if reranker is not None and not (Path(reranker) / "config.json").is_file():
        reasons.append(f"rag.reranker: {reranker} holds no config.json: it is no model folder")
    return reasons


def _of_index(rag: RagServing, indexes: Indexes) -> list[str]:
    try:
        facts = indexes.facts(indexes.version(rag.index))
        content.verify(
            facts.encoder.path,
            facts.encoder.content_hash,
            f"used to build the index {rag.index} ({facts.encoder.ref})",
            "Restore it, or build the index again",
        )
    except (UnknownIndex, IndexCorrupt, EngineUnavailable, content.ContentChanged) as error:
        return [f"rag.index: {error}"]
    return []


def _of_reader(rag: RagServing, folder: Path) -> list[str]:
    """How the reader was asked in its training and evaluation, where it was trained as one, against how it would be."""
    trained = folder / "rag.json"
    if not trained.is_file():
        return []
    known = json.loads(trained.read_text(encoding="utf-8"))
    reasons = []
    if known.get("template", rag.template) != rag.template:
        reasons.append(
            f"rag.template is another than the reader was trained and evaluated with: write {known['template']!r}"
        )
    most = known.get("passages", rag.top_k)
    if rag.top_k > most:
        reasons.append(f"rag.top_k is {rag.top_k}, and the reader was trained and evaluated with {most} passages")
    return reasons


def retriever_id(endpoint: str, rag: RagServing, model_path: str) -> str:
    """The id of an endpoint's retriever: the same for what it is started with."""
    parts = [rag.index, rag.reranker, model_path]
    return f"{endpoint}-retriever-{hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:8]}"


def retriever(endpoint: str, rag: RagServing, model_ref: str, model_path: str) -> Backend:
    """The server that finds passages for a model, to be started.

    It loads the encoder that the index names, whichever that will be; of the model it has the tokenizer, which counts.
    """
    given = {"index": rag.index, "reranker": rag.reranker, "tokenizer": model_path}
    return new_backend(
        retriever_id(endpoint, rag, model_path),
        endpoint=endpoint,
        model_ref=model_ref,
        model_path=model_path,
        engine=RETRIEVER,
        runtime={name: value for name, value in given.items() if value is not None},
    )
