"""What a serve process is given: the arguments of `python -m images.serve`, the same wherever it runs."""

import hashlib
import json
from collections.abc import Callable

from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends.completions import SERVED_NAME
from resources.backends.protocol import RETRIEVER
from resources.catalog import Backend

LIMITS = ("max_input_tokens", "max_output_tokens", "device", "dtype", "gpus", "tool_call_parser")
ADAPTER, ADAPTER_HASH = "adapter_path", "adapter_hash"
BASE, BASE_HASH = "base_path", "base_hash"
"""Keys of a backend's runtime: the folder of a LoRA adapter (as paths are stored), that of the model which vLLM puts it
on, and the hashes that were recorded of both. The backend's own folder, the merged model, gives tokenizer and template
alone."""
MOST_RANK = 512
"""Of an adapter, that vLLM serves."""


def serve_arguments(backend: Backend, policy: ServingPolicy) -> list[str]:
    """Engine, limits and cache of a server; where its model is and where it listens is for whoever runs it to add."""
    if backend.engine == RETRIEVER:
        given = [(name, backend.runtime.get(name)) for name in ("index", "reranker", "tokenizer")]
        arguments = [part for name, value in given if value for part in (f"--{name}", str(value))]
        drain = str(int(policy.stop_timeout_seconds))
        return ["--engine", RETRIEVER, *arguments, "--drain-seconds", drain]
    arguments = ["--engine", backend.engine]
    for name in LIMITS:
        if backend.runtime.get(name) is not None:
            arguments += [f"--{name.replace('_', '-')}", str(backend.runtime[name])]
    arguments += ["--cache-blocks", str(policy.cb_num_blocks), "--cache-block-tokens", str(policy.cb_block_size)]
    arguments += ["--batch-tokens", str(policy.cb_max_batch_tokens)]
    return [*arguments, "--drain-seconds", str(int(policy.stop_timeout_seconds))]


def adapter_arguments(backend: Backend, resolved: Callable[[str], str]) -> list[str]:
    """What a server of a base and an adapter is given of both, none for any other; `resolved` finds a stored path."""
    if ADAPTER not in backend.runtime:
        return []
    arguments = ["--adapter", resolved(backend.runtime[ADAPTER]), "--base", resolved(backend.runtime[BASE])]
    hashes = ["--adapter-hash", str(backend.runtime[ADAPTER_HASH]), "--base-hash", str(backend.runtime[BASE_HASH])]
    return arguments + hashes


def start_of(backend: Backend, *more: str) -> str:
    """16 hex digits of what a server is started as: one that was started as something else is not taken for it."""
    what = [backend.url, backend.model_ref, backend.model_path, backend.engine, backend.runtime, SERVED_NAME, *more]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
