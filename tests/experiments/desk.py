"""An installation with an endpoint in a test: registry, model servers and gateway as processes, the graph's assets."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
from safetensors.numpy import save_file

from llmops_assets.experiments.assets import ab_report
from llmops_assets.experiments.checks import guardrails, no_sample_ratio_mismatch, sticky_assignment
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.endpoints import want_endpoint
from llmops_assets.operations.experiments import start_experiment
from llmops_assets.partitions import endpoints, experiments, trainings
from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.serving.assets import deployment
from llmops_assets.serving.parity import template_hash
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.names import training_key
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.content import content_hash
from resources.model_server import ModelServers
from tests.experiments import people, quality_server
from tests.gateway.desk import running_gateway
from tests.serving.conftest import RunningGateway, deployment_spec, until

SALT = "desk"
"""Gives the users their models, alike in every run."""
WINDOW = timedelta(seconds=8)
"""How long a user's ratings count: they are given at once, and a busy machine may stall for seconds."""
MOST_USERS = 5000
CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "llmops_family_version": "3.1"}


class Desk:
    """What people do with the platform, by its operations; the runs that sensors ask for are made at once."""

    def __init__(self, folder: Path, wiring: Wiring, gateway: RunningGateway, instance: dg.DagsterInstance) -> None:
        self.folder, self.wiring, self.gateway, self.instance = folder, wiring, gateway, instance
        self.catalog, self.records = wiring.catalog, wiring.records
        self.users = 0
        self.asked: list[people.Asked] = []
        self.checks: dict[str, bool] = {}

    def register(self, name: str, known: Mapping[str, str], dataset: str = "desk@v1") -> str:
        """Put a model that knows these answers into the registry, as its training and evaluation would; its ref."""
        model = self.folder / "models" / name
        model.mkdir(parents=True)
        (model / "answers.json").write_text(json.dumps(known, ensure_ascii=False), encoding="utf-8")
        (model / "config.json").write_text(json.dumps(CONFIG))
        (model / "chat_template.jinja").write_text("{{ messages }}")
        save_file({"weight": np.zeros(1, dtype=np.float32)}, model / "model.safetensors")
        answers = self.folder / "models" / f"{name}-answers.jsonl"
        # Not a row: what a server answers is this file's alone, and no evaluation has asked it.
        answers.write_text("")
        recipe, digest = f"{name}-00000001", content_hash(model)
        same = {"dataset": dataset, "recipe": recipe, "training_key": "0123456789ab"}
        metric = Metric(suite="test", name="accuracy", value=0.95, n=205)
        measured = {"metrics": [metric], "empty_answers": 0, "length_truncated": 0, "by_category": {}, "seconds": 1.0}
        cell = training_key(dataset, recipe)
        self.records.save(
            cell, EvaluationRecord(**same, **measured, model_hash=digest, answers=str(answers), items={"test": 0})
        )
        of_model = {"family": "llama", "parameters": 1000, "max_logit_difference": 0.0, "top1_agreement": 1.0}
        of_model |= {"content_hash": digest, "chat_template_hash": template_hash(model), "path": str(model)}
        self.records.save(cell, MergedModelRecord(**same, **of_model, differs_from_base=True, reloads=True))
        tags = {"dataset": dataset, "recipe": recipe, "content_hash": digest, "family": "llama", "job_type": "SFT"}
        return f"{name}@{self.wiring.tracking.register(name, model, None, tags | {'state': 'approved'})}"

    def want(self, ref: str, endpoint: str = "desk", **more: Any) -> None:
        """Say what an endpoint shall serve, and have it deployed."""
        want_endpoint(self.wiring, "kim", deployment_spec(endpoint, ref, **more), salt=SALT)
        self.carry_out()

    def carry_out(self) -> None:
        """Every deployment that is wanted, as the sensor of intents has them run."""
        for intent in self.catalog.intents.open("deploy"):
            self.instance.add_dynamic_partitions(endpoints.name, [intent.key])
            self._materialise([dg.AssetSpec("registered_model", partitions_def=trainings), deployment], intent.key)

    def compare(self, **values: Any) -> ExperimentSpec:
        """Start a test of two or more of the endpoint's models."""
        spec = {"endpoint": "desk", "duration_hours": 24, "rating_window_hours": WINDOW.total_seconds() / 3600}
        found = ExperimentSpec.model_validate(spec | values)
        start_experiment(self.wiring, "kim", found)
        self.instance.add_dynamic_partitions(experiments.name, [found.name])
        # Who comes before the gateway has read of the test is not in it.
        until(lambda: self.gateway.routes()["endpoints"][found.endpoint]["experiment"] == found.name)
        return found

    def visit(self, right: Mapping[str, str], users: int, **how: Any) -> people.Asked:
        """Let users come who were not there before, until all that they asked and rated is in the catalog."""
        numbers = range(self.users, self.users + users)
        self.users += users
        return self.visit_again(right, numbers, **how)

    def visit_again(self, right: Mapping[str, str], users: Sequence[int], **how: Any) -> people.Asked:
        """The same of users by their numbers."""
        before, rated = self.catalog.request_count(endpoint="desk"), self._ratings()
        met = people.ask(self.gateway.url, "desk", right, users, **how)
        until(lambda: self.catalog.request_count(endpoint="desk") >= before + met.requests, 60)
        until(lambda: self._ratings() >= rated + met.requests - met.failed, 60)
        self.asked.append(met)
        return met

    def decide(self, name: str, right: Mapping[str, str], *, first: int, more: int = 150) -> AbReportRecord:
        """Have users come until the test is decided, and the report of it."""
        users = first
        while self.users < MOST_USERS:
            self.visit(right, users)
            closed = datetime.now(UTC) + WINDOW
            until(lambda at=closed: datetime.now(UTC) > at)
            found = self.report(name)
            if found.decision != "continue":
                return found
            dropped = sorted(self.catalog.dropped_arms.of(name))
            until(lambda of=dropped: self.gateway.routes()["endpoints"]["desk"]["dropped"] == of)
            users = more
        raise AssertionError(f"{name} was not decided on {self.users} users: {found.reason}")

    def report(self, name: str) -> AbReportRecord:
        result = self._materialise([ab_report, no_sample_ratio_mismatch, sticky_assignment, guardrails], name)
        self.checks = {event.check_name: event.passed for event in result.get_asset_check_evaluations()}
        return self.records.load(AbReportRecord, name)

    def serves(self, endpoint: str = "desk") -> dict[str, float]:
        """The models of an endpoint, and percent of the users; who is held out under `holdout`."""
        routes = self.catalog.endpoint(endpoint).routes
        return {r["model_ref"] if not r.get("holdout") else "holdout": round(r["weight"], 1) for r in routes}

    def _ratings(self) -> int:
        return self.catalog.feedback().height

    def _materialise(self, assets: list[Any], key: str) -> dg.ExecuteInProcessResult:
        names = ("settings", "catalog", "records", "store", "tracking", "servers", "policy", "gateway")
        return dg.materialize(
            assets,
            selection=[a for a in assets if not isinstance(a, dg.AssetSpec)],
            partition_key=key,
            instance=self.instance,
            resources={name: getattr(self.wiring, name) for name in names},
        )


@contextlib.contextmanager
def running_desk(folder: Path) -> Iterator[Desk]:
    """An installation in a folder of its own; its gateway and model servers end with the block."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {quality_server.__file__} "$@"\n')
    python.chmod(0o755)
    wiring = Wiring(Settings(home=folder / "home", _env_file=None))
    prepare_home(wiring.settings)
    wiring.catalog.open()
    rules = wiring.policy.serving.model_copy(update={"stop_timeout_seconds": 5.0})
    servers = ModelServers(wiring.catalog, folder / "servers", policy=rules, python=str(python))
    with running_gateway(folder / "home", wiring.catalog) as gateway, dg.DagsterInstance.ephemeral() as instance:
        wiring.__dict__.update(servers=servers, gateway=gateway.admin(wiring.catalog))
        try:
            yield Desk(folder, wiring, gateway, instance)
        finally:
            assert servers.suspend() == []
