"""The assets of an endpoint in Dagster, with a real registry, real model servers and the real gateway."""

import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import httpx
import polars as pl
import pytest
from safetensors.torch import load_file, save_file

from images.ask import generate
from llmops_assets.drift import assets as drift_assets
from llmops_assets.drift import checks as drift_checks
from llmops_assets.operations.deployment_preview import Preview, preview_deployment
from llmops_assets.operations.prompts import add_prompt
from llmops_assets.operations.rollbacks import roll_back_to
from llmops_assets.partitions import endpoints, traffic_days, trainings
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.records.jobs import GenerateJob
from llmops_assets.records.replay import ReplayRecord
from llmops_assets.records.serving import DeploymentRecord, DriftRecord
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.serving import admission, assets, checks
from llmops_assets.serving.parity import answers_to_repeat, template_hash
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.evaluation_rules import JudgeEndpoint
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.prompt import Prompt
from llmops_assets.specs.settings import Settings
from llmops_assets.traffic import days
from llmops_assets.training import folders
from llmops_assets.wiring import Wiring
from resources.artifacts import Artifacts, open_artifacts
from resources.catalog import Catalog
from resources.content import content_hash
from resources.dataset_store import DatasetStore
from resources.model_server import ModelServers
from resources.prompts import Prompts
from resources.records import Records
from resources.tracking import Tracking
from tests.evaluation.test_llm_judge import server as judge_server
from tests.sensors.killing import killed_at
from tests.serving.conftest import RunningGateway, deployment_spec, until

QUESTIONS = [f"{place} {n}번 차로 통행료가 얼마인가요?" for n in range(20) for place in ("서울", "부산")]
RECIPES = {"old": "desk-00000001", "new": "desk-00000002"}


@dataclass
class House:
    """An installation with two registered models, desk@1 (old) and desk@2 (new), and the gateway running."""

    instance: dg.DagsterInstance
    resources: dict[str, Any]

    @property
    def catalog(self) -> Catalog:
        return self.resources["catalog"]

    @property
    def records(self) -> Records:
        return self.resources["records"]

    def run(self, *wanted: str, model_ref: str | None = None, raises: bool = True) -> dg.ExecuteInProcessResult:
        selection = dg.AssetSelection.assets(*wanted)
        defs = dg.Definitions(
            assets=[
                dg.AssetSpec("registered_model", partitions_def=trainings),
                dg.AssetSpec("traffic", partitions_def=traffic_days),
                assets.deployment,
                drift_assets.drift_report,
            ],
            asset_checks=[
                checks.serving_answers,
                checks.nothing_left_running,
                checks.instructions_as_trained,
                drift_checks.like_training_data,
                drift_checks.like_last_good_window,
            ],
            resources=self.resources,
            jobs=[dg.define_asset_job("serve", selection=selection)],
        )
        config = {"ops": {"deployment": {"config": {"model_ref": model_ref}}}} if model_ref else {}
        return defs.resolve_job_def("serve").execute_in_process(
            instance=self.instance, partition_key="desk", run_config=config, raise_on_error=raises
        )

    def deploy(self) -> None:
        """A run of the deployment alone, without its checks."""
        dg.materialize(
            [dg.AssetSpec("registered_model", partitions_def=trainings), assets.deployment],
            selection=["deployment"],
            resources=self.resources,
            instance=self.instance,
            partition_key="desk",
        )


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    [event] = result.asset_materializations_for_node(asset)
    return {key: value.value for key, value in event.metadata.items()}


@pytest.fixture
def house(
    tmp_path: Path,
    models: dict[str, Path],
    catalog: Catalog,
    servers: ModelServers,
    start_gateway: Callable[..., RunningGateway],
) -> Iterator[House]:
    store, records = DatasetStore(str(tmp_path / "datasets")), Records(tmp_path / "records")
    tracking = Tracking(f"sqlite:///{tmp_path / 'mlflow.db'}")
    questions = QUESTIONS
    frame = pl.DataFrame(
        {
            "row_id": [f"row-{n}" for n in range(len(questions))],
            "messages": [
                [{"role": "user", "content": q}, {"role": "assistant", "content": "1,200원입니다."}] for q in questions
            ],
        }
    )
    manifest = store.write(frame, kind="sft_pair", dataset="desk@v1", step="splits", config_hash="0")
    records.save(
        "desk@v1",
        SplitsRecord(
            dataset="desk@v1",
            type="sft_pair",
            manifests={"train": manifest, "validation": manifest, "test": manifest},
            rows={"train": 40, "validation": 40, "test": 40},
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash="d",
        ),
    )
    for name, recipe in RECIPES.items():
        ref = register(name, recipe, models[name], questions, records, tracking, tmp_path)
        catalog.log("kim", "model.approve", ref)
    gateway = start_gateway()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(endpoints.name, ["desk"])
        yield House(
            instance,
            {
                "settings": Settings(home=tmp_path, _env_file=None),
                "catalog": catalog,
                "records": records,
                "artifacts": Artifacts(str(tmp_path / "artifacts")),
                "store": store,
                "tracking": tracking,
                "policy": load_policy(),
                "servers": servers,
                "gateway": gateway.admin(catalog),
            },
        )


