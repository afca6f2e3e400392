"""Which of the suites that a model is asked stand in rows that it, or a model it was made from, was trained on."""

from collections.abc import Sequence

from llmops_assets.datasets.suites import shares
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.specs.names import training_key
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records


def trained_on(plan: PlanRecord, records: Records) -> list[str]:
    """The dataset versions that a model learned from: its own, then those of the trainings of its bases."""
    by_hash = {}
    for other in records.all(PlanRecord):
        merged = records.find(MergedModelRecord, training_key(other.dataset, other.recipe))
        if merged is not None:
            by_hash[merged.content_hash] = other
    found: list[str] = []
    known: set[str] = set()
    current: PlanRecord | None = plan
    while current is not None and current.training_key not in known:
        known.add(current.training_key)
        found.append(current.dataset)
        current = by_hash.get(current.base.content_hash) if current.base else None
    return list(dict.fromkeys(found))


def leaked_suites(
    plan: PlanRecord, suites: Sequence[str], catalog: Catalog, records: Records, store: DatasetStore
) -> dict[str, float]:
    """The largest share of each suite's items that stands in the training rows of one version; none where it is 0."""
    most: dict[str, float] = {}
    for dataset in trained_on(plan, records):
        splits = records.find(SplitsRecord, dataset)
        # What was erased cannot be looked through any more; its models are marked as affected.
        if not suites or splits is None or catalog.dataset_entry(dataset).status == "erased":
            continue
        for suite, share in shares(splits, suites, catalog, records, store).items():
            most[suite] = max(share, most.get(suite, 0.0))
    return {suite: share for suite, share in most.items() if share > 0}
