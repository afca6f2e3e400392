"""Where assets, checks, resources and sensors meet."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from llmops_assets import at_start
from llmops_assets.check_steps import by_asset
from llmops_assets.datasets import assets as dataset_assets
from llmops_assets.datasets import checks as dataset_checks
from llmops_assets.documents import assets as document_assets
from llmops_assets.documents import checks as document_checks
from llmops_assets.drift import assets as drift_assets
from llmops_assets.drift import checks as drift_checks
from llmops_assets.evaluation import assets as evaluation_assets
from llmops_assets.evaluation import checks as evaluation_checks
from llmops_assets.experiments import assets as experiment_assets
from llmops_assets.experiments import checks as experiment_checks
from llmops_assets.registry import assets as registry_assets
from llmops_assets.registry import checks as registry_checks
from llmops_assets.replay import assets as replay_assets
from llmops_assets.replay import checks as replay_checks
from llmops_assets.retrieval import assets as retrieval_assets
from llmops_assets.serving import assets as serving_assets
from llmops_assets.serving import checks as serving_checks
from llmops_assets.specs.settings import Settings
from llmops_assets.traffic import assets as traffic_assets
from llmops_assets.traffic import checks as traffic_checks
from llmops_assets.training import assets as training_assets
from llmops_assets.training import checks as training_checks
from llmops_assets.usage import assets as usage_assets
from llmops_assets.wiring import Wiring
from llmops_assets.with_parent import end_a_run_with_its_code_server
from resources.dagster_storage import share_engines
from sensors import alerts, automation, drift, experiments, failures, intents, prompts, retraining, suites, traffic


def build(settings: Settings, replaced: Mapping[str, Any] | None = None) -> dg.Definitions:
    """The whole graph over one installation; `replaced` are resources by name that take the place of the settings'."""
    w = Wiring(settings)
    interval = settings.sensor_interval_seconds
    return dg.Definitions(
        assets=dg.load_assets_from_modules(
            [
                document_assets,
                dataset_assets,
                training_assets,
                evaluation_assets,
                registry_assets,
                retrieval_assets,
                serving_assets,
                experiment_assets,
                traffic_assets,
                drift_assets,
                replay_assets,
                usage_assets,
            ],
            # Else the external asset `training_request` becomes a stub without partitions, and every cell trains.
            include_specs=True,
        ),
        asset_checks=by_asset(
            dg.load_asset_checks_from_modules(
                [
                    document_checks,
                    dataset_checks,
                    training_checks,
                    evaluation_checks,
                    registry_checks,
                    serving_checks,
                    experiment_checks,
                    traffic_checks,
                    drift_checks,
                    replay_checks,
                ]
            )
        ),
        resources=described(
            {
                "settings": settings,
                "policy": w.policy,
                "catalog": w.catalog,
                "records": w.records,
                "artifacts": w.artifacts,
                "store": w.store,
                "indexes": w.indexes,
                "tracking": w.tracking,
                "trainer": w.trainer(pipes_client(settings)),
                "servers": w.servers,
                "gateway": w.gateway,
                "engines": w.engines,
                **(replaced or {}),
            }
        ),
        sensors=[
            intents.make(interval),
            automation.make(2 * interval),
            experiments.make(2 * interval),
            suites.make(6 * interval),
            drift.make(12 * interval, w.policy.drift.every_requests),
            traffic.make(12 * interval, is_judged=w.policy.is_judged),
            prompts.make(2 * interval),
            retraining.make(12 * interval, w),
            alerts.make(6 * interval, w),
            failures.failed_runs,
        ],
        # Heavy work is in child processes already; a spawned step would cost seconds of imports.
        executor=dg.in_process_executor,
    )


RESOURCES = {
    "settings": "Where this installation keeps things and listens: the variables LLMOPS_… (docs/settings.md).",
    "policy": "What is allowed: model families, images, gates, limits. LLMOPS_POLICY_FILE names another one.",
    "catalog": "The database of datasets, wanted trainings and endpoints, experiments, traffic and the audit log.",
    "records": "What each asset left behind for those after it: one JSON document a partition.",
    "artifacts": "The root of all files that assets write; encrypted at rest where a key is set.",
    "store": "Dataset versions: immutable manifests over content-addressed Parquet chunks.",
    "indexes": "Indexes of passages: their versions, what each name stands for, and the Qdrant server, if any.",
    "tracking": "MLflow: training runs with their figures, and the model registry.",
    "trainer": "Runs the worker (images/train) in a child process, a container or a pod, and leases it a GPU.",
    "servers": "Starts, watches and stops the model servers behind the endpoints.",
    "gateway": "Changes what the gateway routes, waits until it does, and asks it.",
    "engines": "Environments of their own for what does not fit into ours: vLLM, Axolotl, llm-compressor.",
}
"""What each resource is, for Dagster's page of resources."""


def described(values: dict[str, Any]) -> dict[str, dg.ResourceDefinition]:
    """Plain objects as resources that Dagster shows with their description; KeyError for one without."""
    return {name: dg.ResourceDefinition.hardcoded_resource(value, RESOURCES[name]) for name, value in values.items()}


def pipes_client(settings: Settings) -> dg.PipesClient:
    """The Pipes client of the runner that the settings name."""
    from resources import pipes

    messages = settings.root / "pipes"
    if settings.runner == "docker":
        return pipes.docker_client(messages)
    if settings.runner == "kubernetes":
        return pipes.kubernetes_client(messages)
    return pipes.subprocess_client()


end_a_run_with_its_code_server()
share_engines()
defs = build(Settings())
at_start.over()
