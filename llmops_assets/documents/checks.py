"""Checks on `question_answers`: few passages failed, the answers stand in them, and every row leads to its passage."""

from typing import Any

import dagster as dg

from llmops_assets.check_steps import asset_check
from llmops_assets.datasets.reading.quarantine import common_reasons
from llmops_assets.documents import verdicts
from llmops_assets.documents.assets import question_answers
from llmops_assets.page import check_result
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.documents import QuestionAnswersRecord
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records

BLOCKING: dict[str, Any] = {"asset": question_answers, "blocking": True, "partitions_def": dataset_versions}
Context = dg.AssetCheckExecutionContext


@asset_check(description="Few enough passages came to nothing, and there are rows.", **BLOCKING)
def passages_answered(
    context: Context,
    records: dg.ResourceParam[Records],
    catalog: dg.ResourceParam[Catalog],
    store: dg.ResourceParam[DatasetStore],
) -> dg.AssetCheckResult:
    key = context.partition_key
    record = records.load(QuestionAnswersRecord, key)
    reasons = common_reasons(store.read(record.quarantine)) if record.quarantine else []
    return check_result(verdicts.passages_answered(record, catalog.dataset(key).generation, reasons))


@asset_check(description="On the whole, the words of the answers are those of their passages.", **BLOCKING)
def grounded(
    context: Context, records: dg.ResourceParam[Records], catalog: dg.ResourceParam[Catalog]
) -> dg.AssetCheckResult:
    key = context.partition_key
    return check_result(verdicts.grounded(records.load(QuestionAnswersRecord, key), catalog.dataset(key).generation))


@asset_check(description="Every row names the document, page and characters that it was made from.", **BLOCKING)
def traced(context: Context, records: dg.ResourceParam[Records]) -> dg.AssetCheckResult:
    return check_result(verdicts.traced(records.load(QuestionAnswersRecord, context.partition_key)))