def register(
    name: str, recipe: str, model: Path, questions: list[str], records: Records, tracking: Tracking, folder: Path
) -> str:
    """Put a model into the registry as its training and evaluation would; its ref."""
    prompts, said = folder / f"{name}-prompts.jsonl", folder / f"{name}-said.jsonl"
    rows = [{"id": f"row-{n}", "messages": [{"role": "user", "content": q}]} for n, q in enumerate(questions[:12])]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"model_dir": str(model), "prompts_file": str(prompts), "output_file": str(said), "max_new_tokens": 24}
    told = generate.run(GenerateJob.model_validate(job))
    answers = folder / f"{name}-answers.jsonl"
    with open(answers, "w") as file:
        for line, row in zip(said.read_text().splitlines(), rows, strict=True):
            answer, question = json.loads(line), row["messages"][0]["content"]
            kept = {"id": row["id"], "suite": "test", "prompt": question, "got": answer["text"]}
            kept |= {name: answer[name] for name in ("tokens", "token_ids", "prompt_ids", "finish_reason")}
            file.write(json.dumps(kept) + "\n")
    cell, digest = training_key("desk@v1", recipe), content_hash(model)
    same = {"dataset": "desk@v1", "recipe": recipe, "training_key": "0123456789ab"}
    records.save(
        cell,
        EvaluationRecord(
            **same,
            model_hash=digest,
            metrics=[Metric(suite="test", name="accuracy", value=0.95, n=205)],
            empty_answers=0,
            length_truncated=0,
            by_category={},
            answers=str(answers),
            seconds=1.0,
            items={"test": len(rows)},
            settings={"tuned": told["settings"]},
        ),
    )
    records.save(
        cell,
        MergedModelRecord(
            **same,
            path=str(model),
            content_hash=digest,
            family="llama",
            parameters=1000,
            chat_template_hash=template_hash(model),
            max_logit_difference=0.0,
            top1_agreement=1.0,
            differs_from_base=True,
            reloads=True,
        ),
    )
    tags = {
        "dataset": "desk@v1",
        "recipe": recipe,
        "content_hash": digest,
        "family": "llama",
        "job_type": "SFT",
        "state": "approved",
    }
    return f"desk@{tracking.register('desk', model, None, tags)}"


def preview(house: House, spec: DeploymentSpec) -> Preview:
    """What a deployment would do; not a byte of the catalog differs for it, nor a row."""

    def state() -> list[object]:
        path = house.catalog.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection:
            return [Path(path).read_bytes(), *connection.iterdump()]

    before = state()
    found = preview_deployment(SimpleNamespace(**house.resources), "kim", spec)
    assert state() == before
    return found


