"""What was recorded of stored tables, where it is still true of them; else it is looked for anew."""

from collections.abc import Iterator
from dataclasses import asdict

import polars as pl

from llmops_assets.datasets.batches import Batches
from llmops_assets.datasets.similarity import duplicates, variants
from llmops_assets.privacy import pii
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.specs.policy import Policy
from resources.dataset_store import DatasetStore


def rows_of(store: DatasetStore, *manifests: str) -> Batches:
    """The rows of stored tables, one after another, in batches."""

    def batches(columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        for manifest in manifests:
            yield from store.batches(manifest, columns)

    return batches


def near_of(policy: Policy) -> duplicates.Near:
    """What counts as a near duplicate, as the policy has it."""
    return duplicates.Near.of(policy.datasets.minhash)


def clusters_config(store: DatasetStore, near: duplicates.Near) -> str:
    """The rules that clusters were found by, kept, by their hash."""
    return store.keep_config(asdict(near))


def recorded_spans(
    store: DatasetStore, source: DatasetRecord, found: QualityRecord, personal: pii.Detector
) -> pl.DataFrame | None:
    """The personal data that the quality report found in the rows as they were brought.

    None when it was found in other rows or by another detector, or recorded by a version that kept no spans.
    """
    if found.spans is None or found.detector != personal.identity:
        return None
    return store.read(found.spans) if store.manifest(found.spans).parent == source.manifest else None


def clusters_of(store: DatasetStore, clean: CleanRecord, near: duplicates.Near) -> pl.DataFrame:
    """The near duplicates among the clean rows: recorded, or looked for where the record is of other rules or none."""
    if clean.clusters is not None:
        manifest = store.manifest(clean.clusters)
        if manifest.parent == clean.manifest and manifest.config_hash == clusters_config(store, near):
            return store.read(clean.clusters)
    return duplicates.find(rows_of(store, clean.manifest), clean.type, near).clusters


def variants_among(store: DatasetStore, *manifests: str, dataset_type: str) -> pl.DataFrame:
    """Rows of stored tables that ask the same as others of them in more words; of an evaluation suite, which is divided
    into nothing, none."""
    if dataset_type == "eval_suite":
        return pl.DataFrame(schema=variants.CLUSTERS)
    return variants.find(rows_of(store, *manifests), dataset_type)


def recorded_variants(store: DatasetStore, record: SplitsRecord) -> pl.DataFrame:
    """The variants among divided rows: recorded, or looked for where an earlier version recorded none."""
    if record.variants is not None:
        manifest = store.manifest(record.variants)
        if manifest.parent == store.manifest(record.manifests["train"]).parent:
            return store.read(record.variants)
    return variants_among(store, *record.manifests.values(), dataset_type=record.type)
