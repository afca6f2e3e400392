"""Which of the suites that a model is asked stand in rows that it, or a model it was made from, was trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from llmops_assets.datasets import suites
from llmops_assets.datasets.similarity import contamination, one_row
from llmops_assets.datasets.suites import SHOWN, shares
from llmops_assets.evaluation.suites import TEST
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import BaseModelRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.names import training_key
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records


def chain_of(plan: PlanRecord, records: Records) -> list[PlanRecord]:
    """The trainings that made a model: its own, then those of its bases, as far as they were trained here."""
    by_hash = {}
    for other in records.all(PlanRecord):
        merged = records.find(MergedModelRecord, training_key(other.dataset, other.recipe))
        if merged is not None:
            by_hash[merged.content_hash] = other
    found: dict[str, PlanRecord] = {}
    current: PlanRecord | None = plan
    while current is not None and current.training_key not in found:
        found[current.training_key] = current
        current = _plan_of(current.base, by_hash, records) if current.base else None
    return list(found.values())


def trained_on(plan: PlanRecord, records: Records) -> list[str]:
    """The dataset versions that a model learned from: its own, then those of the trainings of its bases."""
    return list(dict.fromkeys(each.dataset for each in chain_of(plan, records)))


def _plan_of(base: BaseModelRecord, by_hash: Mapping[str, PlanRecord], records: Records) -> PlanRecord | None:
    """The plan of the training that made a base; None for one that came from elsewhere.

    By its weights, and by what it was called: its cell may have been merged anew since.
    """
    if base.content_hash in by_hash:
        return by_hash[base.content_hash]
    if "|" in base.ref:
        return records.find(PlanRecord, base.ref)
    versions = (one for one in records.all(RegisteredModelRecord) if one.ref == base.ref)
    made = next(versions, None)
    return records.find(PlanRecord, training_key(made.dataset, made.recipe)) if made is not None else None


@dataclass(frozen=True)
class Leak:
    """Test rows that a base was trained on: their share of the split, and up to twenty of them, with their places."""

    share: float
    rows: list[dict[str, Any]]


def leaked_test_rows(plan: PlanRecord, catalog: Catalog, records: Records, store: DatasetStore) -> Leak:
    """Rows of a training's test split that stand in the training rows of a version that one of its bases learned from.

    They are compared as the items of suites are. In a corpus question and answer must stand in one document, each by
    itself (`one_row`). The splits of its own version are held apart by the checks of `splits`.
    """
    splits = records.load(SplitsRecord, plan.dataset)
    test = splits.manifests["test"]
    ancestors = [dataset for dataset in trained_on(plan, records) if dataset != plan.dataset]
    if not ancestors or not splits.rows.get("test"):
        return Leak(0.0, [])
    leaked: dict[str, dict[str, Any]] = {}
    for dataset in ancestors:
        theirs = records.find(SplitsRecord, dataset)
        # What was erased cannot be looked through any more; its models are marked as affected.
        if theirs is None or catalog.dataset_entry(dataset).status == "erased":
            continue
        train = theirs.manifests["train"]

        def batches(columns: list[str] | None, train: str = train) -> Iterator[pl.DataFrame]:
            return store.batches(train, columns)

        if theirs.type == "pretrain_corpus" and splits.type != "pretrain_corpus":
            # Prose of the domain has the phrases of questions and the answers that many of them share, here and there.
            found = one_row.held(batches, theirs.type, suites.read_asked(store, test))
        else:
            found = contamination.overlap(batches, theirs.type, [suites.read_suite(store, TEST, test)]).found
        for row in found.iter_rows(named=True):
            leaked.setdefault(row["item"], {"row": row["item"], "stands in": dataset, "as": row["row_id"]})
    return Leak(len(leaked) / splits.rows["test"], list(leaked.values())[:SHOWN])


def leaked_suites(
    plan: PlanRecord, asked_suites: Sequence[str], catalog: Catalog, records: Records, store: DatasetStore
) -> dict[str, float]:
    """The largest share of each suite's items that stands in the training rows of one version; none where it is 0."""
    most: dict[str, float] = {}
    for dataset in trained_on(plan, records):
        splits = records.find(SplitsRecord, dataset)
        # What was erased cannot be looked through any more; its models are marked as affected.
        if not asked_suites or splits is None or catalog.dataset_entry(dataset).status == "erased":
            continue
        for suite, share in shares(splits, asked_suites, catalog, records, store).items():
            most[suite] = max(share, most.get(suite, 0.0))
    return {suite: share for suite, share in most.items() if share > 0}
