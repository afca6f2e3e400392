"""The assets `dataset`, `quality_report`, `clean_dataset` and `splits`: from raw files to what a model trains on."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from llmops_assets import plots
from llmops_assets.automation import RUN_WHEN_READY
from llmops_assets.datasets import clean, split
from llmops_assets.datasets.memory import give_back
from llmops_assets.datasets.quality import control_tokens, findings, page, report
from llmops_assets.datasets.reading import accounting
from llmops_assets.datasets.reading.fates import Fates, unlearned
from llmops_assets.datasets.reading.ingest import Batch, ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.recorded import (
    clusters_config,
    clusters_of,
    near_of,
    recorded_spans,
    rows_of,
    variants_among,
)
from llmops_assets.datasets.similarity import examples
from llmops_assets.datasets.versions.register import left_out_of, rows_folder
from llmops_assets.page import stored_path
from llmops_assets.partitions import dataset_versions
from llmops_assets.privacy import pii
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, FileAccount, QualityRecord, SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.toxicity import scorers
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore, config_hash
from resources.records import Records

COMMON: dict[str, Any] = {
    "group_name": "datasets",
    "partitions_def": dataset_versions,
    "owners": ["team:data"],
    "code_version": "1",
}


SAMPLED_REFUSALS = 10_000
"""Refused rows whose text is kept with the reason."""

SHOWN_KEYS = 100
"""Keys whose fate an asset's page shows; the record has all."""

PREVIEW = 5
"""Rows that an asset's page shows."""


def _lowest_score(policy: Policy, spec: DatasetSpec) -> float:
    """The score below which rows are dropped: a model that writes rows is held to more than people who bring them."""
    return policy.datasets.min_generated_score if spec.generation else policy.datasets.min_quality_score


@dg.asset(
    **COMMON,
    # Only versions whose rows a model writes have one; the others are ingested as they were registered.
    deps=["question_answers"],
    kinds={"polars", "parquet"},
    description="The registered files of one dataset version as canonical rows, immutable; rows that cannot be read "
    "are in the quarantine with file, line, field and reason.",
)
def dataset(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    artifacts: dg.ResourceParam[Artifacts],
    store: dg.ResourceParam[DatasetStore],
    records: dg.ResourceParam[Records],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    key = context.partition_key
    spec = catalog.dataset(key)
    files = list_files(artifacts.upath(*rows_folder(spec)))
    settings = store.keep_config({"type": spec.type, "mapping": spec.mapping})
    limits = Limits(line=policy.limits.max_line_bytes, file=policy.limits.max_decompressed_bytes)
    personal = pii.detector(policy.datasets.pii, key)
    refused: list[pl.DataFrame] = []
    accounts: dict[str, FileAccount] = {}
    fates = Fates()
    left_out = left_out_of(artifacts, spec)

    def accepted(batch: Batch) -> pl.DataFrame:
        # Where very much is refused, what stood there is kept for the first ones; file and line are for all.
        many = sum(frame.height for frame in refused) > SAMPLED_REFUSALS
        refused.append(batch.quarantine.with_columns(raw=pl.lit("")) if many else batch.quarantine)
        return batch.rows

    batches = ingest(
        files,
        spec.type,
        spec.mapping,
        limits=limits,
        require_category=policy.datasets.require_category,
        keys=artifacts.keys,
        accounts=accounts,
        fates=fates,
    )
    manifest_id = store.write(map(accepted, batches), kind="rows", dataset=key, step="dataset", config_hash=settings)
    manifest = store.manifest(manifest_id)
    quarantine = pl.concat(refused)
    quarantine_id = None
    if quarantine.height:
        quarantine_id = store.write(
            quarantine, kind="quarantine", dataset=key, step="dataset", config_hash=settings, parent=manifest_id
        )
    source_bytes = sum(path.stat().st_size for _, path in files)
    records.save(
        key,
        DatasetRecord(
            dataset=key,
            type=spec.type,
            manifest=manifest_id,
            quarantine=quarantine_id,
            rows=manifest.rows,
            quarantined=quarantine.height,
            source_bytes=source_bytes,
            content_hash=manifest.content_hash,
            accounts=list(accounts.values()),
            key_fates=fates.records(),
            left_out=left_out,
        ),
    )
    categories, some = store.read(manifest_id, ["category"]), store.some_rows(manifest_id, PREVIEW)
    reasons = dict(quarantine.group_by("reason").len().sort("len", descending=True).head(20).iter_rows())
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": manifest.rows,
            "quarantined": quarantine.height,
            "quarantine": dg.MetadataValue.md(
                report.markdown_table(quarantine.select("file", "line", "field", "reason").head(20).to_dicts())
            ),
            "quarantine_reasons": dg.MetadataValue.json(reasons),
            "preview": dg.MetadataValue.md(report.markdown_table(report.preview(some, spec.type, personal))),
            "categories": dg.MetadataValue.json(report.category_counts(categories)),
            "lines": accounting.in_words(list(accounts.values())),
            "reading_notes": accounting.notes(accounts.values()) or "nothing",
            "keys": dg.MetadataValue.md(
                report.markdown_table([fate.model_dump() for fate in fates.records()[:SHOWN_KEYS]])
            ),
            "not_learned": unlearned(fates.records(), spec.mapping or ()) or "nothing",
            "left_out": dg.MetadataValue.json(left_out),
            "type": spec.type,
            "files": dg.MetadataValue.json([name for name, _ in files]),
            "source_bytes": source_bytes,
            "stored_bytes": sum(chunk.bytes for chunk in manifest.chunks),
            "manifest": manifest_id,
        },
        data_version=dg.DataVersion(manifest.content_hash[:16]),
    )


