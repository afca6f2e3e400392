"""Base and adapter beside each other, for research: what vLLM is started with, what it is not, and who says so.

vLLM itself is not run here: a program in its place takes its arguments, looks at what they name as vLLM does, and
answers over HTTP; whoever asks for `model` gets the adapter.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from images.serve.engines import Cache, adapter_of, limits, vllm_command
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, BaseModelRecord, MergedModelRecord, PlanRecord
from llmops_assets.serving.adapters import NoAdapter, ServedAdapter, adapter_for, config_faults
from llmops_assets.serving.rollout import NotAdmitted, admit, backend_id, target_of
from llmops_assets.specs.policy import load_policy
from resources.backends.protocol import ServerError
from resources.catalog import Catalog
from resources.content import content_hash, listing
from resources.model_server import ModelServers
from resources.server_guard import with_content
from resources.stored_paths import StoredPaths
from tests.serving.conftest import backend, deployment_spec

LORA = {"peft_type": "LORA", "r": 12, "lora_alpha": 24, "bias": "none", "target_modules": ["q_proj"]}
VLLM = '''#!{python}
"""Takes vLLM's arguments, refuses what it would, and answers as the adapter that it was given."""
import argparse, json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

assert sys.argv[1:3] == ["-m", "vllm.entrypoints.openai.api_server"], sys.argv
parser = argparse.ArgumentParser()
for name in ("model", "tokenizer", "served-model-name", "host", "generation-config", "override-generation-config",
             "middleware", "dtype", "lora-modules"):
    parser.add_argument("--" + name)
for name in ("port", "max-model-len", "shutdown-timeout", "max-loras"):
    parser.add_argument("--" + name, type=int)
parser.add_argument("--max-lora-rank", type=int, choices=[8, 16, 32, 64, 128, 256, 320, 512])
for name in ("enable-lora", "disable-uvicorn-access-log", "enforce-eager"):
    parser.add_argument("--" + name, action="store_true")
a = parser.parse_args(sys.argv[3:])
json.loads(Path(a.model, "config.json").read_text())
assert Path(a.tokenizer, "chat_template.jinja").is_file()
name, _, path = a.lora_modules.partition("=")
config = json.loads(Path(path, "adapter_config.json").read_text())
assert a.enable_lora and config["r"] <= a.max_lora_rank and Path(path, "adapter_model.safetensors").is_file()
weights = Path(path, "adapter_model.safetensors").read_bytes()
learned = json.loads(weights) if weights.startswith(b"{{") else {{}}
known = {{name: "the adapter", a.served_model_name: "the base"}}


class Page(BaseHTTPRequestHandler):
    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        self._send(200, {{}})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if asked["model"] not in known:
            return self._send(404, {{"error": {{"message": "no such model"}}}})
        text = f"{{known[asked['model']]}} {{config['r']}}/{{a.max_lora_rank}} on {{Path(a.model).name}}"
        if known[asked["model"]] == "the adapter":
            text = learned.get(asked["messages"][-1]["content"], text)
        choice = {{"index": 0, "message": {{"role": "assistant", "content": text}}, "finish_reason": "stop"}}
        self._send(200, {{"choices": [choice], "usage": {{"completion_tokens": 3}}}})