def test_an_endpoint_is_deployed_compared_and_rolled_back(house: House, models: dict[str, Path], tmp_path: Path):
    first = preview(house, deployment_spec(environment="production"))
    assert (first.model_ref, first.refused, first.drained) == ("desk@1", [], [])
    assert {check.name: check.state for check in first.checks} == {
        "admitted": "passes",
        "template_parity": "passes",
        "answers_as_evaluated": "is asked before the switch",
    }
    assert first.steps[-1] == "move the alias production of the registry to desk@1"
    assert first.routes == [{"desk@1": 100}] and first.backend.startswith("local: transformers")
    house.catalog.want_endpoint(deployment_spec(environment="production"))
    result = house.run("deployment")
    assert verdicts(result) == dict.fromkeys(
        [
            "admitted",
            "serving_answers",
            "template_parity",
            "answers_as_evaluated",
            "replayed",
            "nothing_left_running",
            "instructions_as_trained",
        ],
        True,
    )
    endpoint = house.catalog.endpoint("desk")
    assert (endpoint.state, endpoint.observed_revision, endpoint.phase) == ("live", 1, 1)
    shown = metadata(result, "deployment")
    assert (shown["model"], shown["previous traffic"], shown["server"]) == ("desk@1", "none", "newly started")
    assert [row["users (%)"] for row in (r.data for r in shown["routes"].records)] == [100]
    # The checks have asked through the gateway, and it is no exposure.
    assert house.catalog.request_count(endpoint="desk") == 0

    steps = {"strategy": "canary", "steps": [10, 50, 100], "pause_seconds": 60}
    (running,) = house.catalog.backends("desk")
    second = preview(house, deployment_spec(model_ref="desk@2", rollout=steps))
    assert second.routes == [{"desk@1": 90, "desk@2": 10}, {"desk@1": 50, "desk@2": 50}, {"desk@2": 100}]
    assert any("after 60 s, 50 requests and an analysis that passes" in step for step in second.steps)
    assert preview(house, deployment_spec(model_ref="desk@2")).drained == [running.id]
    again = preview(house, deployment_spec(environment="production"))
    assert {check.state for check in again.checks} == {"passes"} and again.drained == []
    wrong = preview(house, deployment_spec(model_ref="desk@2", model_family="qwen"))
    assert "is a llama model" in wrong.refused[0]
    assert "has no version or alias" in preview(house, deployment_spec(model_ref="desk@9")).refused[0]

    canary = {"strategy": "canary", "traffic_split": {"old": 50, "new": 50}}
    house.catalog.want_endpoint(deployment_spec(model_ref="desk@2", rollout=canary))
    result = house.run("deployment")
    assert all(verdicts(result).values())
    assert metadata(result, "deployment")["previous traffic"] == "desk@1 100 %"
    assert len(house.catalog.backends("desk")) == 2

    # Promoting the canary: the model that the spec names already, but now for all users.
    result = house.run("deployment", model_ref="desk@2")
    assert metadata(result, "deployment")["server"] == "was running already"
    assert [r["model_ref"] for r in house.catalog.endpoint("desk").routes] == ["desk@2"]
    house.catalog.want_endpoint(deployment_spec(model_ref="desk@1", rollout=canary))
    house.run("deployment")
    assert house.catalog.endpoint("desk").phase == 4

    # What must not be served leaves both where they are.
    tracking = house.resources["tracking"]
    tracking.tag("desk", 1, "state", "archived")
    refused = house.run("deployment", model_ref="desk@1", raises=False)
    assert not refused.success
    failed = house.catalog.endpoint("desk")
    assert (failed.state, failed.message, failed.phase) == ("failed", "desk@1 is archived", 4)
    assert failed.observed_revision == failed.revision
    tracking.tag("desk", 1, "state", "approved")

    # Going back to what was served at a moment, the prompt with the model, by the same run.
    wiring = Wiring(house.resources["settings"])
    moments = []
    for number in (1, 2):
        add_prompt(wiring, "kim", "greet", f"{number}: 안녕하세요.")
        prompt = Prompts(tracking).resolve(Prompt(name="greet", version=number))
        house.catalog.prompts.set("desk", prompt, "kim")
        moments.append(datetime.now(UTC))
    wanted = roll_back_to(wiring, "lee", "desk", moments[0], model="desk@1")
    assert house.catalog.prompts.all()["desk"].label == "greet@2"
    # Until then the gateway has the one as the other, and nothing of it is a fault.
    state = house.resources["gateway"].state()
    assert state["faults"] == {} and state["endpoints"]["desk"]["phase"] == 4
    assert metadata(house.run("deployment"), "deployment")["server"] == "was running already"
    endpoint = house.catalog.endpoint("desk")
    assert (endpoint.phase, endpoint.observed_revision) == (5, wanted.revision)
    assert [r["model_ref"] for r in endpoint.routes] == ["desk@1"]
    assert house.catalog.prompts.all()["desk"].label == "greet@1"
    assert house.catalog.intents.newest("deploy", "desk").outcome == "done"

    # Rolling back, from the run's config: the model before gets everybody.
    result = house.run("deployment", model_ref="desk@1")
    assert metadata(result, "deployment")["server"] == "was running already"
    record = house.records.load(DeploymentRecord, "desk")
    assert (record.model_ref, record.phase, len(record.routes)) == ("desk@1", 5, 1)
    assert [b.model_ref for b in house.catalog.backends("desk")] == ["desk@1"]
    assert house.catalog.endpoint("desk").spec.model_ref == "desk@1"
    assert "endpoint.serve" in {line["action"] for line in house.catalog.audit_log()}

    # A server of another folder than the version's is not taken for it: it is started again on the right one.
    backend = house.catalog.backends("desk")[0]
    altered = tmp_path / "altered"
    altered.mkdir()
    (altered / "chat_template.jinja").write_text("{{ messages }}")
    house.catalog.update_backend(backend.id, model_path=str(altered))
    # And answers other than the evaluated ones are found before anything else happens.
    cell = training_key("desk@v1", RECIPES["old"])
    evaluation = house.records.load(EvaluationRecord, cell)
    other = house.records.load(EvaluationRecord, training_key("desk@v1", RECIPES["new"]))
    house.records.save(cell, evaluation.model_copy(update={"answers": other.answers}))
    result = house.run("deployment", raises=False)
    found = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert house.catalog.backends("desk")[0].model_path == str(models["old"])
    assert found["template_parity"].passed and "serving_answers" not in found
    assert not found["answers_as_evaluated"].passed
    assert found["answers_as_evaluated"].description.startswith("0 of 8 prompts and answers")
    failed = house.catalog.endpoint("desk")
    assert (failed.state, failed.phase) == ("failed", 5) and "0 of 8 prompts and answers" in failed.message


