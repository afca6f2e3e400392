"""The asset `retrieval_index`: the passages of a dataset version, found by a trained encoder and by their words."""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.evaluation import report
from llmops_assets.page import check_result
from llmops_assets.partitions import trainings
from llmops_assets.privacy import pii
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.retrieval import RetrievalIndexRecord
from llmops_assets.retrieval import passages as sources
from llmops_assets.retrieval import verdicts
from llmops_assets.retrieval.build import build
from llmops_assets.retrieval.encoder import NoEncoder, encoder_of, wanted_of
from llmops_assets.retrieval.measure import exact_agreement, measure
from llmops_assets.specs.policy import Policy
from llmops_assets.verdict import Verdict
from resources import content
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.catalog.erasures import ModelAffected
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import Indexes
from resources.tracking import Tracking, UnknownModel
from resources.trainer import Trainer

CHECKS = {
    "no_erased_passages": "The dataset version is not erased, and no passage that was erased came back with it.",
    "same_encoder": "The vectors are by the encoder that questions will be embedded with, by content.",
    "counts_match": "Each passage has a vector, a sparse vector, and a point in the engine.",
    "finds_as_exact": "The engine finds what comparing the test questions with every passage finds.",
}


class IndexConfig(dg.Config):
    """What one build does otherwise than was wanted."""

    encoder: str | None = None
    """A registered encoder, NAME@VERSION, instead of the one that this cell trained."""
    name: str | None = None
    """What endpoints will search it as, instead of the dataset's name."""
    passage_chars: int | None = None
    """Characters of the longest passage of a corpus (800); other datasets have passages of their own."""


