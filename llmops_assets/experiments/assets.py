"""The asset of an experiment: the state of an A/B test, and its decision once there is one."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets import plots
from llmops_assets.experiments import holdout, report
from llmops_assets.experiments.decision import Decision, model_for
from llmops_assets.experiments.plan import ARMS
from llmops_assets.experiments.running import status_of
from llmops_assets.partitions import experiments
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import Policy
from resources.catalog import Catalog, Endpoint, Experiment, Withheld
from resources.catalog.erasures import ModelAffected, assert_not_affected
from resources.records import Records
from resources.tracking import Tracking, UnknownModel


@dg.asset(
    group_name="serving",
    partitions_def=experiments,
    deps=[dg.AssetDep("deployment", partition_mapping=dg.AllPartitionMapping())],
    kinds={"polars", "scipy"},
    owners=["team:ml"],
    code_version="1",
    # Whoever runs a test waits for its decision; a report that nobody renewed for a day is no decision's ground.
    freshness_policy=dg.FreshnessPolicy.time_window(fail_window=timedelta(days=3), warn_window=timedelta(days=1)),
    description="An A/B test as far as it is: users, ratings and guardrails of both models, a confidence sequence that "
    "may be looked at at any time, and the decision. A decision is final: it is written into the catalog once, with "
    "the figures it was made on, and later data never take it back.",
)
def ab_report(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    tracking: dg.ResourceParam[Tracking],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    name = context.partition_key
    experiment = catalog.experiment(name)
    status = status_of(experiment, catalog, policy.experiments, _decided(experiment), datetime.now(UTC))
    analysis, decision = status.deciding, status.decision
    for model, reason in status.harmful.items():
        # The others go on; whom this one harms have the control from now on.
        catalog.dropped_arms.note(
            name,
            model,
            endpoint=experiment.endpoint,
            phase=catalog.endpoint(experiment.endpoint).phase,
            reason=reason,
            figures={},
            actor="ab_report",
        )
    figures = report.figures(analysis) | {"winner": decision.winner}
    figures["dropped"] = analysis.plan.treatment in status.dropped
    if len(status.comparisons) > 1:
        figures["comparisons"] = report.comparisons(status)
    held = holdout.gain(catalog, experiment.endpoint, policy.experiments, datetime.now(UTC))
    figures["gain_over_holdout"] = None if held is None else holdout.figures(held)
    carry_out = _carrying_out(decision, experiment, catalog, tracking) if decision.final else None
    if decision.final and not catalog.decide_experiment(
        name, decision.outcome, decision.reason, figures, carry_out=carry_out
    ):
        # It was decided before, by an earlier report or by hand: what is on record is what counts.
        experiment = catalog.experiment(name)
        decision = _decided(experiment) or decision
        figures |= {"decided_on": experiment.figures}
    record = AbReportRecord(
        experiment=name,
        decision=decision.outcome,
        reason=decision.reason,
        users=report.counts(status, "users"),
        exposures=report.counts(status, "requests"),
        figures=figures,
        decided_at=decision.decided_at,
    )
    records.save(name, record)
    context.log.info("%s: %s", decision.outcome, decision.reason)
    metadata = {
        "decision": decision.outcome,
        "reason": decision.reason,
        "figures": dg.MetadataValue.table(
            [dg.TableRecord(row) for c in status.comparisons for row in report.table(c.analysis)]
        ),
        "difference over users": dg.MetadataValue.md(
            plots.png_markdown(report.sequence_plot(analysis), "difference in ratings as users arrived")
        ),
        "difference over time": dg.MetadataValue.md(
            plots.png_markdown(report.time_plot(analysis), "difference in ratings over time")
        ),
        "guardrails": dg.MetadataValue.md(plots.png_markdown(report.guardrails_plot(analysis), "guardrails")),
        "users by day": dg.MetadataValue.md(plots.png_markdown(report.users_plot(analysis), "new users by day")),
        "ratings": dg.MetadataValue.md(plots.png_markdown(report.ratings_plot(analysis), "ratings by arm")),
        "details": dg.MetadataValue.json(figures),
        "users": sum(record.users.values()),
        "requests": sum(record.exposures.values()),
        "sample ratio p": analysis.srm_p,
    }
    if held is not None:
        metadata["gain over the holdout"] = holdout.sentence(held)
    # Numbers of their own: Dagster plots them from report to report.
    for arm, measured in zip(ARMS, analysis.arms, strict=True):
        shares = {"mean rating": measured.mean_rating, "slow share": measured.slow_share}
        shares |= {"response rate": measured.response_rate, "latency p95 (ms)": measured.latency_p95_ms}
        shares |= {"failed share": measured.failed_share, "users who rated": measured.rated_users}
        metadata |= {f"{name}, {arm}": value for name, value in shares.items() if value is not None}
    if analysis.rating is not None:
        metadata["rating difference"] = analysis.rating.difference
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(_hash(record)))


def _carrying_out(
    decision: Decision, experiment: Experiment, catalog: Catalog, tracking: Tracking
) -> Callable[[Endpoint], DeploymentSpec | Withheld | None]:
    """What the endpoint shall serve by the decision; the registry is asked here, before the decision is written."""
    ref = model_for(decision, experiment.spec)
    if ref is None:
        # Both models keep their users, and the experiment stays open until a person has chosen.
        winner = decision.winner if experiment.spec.other_treatments else "treatment"
        by_hand = Withheld(
            f"auto_promote is off: `llmops ab conclude {experiment.name} --winner {winner}` (or control) switches "
            "the endpoint"
        )
        return lambda _endpoint: by_hand
    try:
        assert_not_affected(catalog, ref=ref)
        model = tracking.model(ref)
    except (ModelAffected, UnknownModel) as error:
        # The decision stands, but nobody acts on it: a person has to choose another model.
        refusal = Withheld(str(error))
        return lambda _endpoint: refusal
    served_as = catalog.served_as(experiment.spec.endpoint, model.ref)
    return lambda endpoint: endpoint.spec.for_all_users(model.ref, model.family, model.job_type, served_as)


def _decided(experiment: Experiment) -> Decision | None:
    if experiment.decision is None:
        return None
    winner = (experiment.figures or {}).get("winner")
    return Decision(experiment.decision, experiment.reason or "", experiment.decided_at, winner)


def _hash(record: AbReportRecord) -> str:
    """The content of a report, which the time of looking is no part of, nor what is foretold from it."""
    content = record.model_dump(mode="json")
    content["figures"] = {key: value for key, value in content["figures"].items() if key not in ("at", "days_left")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
