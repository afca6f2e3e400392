"""What must hold of a dataset version before anything is made from it; a failed check blocks that version alone."""

from typing import Any

import dagster as dg
import polars as pl

from llmops_assets.check_steps import asset_check
from llmops_assets.datasets import (
    alignment,
    answer_texts,
    clean,
    coverage,
    row_verdicts,
    split,
    suites,
    texts,
    verdicts,
)
from llmops_assets.datasets.assets import clean_dataset, dataset, quality_report, splits
from llmops_assets.datasets.batches import Batches, regrouped
from llmops_assets.datasets.coverage import FEWEST_ROWS
from llmops_assets.datasets.quality import control_tokens as token_findings
from llmops_assets.datasets.quality import personal_data
from llmops_assets.datasets.reading import accounting
from llmops_assets.datasets.reading.quarantine import common_reasons
from llmops_assets.datasets.recorded import clusters_of, near_of, recorded_spans, recorded_variants, rows_of
from llmops_assets.datasets.similarity import duplicates, examples
from llmops_assets.page import check_result
from llmops_assets.partitions import dataset_versions
from llmops_assets.privacy import pii
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.verdict import Verdict
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records

# Unpartitioned, a check of one version would release or block all of them.
BLOCKING: dict[str, Any] = {"blocking": True, "partitions_def": dataset_versions}
Context = dg.AssetCheckExecutionContext


def result(passed: bool, description: str, **found: Any) -> dg.AssetCheckResult:
    """A verdict with its figures, and its rows: lists of `found`, as tables by their names."""
    tables = {name: value for name, value in found.items() if isinstance(value, list)}
    figures = {name: value for name, value in found.items() if name not in tables}
    return check_result(Verdict(passed, description, figures), rows=tables)


