"""The asset of drift: what an endpoint is asked and answers, against what it was trained on and what was before."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets import plots
from llmops_assets.drift import report, window
from llmops_assets.drift.compare import BEFORE, TRAINING, compare, judged
from llmops_assets.drift.features import Measures, held_out, of_rows, of_window
from llmops_assets.drift.history import added, last_good
from llmops_assets.evaluation.judge import is_refusal
from llmops_assets.partitions import endpoints
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.serving import DriftPoint, DriftRecord
from llmops_assets.records.traffic import TrafficRecord
from llmops_assets.serving import rollout
from llmops_assets.serving.report import questions_with_category, traffic_plot
from llmops_assets.specs.policy import Policy
from llmops_assets.toxicity.scorers import scorer
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.tracking import Tracking


@dg.asset(
    group_name="serving",
    partitions_def=endpoints,
    deps=["deployment", "traffic"],
    kinds={"polars", "scipy"},
    owners=["team:ml"],
    code_version="2",
    # It is asked for every 500 requests. An endpoint that users still talk to and nobody looked at for a week is odd.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=14), warn_window=timedelta(days=7)),
    description="The last days of an endpoint against the training questions of the model that most users get, and "
    "against the last window in which nothing differed: lengths, language, categories, refusals, failures, toxicity, "
    "personal data, ratings, latency, and how well a classifier tells the questions apart. A difference counts when it "
    "is of consequence and beyond chance, all features together, with users as the unit.",
)
def drift_report(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    artifacts: dg.ResourceParam[Artifacts],
    store: dg.ResourceParam[DatasetStore],
    tracking: dg.ResourceParam[Tracking],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    name, rules = context.partition_key, policy.drift
    by_model = rollout.shares(catalog.endpoint(name).routes)
    if not by_model:
        raise dg.Failure(f"endpoint {name!r} serves no model: materialise `deployment` first", allow_retries=False)
    model = tracking.model(max(by_model, key=by_model.__getitem__))
    splits = records.load(SplitsRecord, model.dataset)
    rows, categories = questions_with_category(store.read(splits.manifests["train"]), splits.type)
    toxic = scorer(policy.datasets.toxicity)
    how = Measures.learned(
        rows,
        categories,
        is_toxic=lambda texts: (toxic.groups(texts).list.len() > 0).to_numpy(),
        is_refusal=is_refusal,
        placeholders=list(policy.datasets.pii.placeholders.values()),
    )

    def is_whole(day: str) -> bool:
        found = records.find(TrafficRecord, dg.MultiPartitionKey({"endpoint": name, "day": day}))
        return found is not None and found.is_whole

    def at(since: datetime, until: datetime) -> window.Window:
        return window.read(catalog, artifacts, name, since, until, per_user=rules.requests_per_user, is_whole=is_whole)

    now = datetime.now(UTC)
    past = records.find(DriftRecord, name)
    history = past.history if past is not None else []
    current = at(now - timedelta(days=rules.window_days), now)
    measured = of_window(current, how)
    found = compare(measured, of_rows(held_out(rows), how), TRAINING, rules)
    good = last_good(history, current.since, model=model.ref)
    if good is not None:
        found += compare(measured, of_window(at(good.since, good.until), how), BEFORE, rules)
    found = judged(found, rules.alpha)
    rated = current.frame["rating"].drop_nulls()
    point = DriftPoint(
        since=current.since,
        until=current.until,
        requests=current.frame.height,
        drifted=[one.name for one in found if one.drifted],
        exceeds={one.name: one.exceeds for one in found},
        levels=report.levels(measured),
        model_ref=model.ref,
    )
    against = {name: [one for one in found if one.against == name] for name in (TRAINING, BEFORE)}
    record = DriftRecord(
        endpoint=name,
        model_ref=model.ref,
        requests=current.frame.height,
        reference_rows=len(rows),
        features={one.feature: report.figures(one) for one in against[TRAINING]},
        drifted=[one.feature for one in against[TRAINING] if one.drifted],
        ratings=len(rated),
        rating_mean=float(rated.mean()) if len(rated) else None,
        since=current.since,
        until=current.until,
        before_since=good.since if good else None,
        before_until=good.until if good else None,
        before_features={one.feature: report.figures(one) for one in against[BEFORE]},
        before_drifted=[one.feature for one in against[BEFORE] if one.drifted],
        history=added(history, point),
    )
    records.save(name, record)
    few = f"fewer than {rules.fewest_requests} requests"
    metadata = {
        "model": model.ref,
        "requests": record.requests,
        "window": f"{current.since:%Y-%m-%d %H:%M} to {current.until:%Y-%m-%d %H:%M} UTC",
        "last good window": f"{good.since:%Y-%m-%d} to {good.until:%Y-%m-%d}" if good else "none that ended before",
        "reference rows": record.reference_rows,
        "drifted": ", ".join(point.drifted) or ("nothing" if found else few),
        "ratings": record.ratings,
        "training data": model.dataset,
    }
    if record.rating_mean is not None:
        metadata["rating mean"] = record.rating_mean
    if found:
        metadata |= {f"{one.name}, over its floor": one.exceeds for one in found}
        metadata["features"] = dg.MetadataValue.table([dg.TableRecord(row) for row in report.table(found)])
    for title, fig in (
        ("plot", report.distributions(found)),
        ("over time", report.over_time(record.history)),
        ("traffic", traffic_plot(current.frame) if current.frame.height else None),
    ):
        if fig is not None:
            metadata[title] = dg.MetadataValue.md(plots.png_markdown(fig, title))
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(_digest(record.model_dump())))


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
