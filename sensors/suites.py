"""Has splits compared with the evaluation suites again: when those changed, or when a comparison was cut off."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from llmops_assets.datasets.suites import is_current, registered_suites
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import ContaminationRecord, SplitsRecord
from resources import intent_runs
from resources.attempts import FIRST_PAUSE, LIMITS, Ask, Held, next_step
from resources.catalog import Catalog, Dataset
from resources.intent_runs import PARTITION_TAG, tags_of
from resources.records import Records
from sensors.gates import SPLITS, evaluated

CHECK = dg.AssetCheckKey(SPLITS, "no_contamination")
SETTLE = timedelta(seconds=30)
"""How long the suites must stay as they are: several that are registered together are compared at once."""
LONGEST_SETTLE = timedelta(minutes=5)
"""How long a suite that is being ingested is waited for."""
LOOK_AGAIN = timedelta(minutes=1)
"""Time between two looks while the catalog does not change: somebody may make splits without it."""


def make(interval: int, settle: timedelta = SETTLE, first_pause: timedelta = FIRST_PAUSE) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="registered_suites",
        target=dg.AssetSelection.checks(CHECK),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When the evaluation suites have changed and settled, splits that were made before are compared "
        "with them: one run a version, again if it was cancelled.",
    )
    def registered_suites_changed(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog], records: dg.ResourceParam[Records]
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        before = json.loads(context.cursor) if context.cursor else {}
        newest = next(iter(catalog.audit_log(limit=1)), {"id": 0})["id"]
        is_quiet = before.get("audit") == newest and not before.get("unsettled")
        if is_quiet and now.timestamp() - before["at"] < LOOK_AGAIN.total_seconds():
            return dg.SkipReason("; ".join(before["held"]) or "every version was compared with the suites as they are")
        suites = registered_suites(catalog, records)
        digest = hashlib.sha256(json.dumps(suites).encode()).hexdigest()[:16]
        changed_at = before["changed_at"] if before.get("digest") == digest else now.timestamp()
        cursor = {"audit": newest, "at": now.timestamp(), "digest": digest, "changed_at": changed_at, "held": []}
        entries = catalog.datasets()
        # At the first look nobody can tell since when the suites are as they are: nothing is waited for.
        age = timedelta(seconds=now.timestamp() - changed_at) if before else LONGEST_SETTLE
        if age < settle or (age < LONGEST_SETTLE and _ingesting(entries, catalog)):
            return dg.SensorResult(
                skip_reason=dg.SkipReason("suites are being registered: they are compared once all are there"),
                cursor=json.dumps(cursor | {"unsettled": True}),
            )
        stale = _stale(context.instance, entries, records, suites)
        names = {key: f"compare_suites:{key}:{materialization}:{digest}" for key, materialization in stale.items()}
        attempts = intent_runs.attempts(context.instance, names.values())
        requests, underway = [], []
        for key, name in names.items():
            if _busy(context.instance, key):
                underway.append(key)
                continue
            step = next_step(attempts[name], LIMITS["compare_suites"], now, first_pause)
            if isinstance(step, Ask):
                requests.append(_run(name, step.number, key))
            elif isinstance(step, Held):
                cursor["held"].append(
                    f"{key} is not compared with the suites, which holds its trainings: {step.reason}"
                )
            else:
                underway.append(key)
        reasons = [*cursor["held"], *(f"{key} is being compared" for key in underway)]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("; ".join(reasons) or "every version was compared"),
            cursor=json.dumps(cursor | {"unsettled": bool(requests or underway)}),
        )

    return registered_suites_changed


def _ingesting(entries: list[Dataset], catalog: Catalog) -> bool:
    wanted = {intent.key for intent in catalog.intents.open("ingest")}
    return any(e.spec.type == "eval_suite" and e.key in wanted for e in entries)


def _stale(
    instance: dg.DagsterInstance, entries: list[Dataset], records: Records, suites: Mapping[str, str]
) -> dict[str, int]:
    """The versions whose splits were not compared with `suites`, each with the id of the splits' materialisation."""
    used = [e.key for e in entries if e.spec.type != "eval_suite" and e.status not in ("archived", "erased")]
    known = set(instance.get_dynamic_partitions(dataset_versions.name))
    splits = {key: found for key in used if key in known and (found := records.readable(SplitsRecord, key)) is not None}
    checks = evaluated(instance, CHECK, list(splits))
    return {
        key: check.materialization
        for key, found in splits.items()
        if (check := checks.get(key)) is not None
        and not (check.is_current and is_current(records.readable(ContaminationRecord, key), found, suites))
    }


def _busy(instance: dg.DagsterInstance, partition: str) -> bool:
    """Whether a run works on a version, or waits to: it may be this comparison, or make the splits anew."""
    newest = instance.get_run_records(dg.RunsFilter(tags={PARTITION_TAG: partition}), limit=20)
    # Of those that died only the newest may still be taken up again: the others have been.
    return any(not r.dagster_run.is_finished for r in newest) or any(map(intent_runs.is_underway, newest[:1]))


def _run(name: str, attempt: int, partition: str) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{name}:{attempt}",
        # As a tag, because Dagster looks for the partitions of a request in its assets, and has none here.
        tags={PARTITION_TAG: partition, **tags_of(name, attempt)},
        asset_selection=[],
        asset_check_keys=[CHECK],
    )