@dg.asset(
    **COMMON,
    deps=[dataset],
    kinds={"polars", "kiwipiepy"},
    automation_condition=RUN_WHEN_READY,
    description="What is in a dataset version: personal data, duplicates, quality scores, toxicity, chat-format faults "
    "and lengths, each finding with its row. Changes nothing.",
)
def quality_report(
    context: dg.AssetExecutionContext,
    artifacts: dg.ResourceParam[Artifacts],
    store: dg.ResourceParam[DatasetStore],
    records: dg.ResourceParam[Records],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    give_back()
    key = context.partition_key
    source = records.load(DatasetRecord, key)
    rows = rows_of(store, source.manifest)
    quarantine = store.read(source.quarantine) if source.quarantine else None
    personal = pii.detector(policy.datasets.pii, key)
    flagging = scorers.scorer(policy.datasets.toxicity)
    found = report.analyse(rows, source.type, personal=personal, near=near_of(policy), flagging=flagging)
    written = {"dataset": key, "step": "quality_report", "parent": source.manifest}
    settings = store.keep_config(policy.datasets.model_dump(mode="json"))
    text = page.html(key, source.type, found, quarantine=quarantine)
    written_to = artifacts.write_text(text, "reports", key, "quality.html")
    record = QualityRecord(
        dataset=key,
        rows=found.rows,
        findings=store.write(found.findings, kind="findings", config_hash=settings, **written),
        pii=found.pii,
        pii_rows=found.pii_rows,
        spans=store.write(found.spans, kind="spans", config_hash=settings, **written),
        detector=personal.identity,
        exact_duplicates=found.duplicates.exact,
        near_duplicates=found.duplicates.near,
        dropped_pairs=found.dropped_pairs,
        shared_text=found.shared_text,
        alike_but_apart=found.duplicates.apart,
        clusters=store.write(found.duplicates.clusters, kind="clusters", config_hash=settings, **written),
        scores=store.write(found.scores, kind="scores", config_hash=settings, **written),
        score_mean=found.score_mean,
        toxic_rows=found.toxic_rows,
        unexamined_rows=found.unexamined_rows,
        chat_faults=found.chat_faults,
        control_tokens=found.control_tokens,
        statistics=found.statistics,
        html=str(written_to),
    )
    records.save(key, record)
    pictures = page.figures(found)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": found.rows,
            "report": stored_path(str(written_to), records.paths),
            "personal_data": dg.MetadataValue.json(found.pii),
            "rows_with_personal_data": found.pii_rows,
            "exact_duplicates": found.duplicates.exact,
            "near_duplicates": found.duplicates.near,
            "alike_but_apart": dg.MetadataValue.json(found.duplicates.apart),
            "shared_text": dg.MetadataValue.md(report.markdown_table(found.shared_text)),
            "score_mean": round(found.score_mean, 4),
            "toxic_rows": found.toxic_rows,
            "unexamined_rows": found.unexamined_rows,
            "rows_with_control_tokens": dg.MetadataValue.json(found.control_tokens),
            "bias": dg.MetadataValue.md(report.markdown_table(found.bias)),
            "conflicting_rows": found.conflicting_rows,
            "worst_rows": dg.MetadataValue.md(report.markdown_table(found.worst)),
            "samples": dg.MetadataValue.md(report.markdown_table(findings.samples(found.findings))),
            "statistics": dg.MetadataValue.json(found.statistics),
            **{
                f"plot_{name}": dg.MetadataValue.md(plots.png_markdown(picture, name))
                for name, picture in pictures.items()
            },
        },
        data_version=dg.DataVersion(
            config_hash([source.content_hash, record.findings, record.clusters, record.scores])
        ),
    )


