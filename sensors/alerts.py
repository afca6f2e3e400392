"""Tells people of what goes wrong, and notes that the daemon lives."""

import dagster as dg

from llmops_assets.operations import alerts as operations
from llmops_assets.wiring import Wiring


def make(interval: int, wiring: Wiring) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most. Without it the heartbeat stops, which others watch."""

    @dg.sensor(
        name="alerts",
        target=dg.AssetSelection.assets("drift_report"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Failed runs and checks, drift, decisions, servers that do not answer, and what is wanted and not "
        "done become alerts: told once by log, webhook or e-mail, and again when they are over.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        operations.beat(wiring)
        looked = operations.look(wiring)
        for fault in (*looked.faults, *looked.undelivered):
            context.log.warning(fault)
        counts = f"{len(looked.changed.raised)} began, {len(looked.changed.resolved)} ended, {looked.delivered} told"
        return dg.SkipReason("; ".join([counts, *looked.faults, *looked.undelivered]))

    return alerts
