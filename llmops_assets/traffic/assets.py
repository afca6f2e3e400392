"""The asset of traffic: a day of an endpoint, compacted from the gateway's log; what is past its retention goes."""

import hashlib
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets import plots
from llmops_assets.evaluation.llm_judge import JudgeError
from llmops_assets.evaluation.lone_judge import verdicts
from llmops_assets.partitions import traffic_days
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.traffic import JudgedAnswer, JudgedTrafficRecord, TrafficRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.traffic import days, judged
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
        refused={
            row["reason"]: row["requests"]
            for row in catalog.refusals.by(["reason"], endpoint=endpoint, since=begin, until=end)
        },
        masked_again=found.masked_again,
        is_whole=end <= datetime.now(UTC),
        gaps=catalog.missing_entries(endpoint, begin, end),
    )
    records.save(context.partition_key, record)
    before = datetime.now(UTC) - timedelta(days=policy.traffic.retention_days)
    expired_rows, expired_days = days.expire(catalog, artifacts, endpoint, before)
    facts = record.model_dump(include={"requests", "users", "rated", "corrected", "failed", "masked_again", "is_whole"})
    facts["refused"] = record.refused
    facts |= {"file": file, "expired requests": expired_rows, "expired days": expired_days}
    content = hashlib.sha256(frame.write_json().encode()).hexdigest()[:16]
    return dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(content))


@dg.asset(
    group_name="serving",
    partitions_def=traffic_days,
    deps=[traffic],
    kinds={"openai"},
    owners=["team:ml"],
    code_version="1",
    description="A sample of a day's answers, judged good or bad by another model (`evaluation.judge` and `judging` of "
    "the policy), and the share of good ones corrected for that model's own errors, which are known from answers that "
    "people judged too.",
)
def judged_traffic(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    artifacts: dg.ResourceParam[Artifacts],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    key = context.partition_key.keys_by_dimension
    endpoint, day, judge = key["endpoint"], key["day"], policy.evaluation.judge
    share = policy.judging.share_of(endpoint)
    if judge is None or share == 0:
        raise dg.Failure(
            f"nothing of endpoint {endpoint!r} is judged: set evaluation.judge and judging of the policy",
            allow_retries=False,
        )
    frame = days.read(artifacts, endpoint, day)
    people = judged.by_people(frame, catalog.reviews.all(endpoint=endpoint), policy.traffic.reviewers)
    sample = set(judged.chosen(frame, share, policy.judging.most_per_day)["request_id"])
    rows = [row for row in frame.iter_rows(named=True) if row["request_id"] in sample | set(people)]
    try:
        found = verdicts(judge, judged.pairs_of(rows))
    except JudgeError as error:
        raise dg.Failure(str(error)) from error
    record = JudgedTrafficRecord(
        endpoint=endpoint,
        day=day,
        judge=judge.model,
        requests=frame.height,
        share=share,
        verdicts=[
            JudgedAnswer(
                request_id=row["request_id"],
                model_ref=row["model_ref"],
                good=good,
                sampled=row["request_id"] in sample,
                people=people.get(row["request_id"]),
            )
            for row, good in zip(rows, found, strict=True)
        ],
    )
    records.save(context.partition_key, record)
    every = [one for one in records.all(JudgedTrafficRecord) if (one.endpoint, one.judge) == (endpoint, judge.model)]
    metadata = judged.facts(record, every)
    if len(every) > 1:
        metadata["over time"] = dg.MetadataValue.md(plots.png_markdown(judged.over_time(every), "judged answers"))
    content = hashlib.sha256(record.model_dump_json().encode()).hexdigest()[:16]
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(content))
