"""Whether a server that somebody else runs takes what an endpoint promises its users: prompts and answers of a length.

Ours are started with the endpoint's lengths. Another one was started for somebody else's: it may refuse long prompts,
or cut them and answer as if nothing had been (which no short question shows).
"""

import json
from pathlib import Path

from llmops_assets.serving.parity_probe import Sample
from resources.catalog import Backend
from resources.model_server import ModelServers, ServerError

LONGEST_ASKED = 8192
"""Tokens of the longest prompt that is tried: servers that cut are started for less, and a long one takes minutes."""
_NEARLY = 0.95
"""Share of the promised length that is tried: how words join to tokens is not foreseen to the last one."""
_LEFT = 0.8
"""Share of a prompt's tokens that a server must count: those of its headers are not counted here."""


def refusal(backend: Backend, model_path: Path, sample: Sample, servers: ModelServers) -> str | None:
    """Why the lengths of a server are not those that its endpoint promises; None where nothing says so."""
    return _said(backend, model_path, sample, servers) or _cut(backend, model_path, sample, servers)


def _said(backend: Backend, model_path: Path, sample: Sample, servers: ModelServers) -> str | None:
    """What the server says of itself: vLLM's and SGLang's list of models has the length that they were started with."""
    room = servers.listed(backend).get("max_model_len")
    wanted, why = _wanted(backend, model_path, sample)
    if not isinstance(room, int) or isinstance(room, bool) or not 0 < room < wanted:
        return None
    return (
        f"{backend.id} takes {room} tokens in all, prompt and answer (max_model_len of its /v1/models), and {why}: "
        "longer ones would be refused or cut. Start it with a larger --max-model-len, or lower "
        "runtime.max_input_tokens and max_output_tokens of the deployment"
    )


def _wanted(backend: Backend, model_path: Path, sample: Sample) -> tuple[int, str]:
    """As many tokens as a request may have, and who says so."""
    longest, answer = (backend.runtime.get(name) for name in ("max_input_tokens", "max_output_tokens"))
    if longest and answer:
        positions = json.loads((model_path / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
        wanted = min(longest + answer, positions or longest + answer)
        return wanted, f"the endpoint promises {longest} of a prompt and {answer} of an answer"
    evaluated = max((len(row.get("prompt_ids") or ()) + row["tokens"] for row in sample.rows), default=0)
    return evaluated, f"a question of the evaluation has {evaluated} with its answer"


def _cut(backend: Backend, model_path: Path, sample: Sample, servers: ModelServers) -> str | None:
    """What the server does with a prompt nearly as long as the endpoint takes, by its own count of tokens."""
    longest, file = backend.runtime.get("max_input_tokens"), model_path / "tokenizer.json"
    if not longest or not sample.rows or not file.is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    row, (messages, _tools) = sample.rows[0], sample.conversations[0]
    question = messages[-1]["content"]
    each = len(tokenizer.encode(f" {question}", add_special_tokens=False).ids)
    room = int(_NEARLY * min(longest, LONGEST_ASKED)) - len(row.get("prompt_ids") or ())
    times = room // max(1, each)
    if times < 1:
        return None
    text = " ".join([question] * (times + 1))
    tokens = len(tokenizer.encode(text, add_special_tokens=False).ids)
    try:
        counted = servers.prompt_tokens(backend, [*messages[:-1], {**messages[-1], "content": text}])
    except ServerError as error:
        return f"a prompt of about {tokens} tokens is refused, and the endpoint promises {longest}: {error}"
    if counted is None or counted >= _LEFT * tokens:
        return None
    return (
        f"{backend.id} cuts prompts: of one with {tokens} tokens it counts {counted}, and the endpoint promises "
        f"{longest}. Let it take the whole prompt (its context length), or lower runtime.max_input_tokens"
    )