@pytest.fixture
def third(house: House, models: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of desk@3: the old model once more, to be spoilt."""
    folder = tmp_path / "third"
    shutil.copytree(models["old"], folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 1.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    recipe = "desk-00000003"
    ref = register("third", recipe, folder, QUESTIONS, house.records, house.resources["tracking"], tmp_path)
    house.catalog.log("kim", "model.approve", ref)
    folders.seal(folder, {})
    return folder


def test_nothing_but_what_was_registered_evaluated_and_approved_gets_users_and_each_refusal_has_a_name(
    house: House, third: Path, models: dict[str, Path]
):
    catalog, tracking = house.catalog, house.resources["tracking"]
    catalog.want_endpoint(deployment_spec(environment="production"))
    house.deploy()

    def refused(ref: str = "desk@3") -> str:
        result = house.run("deployment", model_ref=ref, raises=False)
        found = {e.check_name: e for e in result.get_asset_check_evaluations()}
        assert not result.success and not found["admitted"].passed
        assert [r["model_ref"] for r in catalog.endpoint("desk").routes] == ["desk@1"]
        assert catalog.endpoint("desk").message == found["admitted"].description
        return found["admitted"].description

    good = {name: (third / name).read_bytes() for name in ("model.safetensors", "generation_config.json")}
    (third / "model.safetensors").write_bytes((models["new"] / "model.safetensors").read_bytes())
    assert refused().startswith("model.safetensors is not what was registered as desk@3")
    (third / "model.safetensors").write_bytes(good["model.safetensors"])
    (third / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert refused().startswith("generation_config.json is not what was registered as desk@3")
    (third / "generation_config.json").write_bytes(good["generation_config.json"])
    (third / "modeling.py").write_text("evil")
    (third / "pytorch_model.bin").symlink_to(models["old"] / "model.safetensors")
    assert refused().startswith("modeling.py (added), pytorch_model.bin (added) are not what was registered")
    (third / "modeling.py").unlink(), (third / "pytorch_model.bin").unlink()

    # A version that somebody made by hand, with an alias, of weights that nobody evaluated.
    tags = {"dataset": "desk@v1", "recipe": RECIPES["old"], "family": "llama", "job_type": "SFT", "state": "approved"}
    by_hand = tracking.register("desk", models["qwen"], None, tags | {"content_hash": content_hash(models["qwen"])})
    tracking.set_alias("desk", "production", by_hand)
    told = refused(f"desk@{by_hand}")
    assert f"no evaluation of the weights {content_hash(models['qwen'])}" in told and "nobody approved desk@4" in told
    # A tag that was changed by hand to the place of another model.
    known = admission.registration(tracking.model("desk@3"), catalog)
    catalog.log("registered_model", "model.register", "desk@3", state="staging", **known)
    tracking.tag("desk", 3, "path", str(models["new"]))
    assert "the registry's tag path of desk@3 was changed by hand" in refused()
    tracking.tag("desk", 3, "path", str(third))
    # Its cell was evaluated anew, and what it was asked stands in its training rows.
    model = tracking.model("desk@3")
    cell = training_key(model.dataset, model.recipe)
    evaluation = house.records.load(EvaluationRecord, cell)
    assert evaluation.model_hash == model.content_hash
    house.records.save(cell, evaluation.model_copy(update={"leaked": {"desk-suite@v1": 0.5}}))
    assert "was trained on items that it was asked: 50.0% of desk-suite@v1" in refused()
    house.records.save(cell, evaluation)
    assert verdicts(house.run("deployment", model_ref="desk@3"))["admitted"]

    # Written over while it is served, and the server crashes: it is not started again on other weights.
    (third / "model.safetensors").write_bytes((models["new"] / "model.safetensors").read_bytes())
    servers = house.resources["servers"]
    [backend] = catalog.backends("desk")
    os.kill(backend.pid, signal.SIGKILL)
    until(lambda: not servers.alive(backend))
    done = servers.reconcile()
    assert any("model.safetensors is not what was registered as desk@3" in line for line in done), done
    endpoint = catalog.endpoint("desk")
    assert endpoint.state == "failed" and "model.safetensors is not what was registered as desk@3" in endpoint.message
    assert catalog.backends("desk")[0].state == "unhealthy"
    (third / "model.safetensors").write_bytes(good["model.safetensors"])
    assert any("started" in line for line in servers.reconcile())
    assert (catalog.endpoint("desk").state, catalog.endpoint("desk").message) == ("live", "")


def test_a_registry_that_is_away_after_the_switch_leaves_the_endpoint_live_and_the_alias_to_another_run(
    house: House, monkeypatch: pytest.MonkeyPatch
):
    house.catalog.want_endpoint(deployment_spec(environment="production"))
    tracking = house.resources["tracking"]

    def away(*_arguments: object) -> None:
        raise ConnectionError("the registry does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "set_alias", away)
        result = house.run("deployment")
    endpoint = house.catalog.endpoint("desk")
    assert (endpoint.state, endpoint.observed_revision) == ("live", 1)
    assert [route["model_ref"] for route in endpoint.routes] == ["desk@1"]
    fault = "the alias production of desk@1 is not moved yet: ConnectionError the registry does not answer"
    assert endpoint.message == f"{fault}; it is tried again"
    assert metadata(result, "deployment")["alias"] == "ConnectionError the registry does not answer"
    # Not all is done, so another run is asked for; it finds the users where they belong, and moves the alias.
    assert house.catalog.intents.newest("deploy", "desk").is_open
    result = house.run("deployment")
    assert metadata(result, "deployment")["alias"] == "production: desk@1"
    assert tracking.version("desk@production").version == 1
    endpoint = house.catalog.endpoint("desk")
    assert (endpoint.state, endpoint.message, endpoint.phase) == ("live", "", 1)
    assert house.catalog.intents.newest("deploy", "desk").outcome == "done"


def test_a_deployment_that_is_killed_at_any_line_is_finished_by_the_next_run(house: House):
    house.catalog.want_endpoint(deployment_spec(environment="production"))
    house.run("deployment")
    (backend,) = house.catalog.backends("desk")
    for line in count(1):
        revision = house.catalog.want_endpoint(deployment_spec(environment="production")).revision
        with killed_at(line, "llmops_assets/serving/assets.py") as kill:
            house.deploy()
        if house.catalog.intents.newest("deploy", "desk").is_open:
            house.deploy()
        endpoint = house.catalog.endpoint("desk")
        assert (endpoint.state, endpoint.message, endpoint.observed_revision) == ("live", "", revision)
        (same,) = house.catalog.backends("desk")
        assert (endpoint.phase, replace(same, changed_at=backend.changed_at)) == (1, backend)
        closed = [a["detail"]["revision"] for a in house.catalog.audit_log() if a["action"] == "deploy.done"]
        assert closed.count(revision) == 1
        if not kill.hit:
            break
    assert line > 60


def test_where_the_policy_asks_for_it_a_model_gets_users_once_what_they_asked_was_replayed(house: House):
    """Against what the old model answered through the gateway; a judge behind a real server says which is better."""
    house.catalog.want_endpoint(deployment_spec())
    house.deploy()
    gateway = house.resources["gateway"]
    for number in range(25):
        body = {"model": "desk", "user": f"user-{number}", "max_tokens": 4}
        body["messages"] = [{"role": "user", "content": QUESTIONS[number]}]
        assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    until(lambda: house.catalog.request_count(endpoint="desk") == 25)
    day = datetime.now(UTC).date().isoformat()
    compacted = days.compact(house.catalog.exposures(endpoint="desk"), house.catalog.feedback(endpoint="desk"), str)
    days.write(open_artifacts(house.resources["settings"]), "desk", day, compacted.frame)

    before, then = house.catalog.endpoint("desk").routes, set(compacted.frame["response"])
    verdict = lambda a, b: "TIE" if (a in then) == (b in then) else "A" if a in then else "B"  # noqa: E731
    with judge_server(verdict) as (judge, asked):
        house.resources["policy"] = replaying(judge)
        house.catalog.want_endpoint(deployment_spec(model_ref="desk@2"))
        with pytest.raises(dg.Failure, match="replayed: desk@2 gets no users: its answers are worse"):
            house.deploy()
        assert house.catalog.endpoint("desk").routes == before
        assert 2 * 20 <= len(asked) <= 2 * 25
        record = house.records.load(ReplayRecord, "desk")
        assert record.lost == record.pairs >= 20 and record.judged_by == {"judge": record.pairs}
        # It was asked past the gateway: nobody was exposed.
        assert house.catalog.request_count(endpoint="desk") == 25

    with judge_server(lambda a, b: "TIE") as (judge, asked):
        house.resources["policy"] = replaying(judge)
        house.catalog.want_endpoint(deployment_spec(model_ref="desk@2"))
        result = house.run("deployment")
        assert verdicts(result)["replayed"] and asked
        assert {route["model_ref"] for route in house.catalog.endpoint("desk").routes} == {"desk@2"}
        # A way back is never in the way: users had that model before.
        count = len(asked)
        house.catalog.want_endpoint(deployment_spec(model_ref="desk@1"))
        house.deploy()
        assert house.catalog.endpoint("desk").routes[0]["model_ref"] == "desk@1" and len(asked) == count


def replaying(judge: JudgeEndpoint):
    policy = load_policy()
    replay = policy.serving.replay.model_copy(update={"required": True, "requests": 25, "max_new_tokens": 4})
    serving = policy.serving.model_copy(update={"replay": replay})
    evaluation = policy.evaluation.model_copy(update={"judge": judge})
    return policy.model_copy(update={"serving": serving, "evaluation": evaluation})


def test_drift_is_told_against_the_training_data_of_the_served_model(house: House):
    house.catalog.want_endpoint(deployment_spec())
    house.catalog.set_routes("desk", [{"backend_id": "b", "model_ref": "desk@1", "weight": 100}])
    house.run("drift_report")
    assert house.records.load(DriftRecord, "desk").requests == 0
    house.catalog.add_exposures([exposure(n, "where is my refund, please tell me") for n in range(40)])
    house.catalog.add_feedback("req-1", 2)
    result = house.run("drift_report")
    record = house.records.load(DriftRecord, "desk")
    assert (record.model_ref, record.requests, record.reference_rows) == ("desk@1", 40, 40)
    assert {"hangul share", "new 3-grams"} <= set(record.drifted)
    assert (record.ratings, record.rating_mean) == (1, 2.0)
    assert verdicts(result) == {"like_training_data": False, "like_last_good_window": True}
    assert {"plot", "traffic", "features", "over time"} <= metadata(result, "drift_report").keys()


def exposure(number: int, query: str) -> dict[str, Any]:
    return {
        "request_id": f"req-{number}",
        "at": datetime.now(UTC),
        "endpoint": "desk",
        "experiment": None,
        "phase": 1,
        "variant": 0,
        "backend": "b",
        "model_ref": "desk@1",
        "user": f"user-{number}",
        "session": None,
        "query": query,
        "response": "네",
        "status": 200,
        "error": None,
        "latency_ms": 20.0 + number,
        "ttft_ms": None,
        "prompt_tokens": 5,
        "completion_tokens": 2,
        "finish_reason": "stop",
    }


def test_repeated_answers_are_spread_and_short_enough(tmp_path: Path):
    rows = [{"id": str(n), "suite": "test" if n % 2 else "other", "tokens": n} for n in range(100)]
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = [row["tokens"] for row in answers_to_repeat(path, "test", 5, most_tokens=60)]
    assert chosen == [1, 13, 25, 37, 49]