@asset_check(asset=dataset, description="The version has rows, and no more than the policy allows.", **BLOCKING)
def rows_present(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(DatasetRecord, context.partition_key)
    refused = common_reasons(store.read(record.quarantine)) if record.quarantine and not record.rows else []
    return check_result(verdicts.rows_present(record, policy.limits.max_samples, refused))


@asset_check(asset=dataset, description="Few enough rows were refused.", **BLOCKING)
def quarantine_share(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(DatasetRecord, context.partition_key)
    refused: list[dict[str, Any]] = []
    if record.quarantine:
        refused = store.read(record.quarantine, ["file", "line", "field", "reason"]).head(10).to_dicts()
    judged = verdicts.quarantine_share(record, policy.datasets.max_quarantined_share)
    return check_result(judged, rows={"rows": refused})


@asset_check(
    asset=dataset,
    description="Every line of the files is a row, a refusal, a blank, a comment, the header, or goes on with one.",
    **BLOCKING,
)
def lines_accounted_for(context: Context, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    record = records.load(DatasetRecord, context.partition_key)
    return check_result(accounting.verdict(record), rows={"files": accounting.table(record)})


@asset_check(asset=dataset, name="schema", description="Columns, types and rules of the dataset's type.", **BLOCKING)
def schema_holds(
    context: Context, records: dg.ResourceParam[Records], store: dg.ResourceParam[DatasetStore]
) -> dg.AssetCheckResult:
    record = records.load(DatasetRecord, context.partition_key)
    ids = store.read(record.manifest, ["row_id"])["row_id"]
    verdict, rows = row_verdicts.schema_holds(regrouped(store.batches(record.manifest)), ids, record.type)
    return check_result(verdict, rows={"rows": rows})


@asset_check(
    asset=quality_report,
    description="Every conversation can be learned from: roles in order, an answer at the end.",
    **BLOCKING,
)
def chat_format(context: Context, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    faults = records.load(QualityRecord, context.partition_key).chat_faults
    found = ", ".join(f"{count:,} × {name}" for name, count in faults.items())
    return result(not faults, f"Rows with chat faults: {found}" if faults else "No chat faults.", faults=faults)


@asset_check(
    asset=quality_report,
    description="Texts hold no control tokens of models; a warning, since they are trained and served as text.",
    partitions_def=BLOCKING["partitions_def"],
)
def control_tokens(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(QualityRecord, context.partition_key)
    if not record.control_tokens:
        return result(True, "No text holds a control token of a model.")
    found = store.read(record.findings).filter(pl.col("kind") == token_findings.KIND)
    dropped = policy.datasets.control_tokens == "drop"
    verdict, rows = row_verdicts.control_tokens(record.control_tokens, found, dropped)
    return check_result(verdict, warn=True, rows={"rows": rows})


@asset_check(
    asset=quality_report,
    description="Every row has a score or a reason why not, and a cluster keeps exactly one of its rows.",
    **BLOCKING,
)
def report_covers_all_rows(
    context: Context, records: dg.ResourceParam[Records], store: dg.ResourceParam[DatasetStore]
) -> dg.AssetCheckResult:
    key = context.partition_key
    source, found = records.load(DatasetRecord, key), records.load(QualityRecord, key)
    scored = store.manifest(found.scores).rows
    clusters = store.read(found.clusters)
    kept = clusters.group_by("cluster").agg(pl.col("kept").sum()).filter(pl.col("kept") != 1).height
    return result(
        scored + found.unexamined_rows == source.rows == found.rows and kept == 0,
        f"{scored:,} of {source.rows:,} rows are scored, {found.unexamined_rows:,} could not be examined and are left "
        f"out by clean_dataset; {kept:,} clusters keep none or several of their rows.",
    )


@asset_check(asset=clean_dataset, description="Rows are left to train on.", **BLOCKING)
def rows_left(context: Context, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    record = records.load(CleanRecord, context.partition_key)
    return result(
        record.rows > 0,
        f"{record.rows:,} rows are left" if record.rows else f"Every row was dropped: {record.dropped_by_reason}",
        dropped=record.dropped_by_reason,
    )


@asset_check(asset=clean_dataset, description="Not all rows have the same answer.", **BLOCKING)
def answers_vary(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(CleanRecord, context.partition_key)
    if record.type == "pretrain_corpus":
        return result(True, "Documents have no answers.")
    rows = store.batches(record.manifest, texts.content_columns(record.type))
    counts = coverage.answer_counts(rows, record.type)
    return check_result(coverage.answers_vary(counts, policy.datasets.max_same_answer_share))


@asset_check(
    asset=clean_dataset,
    description="Answers are texts that somebody wrote: no missing value, no misread encoding, none cut by an export.",
    **BLOCKING,
)
def answers_readable(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(CleanRecord, context.partition_key)
    if record.type == "pretrain_corpus":
        return result(True, "Documents have no answers.")
    # Where cleaning dropped nearly all, what came in says why.
    brought = records.find(DatasetRecord, context.partition_key) if record.rows < FEWEST_ROWS else None
    manifest = brought.manifest if brought is not None else record.manifest
    rows = answer_texts.of_rows(store.batches(manifest, texts.content_columns(record.type)), record.type)
    return check_result(answer_texts.answers_readable(rows, policy.datasets.max_unreadable_answer_share))


@asset_check(
    asset=clean_dataset, description="Answers stand in the rows of their questions: no column was moved.", **BLOCKING
)
def answers_belong(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(CleanRecord, context.partition_key)
    if record.type == "pretrain_corpus":
        return result(True, "Documents have no answers.")
    rows = store.batches(record.manifest, ["row_id", *texts.content_columns(record.type)])
    moved, windows = alignment.moved(alignment.windows_of(rows, record.type, record.rows))
    judged = alignment.answers_belong(moved, windows, policy.datasets.max_moved_answers_share)
    return check_result(judged, rows={"rows": [row for one in moved for row in one.examples][: row_verdicts.SHOWN]})


@asset_check(
    asset=clean_dataset, description="No more rows than the policy allows were dropped as near duplicates.", **BLOCKING
)
def near_duplicate_share(
    context: Context, records: dg.ResourceParam[Records], policy: dg.ResourceParam[Policy]
) -> dg.AssetCheckResult:
    key = context.partition_key
    quality = records.find(QualityRecord, key)
    judged = clean.duplicate_share(records.load(CleanRecord, key), policy.datasets.max_duplicate_share)
    shown = examples.as_lines(quality.dropped_pairs) if quality is not None else []
    return check_result(judged, rows={"rows": shown})


@asset_check(asset=clean_dataset, description="A second look at the masked rows finds no personal data.", **BLOCKING)
def no_personal_data(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    key = context.partition_key
    record, personal = records.load(CleanRecord, key), pii.detector(policy.datasets.pii, key)
    source, quality = records.find(DatasetRecord, key), records.find(QualityRecord, key)
    clean = rows_of(store, record.manifest)
    recorded = recorded_spans(store, source, quality, personal) if source and quality else None
    if source is None or recorded is None:
        searched = (
            (batch, personal_data.find_in_rows(batch, record.type, personal)) for batch in regrouped(clean(None))
        )
    else:
        brought = rows_of(store, source.manifest)
        searched = personal_data.find_left(clean, record.type, personal, brought, recorded)
    verdict, rows = row_verdicts.no_personal_data(searched)
    return check_result(verdict, rows={"rows": rows})


@asset_check(asset=clean_dataset, description="Every row that came in is kept or dropped with a reason.", **BLOCKING)
def rows_accounted_for(
    context: Context, records: dg.ResourceParam[Records], store: dg.ResourceParam[DatasetStore]
) -> dg.AssetCheckResult:
    key = context.partition_key
    source, record = records.load(DatasetRecord, key), records.load(CleanRecord, key)
    before = store.read(source.manifest, ["row_id"])["row_id"]
    after = pl.concat(
        [store.read(record.manifest, ["row_id"])["row_id"], store.read(record.dropped, ["row_id"])["row_id"]]
    )
    return check_result(row_verdicts.accounted_for(before, after))


def _together(record: SplitsRecord, store: DatasetStore) -> tuple[Batches, pl.Series]:
    """The rows of all splits, one after another, and the split of each."""
    names = [pl.Series("split", [name]).new_from_index(0, record.rows[name]) for name in record.manifests]
    return rows_of(store, *record.manifests.values()), pl.concat(names)


@asset_check(
    asset=splits,
    description="No near-duplicate cluster has rows in two splits, nor has a question with words added.",
    **BLOCKING,
)
def no_cluster_across_splits(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    rows, names = _together(record, store)
    clean, near = records.find(CleanRecord, context.partition_key), near_of(policy)
    made_of = store.manifest(record.manifests["train"]).parent
    if clean is not None and clean.manifest == made_of:
        clusters = clusters_of(store, clean, near)
    else:
        clusters = duplicates.find(rows, record.type, near).clusters
    found = split.across_splits(rows, clusters, recorded_variants(store, record), names, record.type)
    return check_result(found.verdict, rows={"pairs": found.pairs})


@asset_check(asset=splits, description="No group of the registration's `group_by` field is in two splits.", **BLOCKING)
def no_group_across_splits(
    context: Context, records: dg.ResourceParam[Records], store: dg.ResourceParam[DatasetStore]
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    if not record.group_by:
        return result(True, "The registration groups by no field.")
    rows, names = _together(record, store)
    judged, groups = verdicts.no_group_across_splits(split.fields(rows, record.group_by), names, record.group_by)
    return check_result(judged, rows={"groups": groups})


@asset_check(asset=splits, description="No test prompt is in the training rows, nor a validation prompt.", **BLOCKING)
def held_out_prompts_are_new(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    rows, names = _together(record, store)
    most = policy.datasets.max_contaminated_share
    verdict, leaked = row_verdicts.held_out_prompts_are_new(rows, names, record.type, most)
    return check_result(verdict, rows={"rows": leaked})


@asset_check(
    asset=splits, description="No registered evaluation suite has its questions in the training rows.", **BLOCKING
)
def no_contamination(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    catalog: dg.ResourceParam[Catalog],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    if record.type == "eval_suite":
        return result(True, "An evaluation suite is not trained on.")
    # Kept between runs, so that `training_plan` asks the same question for nothing.
    found = suites.compared(record, suites.registered_suites(catalog, records), records, store)
    judged = suites.verdict(found, policy.datasets.max_contaminated_share)
    lines = [
        {
            "suite": name,
            "judged": found.judged[name],
            "too short": found.too_short[name],
            "contaminated": f"{found.share(name):.2%}",
        }
        for name in found.suites
    ]
    return result(judged.passed, judged.text, suites=lines, items=found.items)


@asset_check(asset=splits, description="Every split that is wanted has rows, near the wanted share.", **BLOCKING)
def split_sizes(
    context: Context, records: dg.ResourceParam[Records], catalog: dg.ResourceParam[Catalog]
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    wanted = catalog.dataset(context.partition_key).split.ratios
    if record.type == "eval_suite":
        wanted = (0.0, 0.0, 1.0)
    judged, lines = verdicts.split_sizes(record.rows, wanted)
    return check_result(judged, rows={"splits": lines})


@asset_check(asset=splits, description="Every category of the test rows is trained.", **BLOCKING)
def categories_are_trained(
    context: Context, records: dg.ResourceParam[Records], store: dg.ResourceParam[DatasetStore]
) -> dg.AssetCheckResult:
    record = records.load(SplitsRecord, context.partition_key)
    if record.type == "eval_suite" or not record.stratify_by:
        return result(True, "Nothing is stratified.")
    by_split = {
        name: split.fields(rows_of(store, manifest), record.stratify_by) for name, manifest in record.manifests.items()
    }
    return check_result(verdicts.categories_are_trained(by_split))


@asset_check(asset=splits, description="Every category that is trained is asked in the test.", **BLOCKING)
def categories_are_tested(
    context: Context,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    catalog: dg.ResourceParam[Catalog],
    policy: dg.ResourceParam[Policy],
) -> dg.AssetCheckResult:
    record, how = records.load(SplitsRecord, context.partition_key), catalog.dataset(context.partition_key).split
    if record.type == "eval_suite" or not record.stratify_by or not how.ratios[2]:
        return result(True, "Nothing is stratified for a test.")
    by_split = {
        name: split.fields(rows_of(store, manifest), record.stratify_by) for name, manifest in record.manifests.items()
    }
    return check_result(
        coverage.categories_are_tested(record.stratify_by, by_split, policy.datasets.max_untested_share)
    )
