"""The asset of traffic: a day of an endpoint, compacted from the gateway's log; what is past its retention goes."""

import hashlib
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.partitions import traffic_days
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.traffic import TrafficRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.traffic import days
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.records import Records


@dg.asset(
    group_name="serving",
    partitions_def=traffic_days,
    deps=["deployment"],
    kinds={"polars", "parquet"},
    owners=["team:ml"],
    code_version="1",
    description="A day (UTC) of an endpoint's requests with answers, ratings, corrections and scores, as Parquet: "
    "masked once more by today's rules, sealed where a key is set. What is older than the policy's retention is "
    "deleted, here and in the catalog; the sums that experiments rest on stay.",
)
def traffic(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    artifacts: dg.ResourceParam[Artifacts],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    key = context.partition_key.keys_by_dimension
    endpoint, day = key["endpoint"], key["day"]
    begin, end = days.bounds(day)
    exposures = catalog.exposures(endpoint=endpoint, since=begin, until=end)
    found = days.compact(
        exposures,
        catalog.feedback(endpoint=endpoint, exposed_since=begin, exposed_until=end),
        Masker.of(policy),
    )
    file = days.write(artifacts, endpoint, day, found.frame)
    frame = found.frame
    record = TrafficRecord(
        endpoint=endpoint,
        day=day,
        file=file,
        requests=frame.height,
        users=frame["user"].n_unique(),
        rated=frame["rating"].count(),
        corrected=frame["correction"].count(),
        failed=int((frame["status"] >= 500).sum()),
        masked_again=found.masked_again,
        is_whole=end <= datetime.now(UTC),
        gaps=catalog.missing_entries(endpoint, begin, end),
    )
    records.save(context.partition_key, record)
    before = datetime.now(UTC) - timedelta(days=policy.traffic.retention_days)
    expired_rows, expired_days = days.expire(catalog, artifacts, endpoint, before)
    facts = record.model_dump(include={"requests", "users", "rated", "corrected", "failed", "masked_again", "is_whole"})
    facts |= {"file": file, "expired requests": expired_rows, "expired days": expired_days}
    content = hashlib.sha256(frame.write_json().encode()).hexdigest()[:16]
    return dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(content))
