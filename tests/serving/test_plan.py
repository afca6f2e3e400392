"""What a rollout plans, and what may be served at all."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from images.serve.engines import Cache, limits, model_config, vllm_command
from llmops_assets.experiments.assignment import assign
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.serving import rollout
from llmops_assets.serving.parity import differences, template_hash
from llmops_assets.serving.rollout import NotAdmitted, Target, admit, backend_id, describe, plan, shares, target_of
from llmops_assets.specs.policy import load_policy
from resources.model_server import Answer
from tests.serving.conftest import deployment_spec


def target(model_ref: str = "desk@2", **changes) -> Target:
    values = {
        "endpoint": "desk",
        "model_ref": model_ref,
        "model_path": "/models/desk",
        "content_hash": "c0ffee",
        "engine": "transformers",
        "runtime": {"max_input_tokens": 512},
    }
    return Target(**(values | changes))


def routes_to(**weights: float) -> list[dict]:
    return [{"backend_id": id, "model_ref": f"{id}@1", "weight": weight} for id, weight in weights.items()]


def test_the_first_model_gets_everybody_even_as_a_canary():
    for share in (100, 10):
        p = plan(target(share=share), [], [])
        assert p.routes == [{"backend_id": p.serve[0], "model_ref": "desk@2", "weight": 100}]
        assert p.retire == ()


def test_blue_green_moves_everybody_and_stops_the_old_model():
    p = plan(target(), routes_to(old=100), ["old"])
    assert shares(p.routes) == {"desk@2": 100}
    assert p.retire == ("old",)
    assert describe(target(), p)[-1] == "drain and stop old"


def test_a_canary_leaves_the_rest_to_the_model_that_has_most_users():
    p = plan(target(share=10), routes_to(old=60, third=40), ["old", "third", "stray"])
    assert shares(p.routes) == {"old@1": 90, "desk@2": 10}
    assert p.routes[0]["backend_id"] == "old"
    assert p.retire == ("third", "stray")


def test_deploying_what_is_there_changes_nothing():
    first = plan(target(), [], [])
    again = plan(target(), first.routes, list(first.serve))
    assert (again.routes, again.retire) == (first.routes, ())
    # With other limits it is another server, and the old one goes.
    other = plan(target(runtime={"max_input_tokens": 256}), first.routes, list(first.serve))
    assert other.serve != first.serve
    assert other.retire == first.serve


def test_replicas_share_the_users_of_their_model():
    old = plan(target("desk@1", replicas=2), [], [])
    p = plan(target(replicas=3, share=25), old.routes, list(old.serve))
    # One route a model: a slow replica holds up nobody who could be answered by another.
    assert [(r["weight"], r["backend_ids"]) for r in p.routes] == [(75, list(old.serve)), (25, list(p.serve))]
    assert shares(p.routes) == pytest.approx({"desk@1": 75, "desk@2": 25})


@given(st.lists(st.integers(1, 99), min_size=2, max_size=4, unique=True).map(sorted))
def test_users_move_to_the_growing_model_and_none_moves_back(steps: list[int]):
    routes = routes_to(old=100)
    met_new: set[int] = set()
    for share in [*steps, 100]:
        routes = plan(target(share=share), routes, []).routes
        weights = [r["weight"] for r in routes]
        on_new = {u for u in range(200) if routes[assign("s", str(u), weights)]["model_ref"] == "desk@2"}
        assert met_new <= on_new
        met_new = on_new
    assert met_new == set(range(200))


@pytest.fixture
def model(models: dict[str, Path]) -> RegisteredModelRecord:
    return RegisteredModelRecord(
        dataset="desk@v1",
        recipe="desk-00000000",
        name="desk",
        version=1,
        path=str(models["old"]),
        content_hash="c0ffee",
        family="llama",
        job_type="SFT",
        mlflow_run_id=None,
        card="",
    )


def test_an_approved_model_of_an_allowed_family_may_be_served(model: RegisteredModelRecord):
    policy = load_policy()
    for environment in ("dev", "staging", "production"):
        admit(model, "approved", deployment_spec(environment=environment), policy)
    admit(model, "draft", deployment_spec(), policy)


@pytest.mark.parametrize(
    ("state", "spec", "changes", "reason"),
    [
        ("draft", {"environment": "production"}, {}, "production serves approved models only"),
        ("archived", {}, {}, "is archived"),
        ("approved", {"job_type": "RLHF"}, {}, "was made by SFT"),
        ("approved", {"model_family": "qwen"}, {}, "is a llama model"),
        ("approved", {}, {"family": "qwen"}, "is a qwen model"),
        ("approved", {}, {"path": "/nowhere"}, "there is no model"),
        ("approved", {}, {"job_type": "EMBEDDING"}, "not for models made by EMBEDDING"),
        (
            "approved",
            {"serve_target": "RAG", "job_type": "RAG_TUNING"},
            {"job_type": "RAG_TUNING"},
            "needs an index to answer from",
        ),
        ("approved", {"load_mode": "base+adapter", "engine": "vllm"}, {}, "holds merged models"),
    ],
)
def test_a_model_that_may_not_be_served_is_told_why(
    model: RegisteredModelRecord, state: str, spec: dict, changes: dict, reason: str
):
    with pytest.raises(NotAdmitted, match=reason):
        admit(model.model_copy(update=changes), state, deployment_spec(**spec), load_policy())


def test_a_model_of_another_family_than_it_is_registered_as_is_found_out(
    model: RegisteredModelRecord, models: dict[str, Path]
):
    disguised = model.model_copy(update={"path": str(models["qwen"])})
    with pytest.raises(NotAdmitted, match="Qwen3ForCausalLM"):
        admit(disguised, "approved", deployment_spec(), load_policy())


def test_a_target_follows_its_spec(model: RegisteredModelRecord):
    canary = {"strategy": "canary", "traffic_split": {"old": 80, "new": 20}}
    t = target_of(deployment_spec(rollout=canary, replicas={"min": 2, "max": 3}), model)
    assert (t.share, t.replicas, t.runtime["device"], t.runtime["dtype"]) == (20, 2, "cpu", "float32")
    on_gpu = target_of(deployment_spec(resources={"gpus": 1}), model)
    assert (on_gpu.share, on_gpu.runtime["device"], on_gpu.runtime["dtype"]) == (100, "cuda", "auto")
    assert backend_id(t, 0) != backend_id(on_gpu, 0)
    assert rollout.shares([]) == {}


def test_limits_are_those_of_the_spec_the_model_and_the_memory():
    cache, config = Cache(blocks=64, block_tokens=32), {"max_position_embeddings": 4096}
    both = limits(config, 3000, 1000, cache)
    assert (both.max_input, both.max_output, both.total, cache.holding(both)) == (3000, 1000, 4000, 125)
    beyond = limits(config, 8000, 1000, cache)
    assert (beyond.max_input, beyond.max_output, beyond.total) == (4095, 1000, 4096)
    # Left out, they are what fits into the cache that is there anyway.
    open_ = limits(config, None, None, cache)
    assert (open_.max_input, open_.total, cache.holding(open_)) == (2047, 2048, 64)
    small = limits({"max_position_embeddings": 256}, None, 64, cache)
    assert (small.max_input, small.max_output, small.total) == (255, 64, 256)
    nested = limits({"text_config": {"max_position_embeddings": 128}}, None, None, cache)
    assert nested.total == 128
    assert limits({}, None, 5000, cache).total == 5000


def test_vllm_is_started_greedy_and_drains(tmp_path: Path):
    command = vllm_command(
        "python", "model", "127.0.0.1", 1, limits({}, 10, 10, Cache()), device="cpu", dtype="float32", drain_seconds=9
    )
    settings = dict(pairwise(command))
    assert settings["--max-model-len"] == "20"
    assert json.loads(settings["--override-generation-config"]) == {"temperature": 0.0}
    # Else the repetition_penalty or max_new_tokens of a folder's generation_config.json would hold for everybody.
    assert settings["--generation-config"] == "vllm"
    assert settings["--shutdown-timeout"] == "9"
    assert "--enable-auto-tool-choice" not in command
    told = {"device": "cpu", "dtype": "float32", "drain_seconds": 9, "tool_call_parser": "hermes"}
    command = vllm_command("python", "model", "127.0.0.1", 1, limits({}, 10, 10, Cache()), **told)
    assert "--enable-auto-tool-choice" in command and ("--tool-call-parser", "hermes") in pairwise(command)
    with pytest.raises(FileNotFoundError, match="no model folder"):
        model_config(tmp_path)


def test_the_template_that_is_served_is_told_by_its_hash(models: dict[str, Path], tmp_path: Path):
    served = template_hash(models["old"])
    assert served is not None
    template = (models["old"] / "chat_template.jinja").read_text()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert template_hash(tmp_path) == served
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template + " "}))
    assert template_hash(tmp_path) != served
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert template_hash(tmp_path) is None


def test_answers_disagree_in_more_than_their_normal_form():
    composed, decomposed = "네", "\u1102\u1166"
    rows = [{"prompt": f"q{n}", "got": got} for n, got in enumerate([composed, "a", "b "], start=1)]
    differing = differences(rows, [Answer(text, 1, 0.1) for text in (decomposed, "b", "b")])
    assert [(d.question, d.evaluated, d.served) for d in differing] == [("q2", "a", "b")]
