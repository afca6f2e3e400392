"""Base and adapter by a deployment: asked before users are, exchanged for another adapter, and brought back.

In vLLM's place stands a program that takes its arguments and answers as the adapter learned that it was given: what
another adapter says, or the base without one, is another answer.
"""

import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, BaseModelRecord, PlanRecord
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.names import training_key
from resources.content import content_hash, listing
from tests.erasure.trained import COUNTS
from tests.serving.conftest import deployment_spec, until
from tests.serving.test_adapters import VLLM, make_adapter
from tests.serving.test_assets import QUESTIONS, RECIPES, House, house, metadata, preview, verdicts  # noqa: F401


def leave_adapter(house: House, recipe: str, base: Path, folder: Path) -> Path:  # noqa: F811
    """Put on record what a LoRA training of `base` left behind a registered model; the adapter's folder."""
    cell = training_key("desk@v1", recipe)
    same = {"dataset": "desk@v1", "recipe": recipe, "training_key": "0123456789ab"}
    answers = Path(house.records.load(EvaluationRecord, cell).answers).read_text().splitlines()
    learned = {row["prompt"]: row["got"] for row in map(json.loads, answers)}
    adapter = make_adapter(folder)
    (adapter / "adapter_model.safetensors").write_text(json.dumps(learned, ensure_ascii=False))
    plan: dict[str, Any] = dict.fromkeys(COUNTS, 0) | {"prefix_preserving": True, "packing_efficiency": 1.0}
    plan |= {"spec": {}, "model_dir": str(folder.parent), "failures": {}, "rows": {}, "stop_token": None}
    plan |= {"stop_token_trained": True, "chat_template_hash": None, "precision": "fp32", "device": "cpu"}
    plan |= {"gradient_checkpointing": False, "memory_advice": None, "seconds": None, "example": ""}
    began = BaseModelRecord(ref="hf:base", family="llama", path=str(base), content_hash=content_hash(base))
    house.records.save(cell, PlanRecord(**same, **plan, base=began))
    made: dict[str, Any] = {"method": "lora", "path": str(adapter), "content_hash": "tensors", "steps": 1}
    made |= {"files": listing(adapter), "resumed_from": None, "reused": False, "first_loss": 2.0, "last_loss": 1.0}
    made |= {"eval_loss": None, "seconds": 1.0, "tokens_per_second": None, "peak_memory_bytes": None, "curve": []}
    made |= {"weight_change": 1.0, "non_finite_weights": 0, "mlflow_run_id": None}
    house.records.save(cell, AdapterRecord(**same, **made))
    return adapter


@pytest.fixture
def adapters(house: House, models: dict[str, Path], tmp_path: Path) -> dict[str, Path]:  # noqa: F811
    """The adapters of desk@1 (`old`) and desk@2 (`new`), both on the base `qwen`, and an engine to serve them with."""
    python = tmp_path / "engines" / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(VLLM.format(python=sys.executable))
    python.chmod(0o755)
    return {
        name: leave_adapter(house, recipe, models["qwen"], tmp_path / f"adapter-{name}")
        for name, recipe in RECIPES.items()
    }


def research(model_ref: str, **changes: Any) -> DeploymentSpec:
    return deployment_spec(model_ref=model_ref, engine="vllm", load_mode="base+adapter", **changes)


def answer(house: House, question: str) -> str:  # noqa: F811
    """What a user gets."""
    asked = {"model": "desk", "messages": [{"role": "user", "content": question}], "temperature": 0}
    return httpx.post(f"{house.resources['gateway'].url}/v1/chat/completions", json=asked, timeout=60).json()[
        "choices"
    ][0]["message"]["content"]


def test_adapters_are_deployed_compared_exchanged_and_brought_back(
    house: House,  # noqa: F811
    adapters: dict[str, Path],
):
    learned = {name: json.loads((at / "adapter_model.safetensors").read_text()) for name, at in adapters.items()}
    question = next(q for q in QUESTIONS if learned["old"].get(q) != learned["new"].get(q))
    first = preview(house, research("desk@1"))
    assert first.refused == [] and "adapter" in " ".join([*first.steps, *first.notes, first.backend]), first
    house.catalog.want_endpoint(research("desk@1"))
    result = house.run("deployment")
    assert all(verdicts(result).values()) and verdicts(result)["answers_as_evaluated"]
    assert metadata(result, "deployment")["server"] == "newly started"
    until(lambda: answer(house, question) == learned["old"][question])
    (served,) = house.catalog.backends("desk")
    assert served.runtime["adapter_path"].endswith("adapter-old") and served.engine == "vllm"

    # Another adapter on the same base is another server, and the first one goes.
    house.catalog.want_endpoint(research("desk@2"))
    result = house.run("deployment")
    assert all(verdicts(result).values()) and metadata(result, "deployment")["previous traffic"] == "desk@1 100 %"
    until(lambda: answer(house, question) == learned["new"][question])
    assert [b.runtime["adapter_path"].endswith("adapter-new") for b in house.catalog.backends("desk")] == [True]

    # Back to the model before, by its adapter, as it was served.
    result = house.run("deployment", model_ref="desk@1")
    assert all(verdicts(result).values())
    until(lambda: answer(house, question) == learned["old"][question])
    spec = house.catalog.endpoint("desk").spec
    assert (spec.model_ref, spec.load_mode) == ("desk@1", "base+adapter")

    # The files of one adapter behind the name of the other: users stay where they are.
    (adapters["new"] / "adapter_model.safetensors").write_text(json.dumps(learned["old"], ensure_ascii=False))
    record = house.records.load(AdapterRecord, training_key("desk@v1", RECIPES["new"]))
    house.catalog.want_endpoint(research("desk@2"))
    assert not house.run("deployment", raises=False).success
    assert "adapter_model.safetensors" in house.catalog.endpoint("desk").message
    # And where the record was made anew for them, what it answers is not what was evaluated.
    files = listing(adapters["new"])
    changed = record.model_copy(update={"files": files})
    house.records.save(training_key("desk@v1", RECIPES["new"]), changed)
    house.catalog.want_endpoint(research("desk@2", runtime={"max_output_tokens": 65}))
    result = house.run("deployment", raises=False)
    assert not result.success and verdicts(result)["answers_as_evaluated"] is False
    assert answer(house, question) == learned["old"][question]
    assert [route["model_ref"] for route in house.catalog.endpoint("desk").routes] == ["desk@1"]
