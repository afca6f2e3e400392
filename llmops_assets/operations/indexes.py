"""Indexes of passages: asking for one to be built, what there are, and searching them."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused, Unavailable
from llmops_assets.records.retrieval import RetrievalIndexRecord
from llmops_assets.specs.names import check_key, training_key
from llmops_assets.wiring import Wiring
from resources.catalog import pointers
from resources.retrieval.engine import EngineUnavailable, Mode
from resources.retrieval.indexes import IndexCorrupt, UnknownIndex

if TYPE_CHECKING:
    from llmops_assets.records.retrieval import IndexFacts

MODES: tuple[Mode, ...] = ("hybrid", "dense", "sparse")


@dataclass(frozen=True)
class WantedIndex:
    """A build that was asked for: the partition that it makes, the name that it will be searched as."""

    partition: str
    name: str
    revision: int


@dataclass(frozen=True)
class NamedIndex:
    """What a name stands for; `fault` says why it cannot be searched, and `record` is of the build, where one is."""

    name: str
    version: str
    facts: "IndexFacts | None"
    record: RetrievalIndexRecord | None
    fault: str | None


@dataclass(frozen=True)
class FoundPassage:
    """A passage that a question finds, with the score of each side."""

    id: str
    document: str
    page: int | None
    score: float
    cosine: float
    sparse: float | None
    text: str


def build_index(
    wiring: Wiring,
    actor: str,
    dataset: str,
    encoder: str,
    *,
    name: str | None = None,
    passage_chars: int | None = None,
) -> WantedIndex:
    """Want the passages of a dataset version indexed by an encoder: NAME@VERSION, DATASET|RECIPE, or a recipe.

    The graph builds it, checks it, and lets `name` (the dataset's, unless given) stand for it. Raises NotFound for an
    unknown dataset, UnknownModel for an unknown encoder, Refused for a dataset that was erased or a name that is none.
    """
    from llmops_assets.retrieval.encoder import recipe_of

    authorise(wiring, actor, "index.build")
    key = pointers.resolve(wiring.catalog, dataset)
    entry = wiring.catalog.dataset_entry(key)
    if entry.status == "erased":
        raise Refused(f"{key} was erased on a person's request: index the version that follows it")
    if passage_chars is not None and not 100 <= passage_chars <= 20000:
        raise Refused(f"--passage-chars {passage_chars}: a passage has 100 to 20,000 characters")
    try:
        recipe = check_key(recipe_of(encoder, wiring.tracking))
        name = check_key(name or entry.spec.name)
    except ValueError as error:
        raise Refused(str(error)) from error
    wiring.catalog.recipe(recipe)
    partition = training_key(key, recipe)
    # Without a name of its own the encoder is the one that this very cell trains.
    named = encoder if "@" in encoder and encoder != partition else None
    detail = {"encoder": named, "name": name, "passage_chars": passage_chars}
    revision = wiring.catalog.intents.want(
        "index", partition, actor, {k: value for k, value in detail.items() if value is not None}
    )
    return WantedIndex(partition, name, revision)


def list_indexes(wiring: Wiring) -> list[NamedIndex]:
    """Every name with what it stands for, by name."""
    built = {record.version: record for record in reversed(wiring.records.all(RetrievalIndexRecord))}
    try:
        aliases = wiring.indexes.aliases()
    except EngineUnavailable as error:
        raise Unavailable(str(error)) from error
    found = []
    for name, version in sorted(aliases.items()):
        try:
            facts, fault = wiring.indexes.facts(version), None
        except IndexCorrupt as error:
            facts, fault = None, str(error)
        found.append(NamedIndex(name, version, facts, built.get(version), fault))
    return found


def show_index(wiring: Wiring, name: str) -> NamedIndex:
    """What one name stands for; raises Refused when it stands for nothing."""
    found = next((one for one in list_indexes(wiring) if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in list_indexes(wiring)) or "none yet"
        raise Refused(f"there is no index {name!r}; known are: {known}. Build one: llmops index build")
    return found


def query_index(
    wiring: Wiring, actor: str, name: str, question: str, *, limit: int = 5, mode: Mode = "hybrid"
) -> tuple[str, list[FoundPassage]]:
    """What a question finds, as an endpoint would find it: the version that was searched, and its passages.

    The question is embedded in a process of the worker. Raises Refused for an unknown name or mode, Unavailable where
    the index or its server cannot be read.
    """
    from llmops_assets.retrieval.build import embed
    from resources.retrieval.engine import search

    authorise(wiring, actor, "index.query")
    if mode not in MODES:
        raise Refused(f"--mode {mode}: choose one of {', '.join(MODES)}")
    if not question.strip():
        raise Refused("the question is empty")
    indexes = wiring.indexes
    try:
        version = indexes.version(name)
        index = indexes.read(version)
        encoder = index.facts.encoder
        with tempfile.TemporaryDirectory(dir=_work(wiring)) as folder:
            vectors, result = embed(
                [encoder.query_prompt + question], encoder, folder=Path(folder), worker=wiring.trainer(), context=None
            )
        if result["encoder"] != encoder.content_hash:
            raise IndexCorrupt(
                f"{name} was built by an encoder of content {encoder.content_hash}, and {encoder.path} holds "
                f"{result['encoder']}: restore it, or build the index again"
            )
        engine = indexes.engine(index)
        excluded = _rows(index.passages["id"].to_list(), set(indexes.buried_in(index.passages["id"])))
        hits = search(engine, index, question, vectors[0], limit, mode=mode, excluded=excluded)
        engine.close()
    except UnknownIndex as error:
        raise Refused(str(error)) from error
    except (IndexCorrupt, EngineUnavailable) as error:
        raise Unavailable(str(error)) from error
    rows = index.passages.select("id", "document", "page", "text").rows()
    found = []
    for hit in hits:
        id, document, page, text = rows[hit.row]
        found.append(FoundPassage(id, document, page, hit.score, hit.cosine, hit.sparse, text))
    return version, found


def _rows(ids: list[str], buried: set[str]) -> list[int]:
    return [row for row, id in enumerate(ids) if id in buried] if buried else []


def _work(wiring: Wiring) -> Path:
    folder = wiring.indexes.root / "work"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def as_json(one: NamedIndex) -> dict[str, Any]:
    """An index for programs."""
    facts, record = one.facts, one.record
    return {
        "name": one.name,
        "version": one.version,
        "dataset": facts.dataset if facts else None,
        "recipe": facts.recipe if facts else None,
        "passages": facts.passages if facts else None,
        "encoder": facts.encoder.ref if facts else None,
        "encoder_hash": facts.encoder.content_hash if facts else None,
        "reduced_by": facts.reduced_by if facts else None,
        "metrics": [metric.model_dump() for metric in record.metrics] if record else [],
        "fault": one.fault,
    }
