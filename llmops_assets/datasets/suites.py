"""Reads what the registered evaluation suites ask, for looking whether it was trained."""

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.contamination import Suite
from llmops_assets.specs.records import CleanRecord, DatasetRecord
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records


def registered_suites(catalog: Catalog, records: Records, store: DatasetStore) -> list[Suite]:
    """Every suite in use that has rows, with the questions as they are asked (masked, once the suite is cleaned)."""
    found = []
    for entry in catalog.datasets():
        if entry.spec.type != "eval_suite" or entry.status == "archived":
            continue
        record = records.find(CleanRecord, entry.key) or records.find(DatasetRecord, entry.key)
        if record is not None:
            rows = store.read(record.manifest, ["row_id", *texts.content_columns("eval_suite")])
            asked: pl.Series = rows.select(texts.prompt_of("eval_suite")).to_series()
            found.append(Suite(entry.key, rows["row_id"].to_list(), asked))
    return sorted(found, key=lambda suite: suite.name)
