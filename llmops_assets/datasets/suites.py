"""Which of the registered evaluation suites stands in a version's training rows, as things are now."""

from collections.abc import Mapping, Sequence

import polars as pl

from llmops_assets.datasets import schema, texts
from llmops_assets.datasets.similarity import contamination, keys
from llmops_assets.datasets.similarity.contamination import Suite
from llmops_assets.datasets.similarity.one_row import Asked
from llmops_assets.records.datasets import CleanRecord, ContaminationRecord, DatasetRecord, SplitsRecord
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.row_upgrade import upgraded_types

SHOWN = 20
"""Contaminated items that are kept with the result."""


VERSION = 3
"""Rule that items are compared by: since 2, those of a few words too, whole; since 3, all whole, however spaced."""
MOST_UNCOMPARED = 0.1
"""Share of a suite's items without any text that could be compared, above which nobody knows what it shares."""


def registered_suites(catalog: Catalog, records: Records) -> dict[str, str]:
    """Every suite in use that has rows, by name: the manifest of its items (masked, once the suite is cleaned)."""
    used = (
        entry.key
        for entry in catalog.datasets()
        if entry.spec.type == "eval_suite" and entry.status not in ("archived", "erased")
    )
    return {name: manifest for name in sorted(used) if (manifest := _items_of(name, records)) is not None}


def _items_of(suite: str, records: Records) -> str | None:
    record = records.find(CleanRecord, suite) or records.find(DatasetRecord, suite)
    if record is not None:
        return record.manifest
    splits = records.find(SplitsRecord, suite)
    return splits.manifests["test"] if splits is not None else None


def read_suite(store: DatasetStore, name: str, manifest: str) -> Suite:
    """The questions of a suite as they are asked, of whatever type its rows are, without the system prompt: training
    rows may share that, and learn nothing of an answer from it."""
    rows, kind = _items(store, manifest)
    asked = rows.with_columns(asked=pl.coalesce(texts.prompt_of(kind), texts.whole_of(kind)))["asked"]
    return Suite(name, rows["row_id"].to_list(), asked)


def read_asked(store: DatasetStore, manifest: str) -> Asked:
    """The same with the answers that are wanted, each by itself."""
    rows, kind = _items(store, manifest)
    parts = rows.with_columns(asked=texts.prompt_of(kind), answered=texts.answer_of(kind))
    return Asked(parts["row_id"].to_list(), parts["asked"], parts["answered"])


def _items(store: DatasetStore, manifest: str) -> tuple[pl.DataFrame, str]:
    """The rows of a table without their system prompts, and their type."""
    columns = upgraded_types(store.manifest(manifest).columns)
    kind = next(kind for kind, content in schema.CONTENT.items() if content.keys() <= columns.keys())
    return keys.spoken(store.read(manifest, ["row_id", *texts.content_columns(kind)]), kind), kind


def is_current(kept: ContaminationRecord | None, splits: SplitsRecord, suites: Mapping[str, str]) -> bool:
    """Whether a kept comparison is of these training rows and these suites."""
    same = kept is not None and kept.train == splits.manifests.get("train") and kept.suites == dict(suites)
    return same and kept.version == VERSION


def compared(
    splits: SplitsRecord, suites: Mapping[str, str], records: Records, store: DatasetStore
) -> ContaminationRecord:
    """The training rows of a version against `suites`: what was kept of the same comparison, or a new one, kept."""
    kept = records.find(ContaminationRecord, splits.dataset)
    if kept is not None and is_current(kept, splits, suites):
        return kept
    record = _compare(splits, suites, store)
    records.save(splits.dataset, record)
    return record


def _compare(splits: SplitsRecord, suites: Mapping[str, str], store: DatasetStore) -> ContaminationRecord:
    train = splits.manifests["train"]
    items = [read_suite(store, name, manifest) for name, manifest in suites.items()]
    found = contamination.overlap(lambda columns: store.batches(train, columns), splits.type, items)
    return ContaminationRecord(
        dataset=splits.dataset,
        train=train,
        suites=dict(suites),
        judged=found.judged,
        too_short=found.too_short,
        version=VERSION,
        leaked={name: found.found.filter(suite=name).height for name in suites},
        items=found.found.head(SHOWN).to_dicts(),
    )


def shares(
    splits: SplitsRecord, asked: Sequence[str], catalog: Catalog, records: Records, store: DatasetStore
) -> dict[str, float]:
    """The share of each of the `asked` suites' items that stands in the training rows; archived ones are compared too,
    and those without rows are left out."""
    current = registered_suites(catalog, records)
    found = [compared(splits, current, records, store)]
    others = {name: manifest for name in asked if name not in current and (manifest := _items_of(name, records))}
    if others:
        found.append(_compare(splits, others, store))
    return {name: record.share(name) for record in found for name in asked if name in record.suites}


def verdict(found: ContaminationRecord, limit: float) -> Verdict:
    """No suite has more than the share `limit` of its items in the training rows."""
    over = [name for name in found.suites if found.share(name) > limit]
    unknown = {name: found.too_short.get(name, 0) for name in found.suites if found.too_short.get(name, 0)}
    blind = [n for n, count in unknown.items() if count > MOST_UNCOMPARED * (count + found.judged.get(n, 0))]
    text = (
        f"Items of {', '.join(over)} stand in training rows: drop those rows, or do not judge by that suite"
        if over
        else f"{len(found.suites)} suites were compared; at most {limit:.0%} of the items of any stands in training "
        "rows."
    )
    if unknown:
        which = ", ".join(f"{count} of {name}" for name, count in unknown.items())
        text += f" Items that could not be compared: {which}"
        text += ". Give those items a text, or do not judge by that suite." if blind else "."
    return Verdict(
        not over and not blind, text, {f"share of {name}": round(found.share(name), 4) for name in found.suites}
    )
