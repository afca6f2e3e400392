"""A server of somebody else's has to take what the endpoint promises: by what it says, and by what it counts."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from images.train.tokenizer import train_tokenizer
from llmops_assets.serving.foreign_lengths import refusal
from llmops_assets.serving.parity_probe import Sample
from resources.backends.completions import listed, prompt_tokens
from resources.backends.protocol import new_backend
from resources.model_server import ServerError
from tests.serving.stand_in import answering

QUESTION = "통행료 환불은 어떻게 하나요 알려 주세요"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of a model only what lengths are read from, with 256 positions."""
    train_tokenizer([QUESTION] * 4, 300, 2, 256).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 256}))
    return tmp_path


class Servers:
    """A server of so many tokens; with `counts` it cuts prompts there, with `refuses` it says so."""

    def __init__(self, room: object = None, counts: int | None = None, refuses: bool = False) -> None:
        self.room, self.counts, self.refuses, self.asked = room, counts, refuses, ""

    def listed(self, backend: Any) -> dict[str, Any]:
        return {} if self.room is None else {"id": "desk", "max_model_len": self.room}

    def prompt_tokens(self, backend: Any, messages: list[dict[str, Any]]) -> int | None:
        self.asked = messages[-1]["content"]
        if self.refuses:
            raise ServerError("the model server theirs answered 400: too long")
        return self.counts


def asked(folder: Path, servers: Servers, **runtime: Any) -> str | None:
    backend = new_backend("theirs", endpoint="desk", model_ref="m@1", model_path="", engine="vllm", runtime=runtime)
    rows = [{"prompt": QUESTION, "prompt_ids": [0] * 30, "tokens": 12}]
    sample = Sample(rows, [([{"role": "user", "content": QUESTION}], None)], 24)
    return refusal(backend, folder, sample, cast(Any, servers))


LENGTHS = {"max_input_tokens": 160, "max_output_tokens": 32}


@pytest.mark.parametrize(
    ("servers", "runtime", "told"),
    [
        (Servers(256), LENGTHS, None),
        (Servers(192), LENGTHS, None),
        (Servers(191), LENGTHS, "takes 191 tokens in all.*the endpoint promises 160 of a prompt and 32 of an answer"),
        # No more than the positions that its model has can be promised.
        (Servers(256), {"max_input_tokens": 400, "max_output_tokens": 100}, None),
        (Servers(40), {}, "takes 40 tokens.*a question of the evaluation has 42 with its answer"),
        (Servers(42), {}, None),
        (Servers("many"), LENGTHS, None),
        (Servers(counts=64), LENGTHS, r"cuts prompts: of one with \d+ tokens it counts 64"),
        (Servers(counts=400), LENGTHS, None),
        (Servers(refuses=True), LENGTHS, "is refused, and the endpoint promises 160: .* answered 400: too long"),
    ],
)
def test_a_server_of_other_lengths_than_its_endpoint_promises_is_refused(
    folder: Path, servers: Servers, runtime: dict[str, Any], told: str | None
) -> None:
    found = asked(folder, servers, **runtime)
    if told is None:
        assert found is None
    else:
        assert found is not None and re.search(told, found), found


def test_the_prompt_that_is_tried_is_nearly_as_long_as_promised(folder: Path) -> None:
    from tokenizers import Tokenizer

    servers = Servers(counts=400)
    asked(folder, servers, **LENGTHS)
    tokens = len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(servers.asked).ids)
    assert 100 < tokens < 160


def test_a_servers_own_words_are_read_over_the_protocol() -> None:
    with answering({"id": "desk", "max_model_len": 64}, counts=40) as url:
        runtime = {"backend": "url", "model": "desk"}
        made = new_backend("b", endpoint="d", model_ref="m@1", model_path="", engine="vllm", runtime=runtime)
        backend = replace(made, url=url)
        assert listed(backend)["max_model_len"] == 64
        assert prompt_tokens(backend, [{"role": "user", "content": "가" * 10}]) == 10
        assert prompt_tokens(backend, [{"role": "user", "content": "가" * 100}]) == 40
