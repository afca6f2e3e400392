"""Keeps model servers in line with the catalog: starts again what died, stops what nothing routes to."""

import dagster as dg

from resources.model_server import ModelServers

SECONDS = 15


@dg.sensor(
    name="model_servers",
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A model server that died is started again, one that no endpoint routes to is stopped.",
)
def model_servers(context: dg.SensorEvaluationContext, servers: dg.ResourceParam[ModelServers]) -> dg.SkipReason:
    """Start, stop and restart model servers until they are as their endpoints want them."""
    # A process is started and not waited for: the next look sees whether it answers.
    done = servers.reconcile(wait=False)
    for line in done:
        context.log.warning(line)
    return dg.SkipReason("; ".join(done) or "every model server is as it should be")
