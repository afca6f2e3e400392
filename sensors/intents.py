"""Asks for the runs that open intents need: dataset versions to ingest, trainings, trials of studies, indexes,
deployments.

It marks nothing: a tick that is killed at any line is repeated, and asks for the same runs under the same keys.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from llmops_assets.partitions import dataset_versions, endpoints, recipes
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import MergedModelRecord
from resources import intent_runs
from resources.attempts import FIRST_PAUSE, LIMITS, Ask, Attempt, Held, Step, Underway, next_step
from resources.catalog import Catalog, Intent, NotFound
from resources.encryption import EncryptionError
from resources.records import Records
from sensors.gates import unmet_gates
from sensors.runs import run_for

INGESTED = ("dataset", "quality_report", "clean_dataset", "splits")
WRITTEN = "question_answers"
LOOK_AGAIN = timedelta(minutes=1)
"""How long what is held is taken to be held for the same reason, if nothing else is wanted meanwhile."""
REQUEST = "training_request"
JOBS = {
    # A job has one kind of partition, so what one sensor asks for is several.
    name: dg.define_asset_job(name, selection=dg.AssetSelection.assets(*assets), description=description)
    for name, assets, description in (
        ("ingest", (WRITTEN, *INGESTED), "A registered dataset version, from its files to its splits."),
        ("make_recipe", ("recipe",), "The recipe of a training."),
        ("trial", ("training_plan", "adapter"), "A trial of a study: trained to be compared, and no further."),
        ("deploy", ("deployment",), "An endpoint, brought to what is wanted of it."),
        ("index", ("retrieval_index",), "The passages of a dataset version, indexed by an encoder."),
    )
}
"""What is run: for an intent the job of its kind, and before a training its recipe."""
INTENT, ATTEMPT = "intent", "attempt"
"""Metadata of a `training_request`: the intent that it was reported for, and which time that was."""


def make(interval: int, first_pause: timedelta = FIRST_PAUSE) -> dg.SensorDefinition:
    """The sensor, evaluated every `interval` seconds at most; it waits for `first_pause` before a second attempt."""

    @dg.sensor(
        name="intents",
        jobs=list(JOBS.values()),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="What somebody wants becomes partitions, runs and `training_request` events. A run that was "
        "cancelled or died is asked for again, a few times; what is held says why.",
    )
    def intents(
        context: dg.SensorEvaluationContext, catalog: dg.ResourceParam[Catalog], records: dg.ResourceParam[Records]
    ) -> dg.SensorResult | dg.SkipReason:
        wanted = catalog.intents.open()
        if not wanted:
            # An instance costs more than all else here, so it is made only where there is something to ask it.
            return dg.SkipReason("nothing is wanted")
        now = datetime.now(UTC)
        if reasons := _still_held(context.cursor, wanted, now):
            return dg.SkipReason("; ".join(reasons))
        tick = Tick(context.instance, catalog, records, now, first_pause)
        tick.attempts = intent_runs.attempts(context.instance, [intent.name for intent in wanted])
        # What a run acknowledged since the intents were read is done; the runs were read after that.
        open_now = {intent.name for intent in catalog.intents.open()}
        for intent in wanted:
            if intent.name in open_now:
                tick.take_up(intent)
        return tick.result()

    return intents


@dataclass
class Tick:
    """One look at the open intents, and what it asks for."""

    instance: dg.DagsterInstance
    catalog: Catalog
    records: Records
    now: datetime
    first_pause: timedelta
    attempts: Mapping[str, list[Attempt]] = field(default_factory=dict)
    runs: list[dg.RunRequest] = field(default_factory=list)
    events: list[dg.AssetMaterialization] = field(default_factory=list)
    added: dict[str, set[str]] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    def take_up(self, intent: Intent) -> None:
        """Ask for what an intent needs, or note why nothing is asked for."""
        carry_out = _CARRY_OUT.get(intent.kind)
        if carry_out is None:
            return
        try:
            self.steps[intent.name] = carry_out(self, intent)
        except (ValueError, OSError, LookupError, EncryptionError) as error:
            # A record that cannot be read, for example: that is this intent's, and the others are taken up.
            self.steps[intent.name] = Held(f"{type(error).__name__}: {error}")

    def result(self) -> dg.SensorResult | dg.SkipReason:
        reasons = {name: step.reason for name, step in self.steps.items() if not isinstance(step, Ask)}
        held = [name for name, step in self.steps.items() if isinstance(step, Held)]
        cursor = None
        if len(held) == len(self.steps):
            cursor = json.dumps({"at": self.now.timestamp(), "held": {name: reasons[name] for name in held}})
        return dg.SensorResult(
            run_requests=self.runs,
            asset_events=self.events,
            dynamic_partitions_requests=[
                dg.AddDynamicPartitionsRequest(name, sorted(keys)) for name, keys in sorted(self.added.items())
            ],
            cursor=cursor or "",
            skip_reason=None
            if self.runs
            else dg.SkipReason("; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "nothing is due"),
        )

    def next_step(self, intent: str, kind: str, attempts: list[Attempt]) -> Step:
        return next_step(attempts, LIMITS[kind], self.now, self.first_pause)

    def run(self, intent: Intent, partition: str, *assets: str) -> Step:
        """Ask for a run of `assets` when it is due."""
        step = self.next_step(intent.name, intent.kind, self.attempts.get(intent.name, []))
        if isinstance(step, Ask):
            self.runs.append(run_for(intent.name, step.number, partition, *assets, job=intent.kind))
        return step

    def add_partition(self, definition: dg.DynamicPartitionsDefinition, key: str) -> bool:
        """Have a partition added; True when it was there."""
        name = str(definition.name)
        if self.instance.has_dynamic_partition(name, key):
            return True
        self.added.setdefault(name, set()).add(key)
        return False

    def ingest(self, intent: Intent) -> Step:
        try:
            entry = self.catalog.dataset_entry(intent.key)
        except NotFound as error:
            return Held(str(error))
        if entry.status == "erased":
            return Held(f"{intent.key} was erased on a person's request")
        was_there = self.add_partition(dataset_versions, intent.key)
        if was_there and not self.attempts.get(intent.name) and self.records.find(SplitsRecord, intent.key):
            # Asked for again though it is there: nothing is to be done, and this is what was observed.
            reason = f"{intent.key} was ingested before"
            self.catalog.intents.acknowledge("ingest", intent.key, intent.revision, reason=reason, actor="intents")
            return Underway(reason)
        # Rows that a model writes about documents come before they are ingested.
        return self.run(intent, intent.key, *((WRITTEN,) if entry.spec.generation else ()), *INGESTED)

    def deploy(self, intent: Intent) -> Step:
        try:
            endpoint = self.catalog.endpoint(intent.key)
        except NotFound as error:
            return Held(str(error))
        if endpoint.state == "deleting":
            return Held(f"endpoint {intent.key} is being deleted")
        self.add_partition(endpoints, intent.key)
        step = self.run(intent, intent.key, "deployment")
        if isinstance(step, Ask) or not endpoint.message:
            return step
        return type(step)(f"{step.reason} ({endpoint.message})")

    def index(self, intent: Intent) -> Step:
        dataset, recipe = intent.key.split("|")
        try:
            entry = self.catalog.dataset_entry(dataset)
        except NotFound as error:
            return Held(str(error))
        if entry.status == "erased":
            return Held(f"{dataset} was erased on a person's request")
        partitions = [self.add_partition(dataset_versions, dataset), self.add_partition(recipes, recipe)]
        if self.records.find(SplitsRecord, dataset) is None:
            return Underway(f"waits for the splits of {dataset}")
        # A run of a cell of the product can be asked for only once its two partitions are there.
        return self.run(intent, intent.key, "retrieval_index") if all(partitions) else Ask(1)

    def trial(self, intent: Intent) -> Step:
        ready, step = self._prepare_training(intent)
        # A run of a cell of the product can be asked for only once its two partitions are there.
        return self.run(intent, intent.key, "training_plan", "adapter") if ready and step is None else step

    def train(self, intent: Intent) -> Step:
        _ready, step = self._prepare_training(intent)
        if step is not None and not isinstance(step, Ask):
            return step
        reported = self._reported(intent)
        step = self.next_step(intent.name, "train", [reported] if reported else [])
        if not isinstance(step, Ask):
            return step
        going_on = intent_runs.newest_run(self.instance, intent.key, "adapter")
        if going_on is not None and intent_runs.is_underway(going_on):
            # Automation takes a request that comes while the cell is worked on for done with that work.
            return Underway(f"run {going_on.dagster_run.run_id}, which was asked for before, is under way")
        self.events.append(
            dg.AssetMaterialization(
                REQUEST,
                partition=intent.key,
                metadata={
                    "requested_by": intent.requested_by,
                    "requested_at": dg.MetadataValue.timestamp(intent.requested_at),
                    INTENT: intent.name,
                    ATTEMPT: step.number,
                    **({"reason": intent.detail["reason"]} if "reason" in intent.detail else {}),
                },
                tags={"dagster/data_version": f"{intent.name}:{step.number}"},
            )
        )
        return step

    def _prepare_training(self, intent: Intent) -> tuple[bool, Step | None]:
        """Have the partitions and the recipe of a training made; whether all is there, and what it waits for."""
        dataset, recipe = intent.key.split("|")
        try:
            base = self.catalog.recipe(recipe).get("base_model_ref") or ""
        except NotFound as error:
            return False, Held(str(error))
        if "|" in base and self.records.find(MergedModelRecord, base) is None:
            return False, Underway(f"waits for {base}, which it starts from")
        partitions = [self.add_partition(dataset_versions, dataset), self.add_partition(recipes, recipe)]
        step = self._make_recipe(intent, recipe)
        if isinstance(step, Held):
            return False, step
        return all(partitions), None if all(partitions) else Ask(1)

    def _make_recipe(self, intent: Intent, recipe: str) -> Step | None:
        """Ask for a recipe that is not materialised yet; None when it is."""
        recipe_key = dg.AssetKey("recipe")
        found = dg.AssetRecordsFilter(recipe_key, asset_partitions=[recipe])
        if self.instance.fetch_materializations(found, limit=1).records:
            return None
        if any(request.partition_key == recipe for request in self.runs):
            return Ask(1)
        name = f"{intent.name}:recipe"
        attempts = intent_runs.attempts(self.instance, [name])[name]
        running = intent_runs.newest_run(self.instance, recipe, "recipe")
        if running is not None and intent_runs.is_underway(running):
            return Underway(f"run {running.dagster_run.run_id} makes recipe {recipe}")
        step = self.next_step(name, "recipe", attempts)
        if isinstance(step, Ask):
            self.runs.append(run_for(name, step.number, recipe, "recipe", job="make_recipe"))
            return step
        return type(step)(f"recipe {recipe}: {step.reason}")

    def _reported(self, intent: Intent) -> Attempt | None:
        """The last event that was reported for an intent, as an attempt: automation starts its run by itself."""
        wanted = dg.AssetRecordsFilter(dg.AssetKey(REQUEST), asset_partitions=[intent.key])
        for record in self.instance.fetch_materializations(wanted, limit=10).records:
            metadata = record.asset_materialization.metadata if record.asset_materialization else {}
            if INTENT in metadata and metadata[INTENT].value == intent.name:
                number, at = int(metadata[ATTEMPT].value), datetime.fromtimestamp(record.timestamp, UTC)
                run = intent_runs.newest_run(self.instance, intent.key, "adapter", at)
                if run is not None:
                    return intent_runs.attempt(self.instance, run, number)
                return Attempt(number, "waiting", error=self._awaited(intent.key))
        return None

    def _awaited(self, cell: str) -> str:
        """What automation waits for before it trains a requested cell."""
        dataset, _recipe = cell.split("|")
        if self.records.find(SplitsRecord, dataset) is None:
            ingest = self.catalog.intents.newest("ingest", dataset)
            step = self.steps.get(ingest.name) if ingest is not None and ingest.closed_at is None else None
            return f"waits for the splits of {dataset}" + (
                f": {step.reason}" if step is not None and not isinstance(step, Ask) else ""
            )
        unmet = unmet_gates(self.instance, dataset)
        return f"waits for checks of {dataset}: {'; '.join(unmet)}" if unmet else "waits for automation to start it"


_CARRY_OUT: dict[str, Callable[[Tick, Intent], Any]] = {
    "ingest": Tick.ingest,
    "deploy": Tick.deploy,
    "index": Tick.index,
    "trial": Tick.trial,
    "train": Tick.train,
}


def _still_held(cursor: str | None, wanted: list[Intent], now: datetime) -> list[str]:
    """The reasons for which all that is wanted was held a moment ago; empty when it has to be looked at again."""
    state = json.loads(cursor) if cursor else {}
    held = state.get("held", {})
    if set(held) != {intent.name for intent in wanted}:
        return []
    if now.timestamp() - state["at"] >= LOOK_AGAIN.total_seconds():
        return []
    return [f"{name}: {reason}" for name, reason in held.items()]