ThreadingHTTPServer((a.host, a.port), Page).serve_forever()
'''


def make_adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(LORA | changes))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def research(**changes: Any):
    return deployment_spec(engine="vllm", load_mode="base+adapter", **changes)


class OfCell:
    """What is on record of one cell, as `Records.find` gives it."""

    def __init__(self, *found: Any) -> None:
        self.found = {type(one): one for one in found}

    def find(self, kind: type, _key: str) -> Any:
        return self.found.get(kind)


def on_record(models: dict[str, Path], adapter: Path, **changes: Any) -> tuple[RegisteredModelRecord, OfCell]:
    same = {"dataset": "d@v1", "recipe": "r", "training_key": "k"}
    base, merged = models["old"], models["new"]
    trained = {"path": str(adapter), "content_hash": "tensors", "files": listing(adapter), "method": "lora"} | changes
    began = BaseModelRecord(ref="hf:old", family="llama", path=str(base), content_hash=content_hash(base))
    made = {"path": str(merged), "content_hash": content_hash(merged), "family": "llama"}
    model = RegisteredModelRecord(
        dataset="d@v1", recipe="r", name="desk", version=1, job_type="SFT", mlflow_run_id=None, card="", **made
    )
    return model, OfCell(
        AdapterRecord.model_construct(**same, **trained),
        PlanRecord.model_construct(**same, base=began),
        MergedModelRecord.model_construct(**same, **made),
    )


def test_a_research_endpoint_serves_the_adapter_on_its_base(
    models: dict[str, Path], servers: ModelServers, catalog: Catalog, tmp_path: Path
):
    python = tmp_path / "engines" / "vllm" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(VLLM.format(python=sys.executable))
    python.chmod(0o755)
    model, records = on_record(models, make_adapter(tmp_path / "adapter"))
    adapter = adapter_for(research(), model, records)
    admit(model, "draft", research(), load_policy(), adapter=adapter)
    target = target_of(research(), model, adapter=adapter.runtime(catalog.paths.stored))
    assert backend_id(target, 0) != backend_id(target_of(research(), model), 0)
    started = backend(
        "b1", path=target.model_path, engine="vllm", runtime=with_content(target.runtime, target.content_hash)
    )
    running = servers.start(started)
    answer = servers.wait_healthy(running)
    assert answer.text == "the adapter 12/16 on old"
    servers.stop("b1")
    # What became another thing since is not served, even where nothing else looks.
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"others")
    with pytest.raises(ServerError, match=r"adapter_model|is not what was registered"):
        servers.wait_healthy(servers.start(started))
    servers.stop("b1")


@pytest.mark.parametrize(
    ("spec", "changes", "config", "reason"),
    [
        ({"runtime": {"backend": "docker"}}, {}, {}, "processes of this machine, not by docker"),
        ({}, {"method": "full"}, {}, "trained in full"),
        ({}, {"files": {}}, {}, "of an earlier release"),
        ({}, {"files": {"adapter_config.json": "x"}}, {}, "is not what was trained|are not what was trained"),
        ({}, {}, {"modules_to_save": ["embed_tokens"]}, "embed_tokens"),
        ({}, {}, {"use_dora": True}, "DoRA"),
        ({}, {}, {"bias": "all"}, "biases"),
        ({}, {}, {"r": 513}, "rank 1 to 512"),
        ({}, {}, {"peft_type": "PREFIX_TUNING"}, "not PREFIX_TUNING"),
    ],
)
def test_what_vllm_would_not_serve_beside_its_base_is_refused_by_name(
    models: dict[str, Path], tmp_path: Path, spec: dict, changes: dict, config: dict, reason: str
):
    model, records = on_record(models, make_adapter(tmp_path / "adapter", **config), **changes)
    with pytest.raises(NoAdapter, match=reason):
        adapter_for(research(**spec), model, records)
    with pytest.raises(NotAdmitted, match="because"):
        admit(model, "draft", research(**spec), load_policy(), more=["because"])


def test_an_adapter_that_was_trained_again_or_never_is_none_of_this_model(models: dict[str, Path], tmp_path: Path):
    model, records = on_record(models, make_adapter(tmp_path / "adapter"))
    assert adapter_for(deployment_spec(engine="vllm"), model, records) is None
    for other in (model.model_copy(update={"content_hash": "0" * 16}), model.model_copy(update={"scheme": "int8"})):
        with pytest.raises(NoAdapter, match=r"trained again since|quantized form"):
            adapter_for(research(), other, records)
    with pytest.raises(NoAdapter, match="not on record"):
        adapter_for(research(), model, OfCell())


def test_the_command_has_room_for_the_rank_and_names_the_adapter(models: dict[str, Path], tmp_path: Path):
    folder = make_adapter(tmp_path / "adapter", r=4, rank_pattern={"layers.0.q_proj": 100})
    adapter = adapter_of(folder, models["old"])
    assert adapter.rank == 128 and list(config_faults(LORA)) == []
    command = vllm_command(
        "python", "merged", "127.0.0.1", 1, limits({}, 10, 10, Cache()), device="cpu", dtype="auto", drain_seconds=9,
        adapter=adapter,
    )  # fmt: skip
    assert command[command.index("--lora-modules") + 1] == f"model={folder}"
    assert command[command.index("--model") + 1] == str(models["old"])
    assert command[command.index("--tokenizer") + 1] == "merged"
    with pytest.raises(FileNotFoundError, match="no adapter"):
        adapter_of(models["old"], models["old"])


def test_where_the_folders_lie_is_stored_by_their_root(tmp_path: Path):
    paths = StoredPaths(tmp_path)
    served = ServedAdapter(str(tmp_path / "artifacts" / "a"), "1", "/elsewhere/base", "2")
    runtime = served.runtime(paths.stored)
    assert runtime["adapter_path"] == "artifacts:a" and runtime["base_path"] == "/elsewhere/base"