@dg.asset(
    **COMMON,
    deps=[dataset, quality_report],
    kinds={"polars", "parquet"},
    automation_condition=RUN_WHEN_READY,
    description="Rows fit to learn from: personal data masked with typed placeholders, one of each duplicate cluster, "
    "score above the policy's limit. Every dropped row keeps its reason.",
)
def clean_dataset(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    store: dg.ResourceParam[DatasetStore],
    records: dg.ResourceParam[Records],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    give_back()
    key = context.partition_key
    source, found = records.load(DatasetRecord, key), records.load(QualityRecord, key)
    personal = pii.detector(policy.datasets.pii, key)
    recorded = store.read(found.findings)
    drops_tokens = policy.datasets.control_tokens == "drop"
    result = clean.cleaning(
        rows_of(store, source.manifest),
        source.type,
        clusters=store.read(found.clusters),
        scores=store.read(found.scores),
        lowest_score=_lowest_score(policy, catalog.dataset(key)),
        personal=personal,
        unexamined=findings.unexamined(recorded),
        unwanted=control_tokens.dropped(recorded) if drops_tokens else None,
        spans=recorded_spans(store, source, found, personal),
        near=near_of(policy),
    )
    settings = store.keep_config(policy.datasets.model_dump(mode="json"))
    written = {"dataset": key, "step": "clean_dataset", "config_hash": settings, "parent": source.manifest}
    manifest_id = store.write(result.frames(), kind="rows", **written)
    manifest = store.manifest(manifest_id)
    clusters = store.write(
        result.clusters_left(rows_of(store, manifest_id)),
        kind="clusters",
        dataset=key,
        step="clean_dataset",
        config_hash=clusters_config(store, near_of(policy)),
        parent=manifest_id,
    )
    records.save(
        key,
        CleanRecord(
            dataset=key,
            type=source.type,
            manifest=manifest_id,
            dropped=store.write(result.dropped, kind="dropped", **written),
            rows=result.kept,
            dropped_by_reason=result.dropped_by_reason,
            masked_by_type=dict(sorted(result.masked.items())),
            clusters=clusters,
            content_hash=manifest.content_hash,
        ),
    )
    steps = {"ingested": source.rows, **{k: -v for k, v in result.dropped_by_reason.items()}, "kept": manifest.rows}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": manifest.rows,
            "rows_in": source.rows,
            "rows_by_step": dg.MetadataValue.md(
                report.markdown_table([{"step": name, "rows": f"{count:+,}"} for name, count in steps.items()])
            ),
            "dropped": dg.MetadataValue.json(result.dropped_by_reason),
            "duplicates": dg.MetadataValue.md(report.markdown_table(examples.as_lines(found.dropped_pairs))),
            "masked": dg.MetadataValue.json(dict(sorted(result.masked.items()))),
            "masked_rows": result.masked_rows,
            "preview": dg.MetadataValue.md(
                report.markdown_table(report.preview(store.some_rows(manifest_id, PREVIEW), source.type, personal))
            ),
            "manifest": manifest_id,
        },
        data_version=dg.DataVersion(manifest.content_hash[:16]),
    )


@dg.asset(
    **COMMON,
    deps=[clean_dataset],
    kinds={"polars", "parquet"},
    automation_condition=RUN_WHEN_READY,
    description="Train, validation and test rows: stratified, with near duplicates, variants of one question and "
    "the registered group kept together, and stable as rows are added. An evaluation suite is all test.",
)
def splits(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    store: dg.ResourceParam[DatasetStore],
    records: dg.ResourceParam[Records],
    policy: dg.ResourceParam[Policy],
) -> Iterator[dg.MaterializeResult]:
    give_back()
    key = context.partition_key
    wanted = catalog.intents.newest("ingest", key)
    how = catalog.dataset(key).split
    source = records.load(CleanRecord, key)
    rows = rows_of(store, source.manifest)
    traits = split.traits(rows, source.type, stratify_by=how.stratify_by, group_by=how.group_by)
    alike = variants_among(store, source.manifest, dataset_type=source.type)
    clusters = split.together(clusters_of(store, source, near_of(policy)), alike)
    assigned = split.divide(traits, source.type, ratios=how.ratios, clusters=clusters, seed=how.seed)
    settings = store.keep_config(how.model_dump(mode="json"))
    written = {"dataset": key, "step": "splits", "config_hash": settings, "parent": source.manifest}
    recorded = store.write(alike, kind="variants", **written)
    writers = {name: store.writer(kind=name, **written) for name in split.SPLITS}
    for parts in split.parts(rows, assigned):
        for name, part in parts.items():
            writers[name].add(part)
    manifests = {name: writer.finish() for name, writer in writers.items()}
    counts = {name: store.manifest(manifest).rows for name, manifest in manifests.items()}
    shares = split.shares(traits["stratum"], assigned) if how.stratify_by else []
    hashes = {name: store.manifest(manifest).content_hash for name, manifest in manifests.items()}
    data_hash = config_hash(hashes)
    records.save(
        key,
        SplitsRecord(
            dataset=key,
            type=source.type,
            manifests=manifests,
            rows=counts,
            stratify_by=how.stratify_by,
            group_by=how.group_by,
            seed=how.seed,
            data_hash=data_hash,
            variants=recorded,
        ),
    )
    result = dg.MaterializeResult(
        metadata={
            "dagster/row_count": traits.height,
            **{f"{name}_rows": count for name, count in counts.items()},
            "by_stratum": dg.MetadataValue.md(report.markdown_table(shares)),
            "grouped_by": how.group_by or "near duplicates, variants and equal prompts",
            "variants": alike.height,
            "seed": how.seed,
            "plot_splits": dg.MetadataValue.md(
                plots.png_markdown(plots.bars(dict(counts), "Rows by split", "rows"), "rows by split")
            ),
        },
        data_version=dg.DataVersion(data_hash),
    )
    yield from catalog.intents.acknowledge_after(result, [wanted], actor="splits")
