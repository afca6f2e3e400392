"""What a serving engine is started with: length and cache limits, from the model's config and the endpoint's spec."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

# Every backend calls its model by the same name, so that no answer tells which variant gave it.
SERVED_NAME = "model"
BASE_NAME = "base"
"""What a server of a base and an adapter calls the base alone."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the highest rank of adapters."""
MIDDLEWARE = "images.serve.no_control_tokens.RefuseControlTokens"
"""What vLLM asks about every request: it tokenises control tokens in what users write as if the template wrote them."""


@dataclass(frozen=True)
class Limits:
    """Lengths in tokens: of a prompt after the chat template, of an answer, and of both together."""

    max_input: int
    max_output: int
    total: int


@dataclass(frozen=True)
class Adapter:
    """Folders of a LoRA adapter and of its base, and the least rank that vLLM has room for it with."""

    path: str
    base: str
    rank: int


def adapter_of(path: Path, base: Path) -> Adapter:
    """An adapter by its `adapter_config.json`; FileNotFoundError or ValueError says why it is none that vLLM serves."""
    file = path / "adapter_config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} holds no adapter_config.json: it is no adapter as PEFT writes one")
    config = json.loads(file.read_text(encoding="utf-8"))
    wanted = max([int(config.get("r") or 0), *map(int, (config.get("rank_pattern") or {}).values())])
    rank = next((one for one in _RANKS if one >= wanted > 0), None)
    if rank is None:
        raise ValueError(f"the adapter in {path} has rank {wanted}, and vLLM serves 1 to {_RANKS[-1]}")
    model_config(base)
    return Adapter(str(path.absolute()), str(base.absolute()), rank)


@dataclass(frozen=True)
class Cache:
    """The key-value cache of continuous batching: its blocks, the tokens of one, and those computed in one step."""

    blocks: int = 64
    block_tokens: int = 32
    batch_tokens: int = 512

    def holding(self, limits: Limits) -> int:
        """`blocks`, or as many as the longest request takes."""
        return max(self.blocks, math.ceil(limits.total / self.block_tokens))


def limits(config: dict, max_input: int | None, max_output: int | None, cache: Cache) -> Limits:
    """What a model of this Hugging Face `config` may be asked, given the lengths in an endpoint's spec.

    A request is never longer than the positions that the model knows. Where a length is left out (None) it fits into
    the cache as it is; longer ones that are asked for explicitly get a larger cache.
    """
    room = cache.blocks * cache.block_tokens
    asked = max_input + max_output if max_input and max_output else max(room, max_input or 0, max_output or 0)
    positions = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    total = min(asked, positions or asked)
    # A prompt leaves room for one token of the answer at least.
    return Limits(min(max_input or total, total - 1), min(max_output or total, total - 1), total)


def model_config(folder: Path) -> dict:
    """The `config.json` of a model folder; FileNotFoundError says what the folder should be."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: it is no model folder as `save_pretrained` writes one")
    return json.loads(path.read_text(encoding="utf-8"))


def vllm_command(
    python: str,
    model: str,
    host: str,
    port: int,
    limits: Limits,
    *,
    device: str,
    dtype: str,
    drain_seconds: int,
    gpus: int = 1,
    adapter: Adapter | None = None,
    tool_call_parser: str | None = None,
) -> list[str]:
    """The command line of vLLM's OpenAI-compatible server, run by the Python of vLLM's own environment.

    The module is named instead of `vllm serve`, which needs a distribution called `vllm` (the CPU build is not).
    With an `adapter`, `model` is the folder that both were merged to: its tokenizer and template are what is served.
    """
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", adapter.base if adapter else model]
    if adapter is None:
        command += ["--served-model-name", SERVED_NAME]
    else:
        # Who asks for the model gets the adapter; the base by itself has a name that nobody asks for.
        command += ["--served-model-name", BASE_NAME, "--tokenizer", model]
        command += ["--enable-lora", "--max-loras", "1", "--max-lora-rank", str(adapter.rank)]
        command += ["--lora-modules", f"{SERVED_NAME}={adapter.path}"]
    command += ["--host", host, "--port", str(port)]
    command += ["--max-model-len", str(limits.total)]
    # Greedy and without the penalties and lengths that a folder's generation_config may carry, as in the evaluation
    # that the model passed, unless a request asks for something else. What ends an answer is read from there all the
    # same.
    command += ["--generation-config", "vllm"]
    command += ["--override-generation-config", '{"temperature": 0.0}']
    # By default vLLM aborts what is in flight when it is told to stop.
    command += ["--shutdown-timeout", str(drain_seconds), "--disable-uvicorn-access-log"]
    command += ["--middleware", MIDDLEWARE]
    if tool_call_parser is not None:
        command += ["--enable-auto-tool-choice", "--tool-call-parser", tool_call_parser]
    if gpus > 1:
        command += ["--tensor-parallel-size", str(gpus)]
    if device == "cpu":
        command += ["--dtype", "float32" if dtype == "auto" else dtype, "--enforce-eager"]
    elif dtype != "auto":
        command += ["--dtype", dtype]
    return command
