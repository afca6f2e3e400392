"""Turns requested trainings into events of the asset graph, each once its base model is there."""

import dagster as dg

from llmops_assets.partitions import dataset_versions, recipes
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.specs.names import STUDY_ACTOR, training_key
from resources.catalog import Catalog, TrainingRequest
from resources.records import Records
from sensors.runs import run_of


def waits_for(request: TrainingRequest, catalog: Catalog, records: Records) -> str | None:
    """The earlier training that a requested one starts from while that is not done, else None."""
    base = catalog.recipe(request.recipe).get("base_model_ref") or ""
    return base if "|" in base and records.find(MergedModelRecord, base) is None else None


def is_trial(request: TrainingRequest) -> bool:
    """Whether a hyperparameter search asks, and no person."""
    return request.requested_by.startswith(STUDY_ACTOR)


def trials(interval: int) -> dg.SensorDefinition:
    """The sensor that trains the trials of studies, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="study_trials",
        target=dg.AssetSelection.assets("training_plan", "adapter"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A trial of a hyperparameter search is planned and trained, to be compared, and goes no further.",
    )
    def study_trials(
        context: dg.SensorEvaluationContext,
        catalog: dg.ResourceParam[Catalog],
        records: dg.ResourceParam[Records],
    ) -> dg.SensorResult:
        datasets = set(context.instance.get_dynamic_partitions(dataset_versions.name))
        keys = set(context.instance.get_dynamic_partitions(recipes.name))
        ready = [
            request
            for request in catalog.open_training_requests()
            if is_trial(request)
            # A run of a cell of the product can be asked for only once its two partitions are there.
            and request.dataset in datasets
            and request.recipe in keys
            and waits_for(request, catalog, records) is None
        ]
        catalog.mark_reported([request.id for request in ready])
        return dg.SensorResult(
            run_requests=[
                run_of(f"trial:{r.id}", training_key(r.dataset, r.recipe), "training_plan", "adapter") for r in ready
            ]
        )

    return study_trials


def make(interval: int) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most."""

    @dg.sensor(
        name="training_requests",
        target=dg.AssetSelection.assets("recipe"),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="A requested training becomes a `training_request` event; automation trains from there.",
    )
    def training_requests(
        context: dg.SensorEvaluationContext,
        catalog: dg.ResourceParam[Catalog],
        records: dg.ResourceParam[Records],
    ) -> dg.SensorResult | dg.SkipReason:
        known_datasets = set(context.instance.get_dynamic_partitions(dataset_versions.name))
        known_recipes = set(context.instance.get_dynamic_partitions(recipes.name))
        ready, held = [], []
        for request in catalog.open_training_requests():
            (held if waits_for(request, catalog, records) else ready).append(request)
        if not ready:
            return dg.SkipReason(
                "; ".join(f"{r.dataset}|{r.recipe} waits for {waits_for(r, catalog, records)}" for r in held)
                or "no training is requested"
            )
        new_recipes = sorted({r.recipe for r in ready} - known_recipes)
        new_datasets = sorted({r.dataset for r in ready} - known_datasets)
        # Nobody asked for a trial's model: it gets its partitions here and its run elsewhere, but no request.
        wanted = [r for r in ready if not is_trial(r)]
        catalog.mark_reported([r.id for r in wanted])
        return dg.SensorResult(
            run_requests=[run_of(key, key, "recipe") for key in new_recipes],
            dynamic_partitions_requests=[
                recipes.build_add_request(new_recipes),
                dataset_versions.build_add_request(new_datasets),
            ],
            asset_events=[
                dg.AssetMaterialization(
                    "training_request",
                    partition=training_key(r.dataset, r.recipe),
                    metadata={
                        "requested_by": r.requested_by,
                        "requested_at": dg.MetadataValue.timestamp(r.requested_at),
                    },
                )
                for r in wanted
            ],
        )

    return training_requests
