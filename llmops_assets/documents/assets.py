"""The asset `question_answers`: rows that a model writes about registered documents, on their way to be ingested."""

import os

import dagster as dg
import msgspec

from llmops_assets.datasets.quality.report import markdown_table
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.versions.register import GENERATED
from llmops_assets.documents import work
from llmops_assets.documents.client import ChatModel, Unusable
from llmops_assets.documents.generate import generate, template_hash
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.documents import QuestionAnswersRecord
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.specs.settings import Settings
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records


@dg.asset(
    group_name="datasets",
    partitions_def=dataset_versions,
    owners=["team:data"],
    code_version="1",
    kinds={"python", "openai"},
    description="Questions and answers, conversations or summaries that a model wrote about registered documents, each "
    "with the passage that it comes from. Only versions registered with `generation` have it; `dataset` ingests it as "
    "if the rows had been brought. What its passage does not say is in the quarantine.",
)
def question_answers(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    artifacts: dg.ResourceParam[Artifacts],
    store: dg.ResourceParam[DatasetStore],
    records: dg.ResourceParam[Records],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    key = context.partition_key
    spec = catalog.dataset(key).generation
    if spec is None:
        raise dg.Failure(f"{key} was registered with its rows: there is nothing to write", allow_retries=False)
    files = list_files(artifacts.upath("uploads", key))
    read = work.read_all([(name, artifacts.keys.open(path.read_bytes(), name)) for name, path in files], spec)
    context.log.info("%d documents in %d passages", len(files) - len(read.unreadable), len(read.passages))
    kept = work.KeptAnswers(artifacts)
    try:
        results = generate(read.passages, spec, chat_model(spec, settings), kept, context.log.info)
    except Unusable as error:
        raise dg.Failure(
            f"{spec.model} at {spec.endpoint}: {error}. What was answered is kept: ask again when it is mended",
            allow_retries=False,
        ) from error
    sorted_rows = work.sort_out(results, read, spec)
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in sorted_rows.rows)
    artifacts.write_bytes(lines, GENERATED, key, "rows.jsonl")
    written = {"dataset": key, "step": "question_answers"}
    written["config_hash"] = store.keep_config(spec.model_dump(mode="json"))
    generated = store.write(work.table(sorted_rows.rows), kind="generated", **written)
    quarantine_id = None
    if sorted_rows.quarantine.height:
        quarantine_id = store.write(sorted_rows.quarantine, kind="quarantine", parent=generated, **written)
    record = QuestionAnswersRecord(
        dataset=key,
        generated=generated,
        quarantine=quarantine_id,
        documents=len(files),
        unreadable_documents=len(read.unreadable),
        passages=len(results),
        failed_passages=sum(result.failure is not None for result in results),
        reused_passages=sum(result.reused for result in results),
        rows=len(sorted_rows.rows),
        ungrounded_rows=sorted_rows.ungrounded,
        groundedness_mean=sorted_rows.groundedness_mean,
        without_provenance=work.without_provenance(sorted_rows.rows, read.passages),
        model=spec.model,
        template=f"{spec.template}-{template_hash(spec.template)}",
        content_hash=store.manifest(generated).content_hash,
    )
    records.save(key, record)
    reasons = sorted_rows.quarantine.group_by("field").len().sort("len", descending=True)
    shown = {name: getattr(record, name) for name in _SHOWN}
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": record.rows,
            **shown,
            "groundedness": record.groundedness_mean,
            "came_to_nothing": dg.MetadataValue.json(dict(reasons.iter_rows())),
            "quarantine": dg.MetadataValue.md(
                markdown_table(sorted_rows.quarantine.select("file", "line", "field", "reason").head(20).to_dicts())
            ),
            "endpoint": spec.endpoint,
        },
        data_version=dg.DataVersion(record.content_hash[:16]),
    )


DEFAULT_KEY = GenerationSpec.model_fields["api_key_env"].default
_SHOWN = ("documents", "unreadable_documents", "passages", "failed_passages", "reused_passages", "ungrounded_rows")
_SHOWN += ("model", "template")


def chat_model(spec: GenerationSpec, settings: Settings) -> ChatModel:
    """The model that writes, with the key of the environment; one of our own endpoints is asked through the gateway."""
    own = spec.endpoint.removeprefix("endpoint:") if spec.endpoint.startswith("endpoint:") else None
    return ChatModel(
        base_url=f"{settings.gateway_url}/v1" if own else spec.endpoint,
        model=own or spec.model,
        # A key for another server is not sent to ours, unless it was named for it.
        key=None if own and spec.api_key_env == DEFAULT_KEY else os.environ.get(spec.api_key_env),
        # Rows that are written are no traffic of users: no exposure of an A/B test, and no drift.
        headers={"x-llmops-probe": settings.admin_token or ""} if own else {},
        timeout=spec.timeout_seconds,
        attempts=spec.attempts,
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
    )