@dg.asset(
    group_name="serving",
    partitions_def=trainings,
    deps=["splits", "merged_model"],
    kinds={"qdrant", "python"},
    owners=["team:ml"],
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(name, asset="retrieval_index", blocking=True, partitions_def=trainings, description=text)
        for name, text in CHECKS.items()
    ],
    description="The passages of a dataset version for RAG endpoints: embedded by the encoder of a recipe, with sparse "
    "BM25 vectors over morphemes, in Qdrant. A new version is built beside the old one, checked and measured, and then "
    "takes its name in one step. Built on request alone (`llmops index build`).",
)
def retrieval_index(
    context: dg.AssetExecutionContext,
    config: IndexConfig,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    artifacts: dg.ResourceParam[Artifacts],
    tracking: dg.ResourceParam[Tracking],
    trainer: dg.ResourceParam[Trainer],
    indexes: dg.ResourceParam[Indexes],
    policy: dg.ResourceParam[Policy],
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    cell, keys = str(context.partition_key), context.partition_key.keys_by_dimension
    dataset, began = keys["dataset"], time.monotonic()
    wanted = catalog.intents.newest("index", cell)
    asked = wanted_of(wanted.detail if wanted is not None else {}, config.model_dump(), dataset)
    entry = catalog.dataset_entry(dataset)
    try:
        encoder, spec = encoder_of(cell, asked["encoder"], records=records, tracking=tracking, catalog=catalog)
        found = _passages(dataset, asked["passage_chars"], catalog, records, store, artifacts, policy)
    except (NoEncoder, ModelAffected, UnknownModel, content.ContentChanged, sources.NoPassages) as error:
        raise dg.Failure(f"{dataset} is not indexed: {error}", allow_retries=False) from error
    splits = records.find(SplitsRecord, dataset)
    test = store.read(splits.manifests["test"]) if splits is not None else None
    questions = sources.questions_of(test, splits.type, found.frame) if test is not None and splits is not None else []
    context.log.info("%d passages, %d test questions, by %s", found.frame.height, len(questions), encoder.ref)
    buried = indexes.buried_in(found.frame["id"])
    results = {"no_erased_passages": verdicts.no_erased_passages(dataset, entry.status, buried, asked["name"])}
    if not results["no_erased_passages"].passed:
        yield from _shown(results)
        raise dg.Failure(f"{dataset} is not indexed: {results['no_erased_passages'].text}", allow_retries=False)
    built = build(
        found.frame,
        [question.text for question in questions],
        encoder,
        dataset=dataset,
        recipe=keys["recipe"],
        indexes=indexes,
        worker=trainer,
        context=context,
        gpus=1 if spec.resources.gpus else 0,
    )
    index = built.index
    try:
        staged = indexes.stage(index)
        engine = indexes.engine(index)
        results["same_encoder"] = verdicts.same_encoder(
            encoder.ref, index.facts.encoder.content_hash, built.encoder_hash, encoder.content_hash
        )
        results["counts_match"] = verdicts.counts_match(
            index.passages.height, len(index.vectors), len(index.sparse), staged
        )
        agreement, sample = exact_agreement(engine, index, built.questions)
        results["finds_as_exact"] = verdicts.finds_as_exact(agreement, sample, engine.name)
        metrics = measure(engine, index, questions, built.questions)
        engine.close()
    except EngineUnavailable as error:
        raise dg.Failure(str(error)) from error
    yield from _shown(results)
    if refused := [verdict.text for verdict in results.values() if not verdict.passed]:
        raise dg.Failure(f"{asked['name']} stays what it was: {' '.join(refused)}", allow_retries=False)
    if catalog.dataset_entry(dataset).status == "erased":
        raise dg.Failure(f"{dataset} was erased while it was indexed", allow_retries=False)
    previous = indexes.point(asked["name"], index.facts.version)
    collected = indexes.collect()
    record = RetrievalIndexRecord(
        dataset=dataset,
        recipe=keys["recipe"],
        name=asked["name"],
        version=index.facts.version,
        encoder=encoder,
        passages=index.passages.height,
        documents=index.passages["document"].n_unique(),
        dimensions=index.facts.dimensions,
        reused_vectors=built.reused,
        left_out=dict(found.left_out),
        questions=len(questions),
        metrics=metrics,
        exact_agreement=agreement,
        engine=indexes.address,
        seconds={**built.seconds, "all": time.monotonic() - began},
        previous=previous,
        settings={"sparse": index.facts.sparse, "passage_chars": asked["passage_chars"]},
    )
    records.save(cell, record)
    catalog.log(
        "retrieval_index", "index.publish", asked["name"], version=record.version, dataset=dataset, previous=previous
    )
    result = dg.MaterializeResult(
        metadata=_metadata(record, collected), data_version=dg.DataVersion(index.facts.version)
    )
    yield from catalog.intents.acknowledge_after(result, [wanted], actor="retrieval_index")


def _passages(
    dataset: str,
    longest: int,
    catalog: Catalog,
    records: Records,
    store: DatasetStore,
    artifacts: Artifacts,
    policy: Policy,
) -> sources.Passages:
    """The passages of a dataset version; NoPassages where it has none, or is not there yet."""
    spec = catalog.dataset(dataset)
    if spec.generation is not None:
        folder = artifacts.upath("uploads", dataset)
        files = list_files(folder) if folder.exists() else []
        read = [(name, artifacts.keys.open(path.read_bytes(), name)) for name, path in files]
        found = sources.of_documents(read, spec.generation, pii.detector(policy.datasets.pii, dataset))
    elif spec.type in sources.INDEXED:
        splits = records.find(SplitsRecord, dataset)
        if splits is None:
            raise sources.NoPassages(f"{dataset} has no splits yet: it is not ingested")
        frames = (store.read(manifest) for manifest in splits.manifests.values())
        is_corpus = spec.type == "pretrain_corpus"
        found = sources.of_corpus(frames, longest) if is_corpus else sources.of_rows(frames, dataset)
    else:
        raise sources.NoPassages(
            f"rows of type {spec.type} have no passages: index a version of type {', '.join(sources.INDEXED)}, or one "
            "that was written about documents (llmops dataset generate)"
        )
    if not found.frame.height:
        why = "; ".join(f"{count} × {reason}" for reason, count in found.left_out.items()) or "its rows hold none"
        raise sources.NoPassages(f"{dataset} has no passage: {why}")
    return found


def _shown(results: dict[str, Verdict]) -> Iterator[dg.AssetCheckResult]:
    for name, verdict in results.items():
        yield check_result(verdict, name=name)


def _metadata(record: RetrievalIndexRecord, collected: list[str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/row_count": record.passages,
        "name": record.name,
        "version": record.version,
        "took the place of": record.previous or "nothing",
        "documents": record.documents,
        "dimensions": record.dimensions,
        "encoder": f"{record.encoder.ref} ({record.encoder.content_hash})",
        "engine": record.engine,
        "vectors that were there before": record.reused_vectors,
        "left out": dg.MetadataValue.json(record.left_out),
        "test questions": record.questions,
        "exact_agreement": record.exact_agreement,
        "seconds": dg.MetadataValue.json({name: round(value, 2) for name, value in record.seconds.items()}),
        "old versions collected": ", ".join(collected) or "none",
        "search it": f"llmops index query {record.name} QUESTION",
    }
    if record.metrics:
        metadata["figures"] = dg.MetadataValue.md(report.metrics_table(record.metrics))
        metadata |= {f"{m.suite}_{m.name}": m.value for m in record.metrics if m.suite == "hybrid"}
    return metadata
