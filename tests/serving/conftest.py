"""What the serving tests share: tiny models with random weights, real model servers, and the real gateway."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette

from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import load_policy
from resources.catalog import Backend, Catalog
from resources.gateway import GatewayAdmin
from resources.model_server import ModelServers
from tests.serving.stand_in import STAND_IN

ADMIN_TOKEN = "token-of-the-tests"

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_model(folder: Path, *, seed: int, kind: str = "llama", positions: int = 2048, sampled: bool = False) -> Path:
    """A model with random weights and a byte-level tokenizer, saved as a merged model is.

    `sampled` writes what a hub model's generation_config often holds: sampling and a repetition penalty.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        ["통행료 환불은 어떻게 하나요? 하이패스 단말기"] * 4,
        trainers.BpeTrainer(vocab_size=340, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.chat_template = CHATML
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.5,
        "tie_word_embeddings": True,
    }
    if kind == "qwen":
        model = Qwen3ForCausalLM(Qwen3Config(head_dim=16, **shape))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shape))
    extra = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.3} if sampled else {}
    model.generation_config = GenerationConfig(eos_token_id=2, pad_token_id=0, **extra)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"llmops_family_version": "3.1"}))
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders by name: `old` and `new` (Llama), `qwen` (whose folder asks for sampling)."""
    root = tmp_path_factory.mktemp("models")
    return {
        "old": make_model(root / "old", seed=1),
        "new": make_model(root / "new", seed=2),
        "qwen": make_model(root / "qwen", seed=3, kind="qwen", sampled=True),
    }


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")


@pytest.fixture
def servers(catalog: Catalog, tmp_path: Path) -> Iterator[ModelServers]:
    policy = load_policy().serving.model_copy(update={"stop_timeout_seconds": 8.0})
    servers = ModelServers(catalog, tmp_path / "servers", policy=policy, engines=tmp_path / "engines", threads=1)
    yield servers
    assert servers.suspend() == []


def deployment_spec(endpoint: str = "desk", model_ref: str = "desk@1", **changes) -> DeploymentSpec:
    """A valid spec for an endpoint on the CPU."""
    values = {
        "model_ref": model_ref,
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "endpoint": endpoint,
        "environment": "dev",
        "resources": {"gpus": 0},
        "runtime": {"max_concurrent_requests": 64, "max_input_tokens": 512, "max_output_tokens": 64},
    }
    return DeploymentSpec.model_validate(values | changes)


def backend(id: str, *, model_ref: str = "desk@1", path: Path | str = "", url: str = "", **changes) -> Backend:
    """A backend as a deployment would put it on record."""
    values = {
        "id": id,
        "endpoint": "desk",
        "model_ref": model_ref,
        "model_path": str(path),
        "engine": "transformers",
        "runtime": {"max_input_tokens": 512, "max_output_tokens": 64, "device": "cpu", "dtype": "float32"},
        "url": url,
        "pid": None,
        "pid_started": None,
        "state": "healthy",
        "log_path": None,
        "created_at": datetime.now(UTC),
    }
    return Backend(**(values | changes))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until `condition` is true; AssertionError when it is not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def get(url: str, token: str | None = None) -> dict:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        return json.load(response)


@dataclass
class RunningGateway:
    """The gateway as `python -m images.gateway` starts it."""

    url: str
    admin_url: str
    token: str
    process: subprocess.Popen
    log: Path

    def admin(self, catalog: Catalog, **changes: Any) -> GatewayAdmin:
        """Its administration, over a catalog."""
        return GatewayAdmin(catalog, self.url, admin_url=self.admin_url, token=self.token, **changes)

    def routes(self) -> dict:
        return get(f"{self.admin_url}/admin/routes", self.token)

    def metrics(self) -> str:
        request = urllib.request.Request(f"{self.admin_url}/metrics", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read().decode()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(40)


@pytest.fixture
def start_gateway(tmp_path: Path, catalog: Catalog) -> Iterator[Callable[..., RunningGateway]]:
    """Starts the gateway over the test's catalog, or another one; stopped with the test."""
    running: list[RunningGateway] = []

    def start(over: Catalog = catalog, *, status: str = "ok", **settings: str) -> RunningGateway:
        over.open()
        port, admin_port = free_port(), free_port()
        # A home has one catalog: its spool is shipped to that one.
        home = tmp_path if over is catalog else tmp_path / f"home-{port}"
        environment = os.environ | {
            "LLMOPS_HOME": str(home),
            "LLMOPS_CATALOG_URL": over.url,
            "LLMOPS_GATEWAY_PORT": str(port),
            "LLMOPS_GATEWAY_ADMIN_PORT": str(admin_port),
            "LLMOPS_GATEWAY_ADMIN_TOKEN": ADMIN_TOKEN,
            **settings,
        }
        log = tmp_path / f"gateway-{port}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "images.gateway"], env=environment, stdout=output, stderr=output
            )
        addresses = (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")
        gateway = RunningGateway(*addresses, ADMIN_TOKEN, process, log)
        running.append(gateway)

        def is_up() -> bool:
            assert process.poll() is None, log.read_text()
            try:
                return get(f"{gateway.url}/readyz")["status"] == status
            except OSError:
                return False

        until(is_up, 60)
        return gateway

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.stop()


class Upstream:
    """A server of our own making on a free port, in a thread: for what a healthy model server does not do."""

    def __init__(self, app: Starlette) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = uvicorn.Config(app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture
def start_upstream() -> Iterator[Callable[[Starlette], Upstream]]:
    running: list[Upstream] = []

    def start(app: Starlette) -> Upstream:
        running.append(Upstream(app))
        return running[-1]

    yield start
    for upstream in running:
        upstream.stop()


@pytest.fixture
def stand_in_model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def stand_ins(catalog: Catalog, tmp_path: Path) -> Iterator[Callable[..., ModelServers]]:
    """Makes what keeps servers that start at once, and do as a file in their folder orders."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S {tmp_path / "stand_in.py"} "$@"\n')
    python.chmod(0o755)
    made: list[ModelServers] = []

    def servers(**policy: float) -> ModelServers:
        rules = load_policy().serving.model_copy(update={"stop_timeout_seconds": 5.0, **policy})
        made.append(ModelServers(catalog, tmp_path / "servers", policy=rules, python=str(python)))
        return made[-1]

    yield servers
    for one in made:
        assert one.suspend() == []
