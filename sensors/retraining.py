"""Has recipes trained anew by the rules of retraining."""

import dagster as dg

from llmops_assets.operations.retrainings import request_due
from llmops_assets.wiring import Wiring


def make(interval: int, wiring: Wiring) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most. What it wants is carried out by the sensor `intents`."""

    @dg.sensor(
        name="retraining",
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Drift, enough newly reviewed answers or a new version of a dataset become a training by the rules "
        "that somebody set (`llmops retrain`): after a cool-down, within a budget, one at a time of a recipe.",
    )
    def retraining(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        if not wiring.catalog.retrainings.rules():
            return dg.SkipReason("there is no rule of retraining")
        outcomes = request_due(wiring)
        for one in outcomes:
            if one.is_due:
                context.log.info(f"rule {one.rule}: {one.dataset}|{one.recipe}: {one.reason}")
        return dg.SkipReason(
            "; ".join(f"{one.rule}: {'asked for: ' if one.is_due else ''}{one.reason}" for one in outcomes)
        )

    return retraining
