"""MLflow as the platform uses it: training runs with their true status, and the model registry.

A small client of our own rather than dagster-mlflow's resource: that one opens one MLflow run for each Dagster run and
leaves it FINISHED when the Dagster run fails. Here a run belongs to one training and carries the status it earned.
"""

from resources.tracking.registry import Tracking
from resources.tracking.runs import OpenedBeside, RunStatus
from resources.tracking.versions import ModelState, ModelVersion, UnknownModel

__all__ = ["ModelState", "ModelVersion", "OpenedBeside", "RunStatus", "Tracking", "UnknownModel"]
