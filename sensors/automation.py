"""Evaluates the automation conditions of the assets."""

import dagster as dg


def make(interval: int) -> dg.AutomationConditionSensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""
    return dg.AutomationConditionSensorDefinition(
        "declarative_automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=interval,
        description="From splits and requests to registered models: each asset says itself when it is due.",
    )
