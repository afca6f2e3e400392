"""Faults that are stopped by the plan, before anything is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import sft_spec
from benchmarks.installation import TRAINING, Installation
from tests.truth.conftest import Finished, fault
from tests.truth.faults import ANSWER, all_of, brought_base, replaced, with_json, with_template
from tests.truth.table import Row

PLAIN_ANSWER = "{{- message['content'] + '<|im_end|>' -}}"


@pytest.mark.parametrize(
    "hyperparams",
    [
        fault("nothing-left-after-truncation", {"max_seq_len": 16}),
        fault("answers-cut", {"max_seq_len": 30}),
    ],
)
def test_a_length_that_cuts_the_answers_is_stopped(
    shared: Installation, finished: Finished, row: Row, hyperparams: dict[str, Any]
) -> None:
    row.assert_stopped(shared.train(sft_spec(finished.chain.base, **hyperparams), *TRAINING)[1])


@pytest.mark.parametrize(
    "change",
    [
        fault("all-labels-masked", with_template(replaced((ANSWER, "{%- endgeneration -%}" + PLAIN_ANSWER)))),
        fault(
            "stop-token-untrained",
            with_template(
                replaced((ANSWER, "{{- message['content'] -}}{%- endgeneration -%}{{- '<|im_end|>' -}}")),
            ),
        ),
        fault("no-stop-token", with_template(replaced(("<|im_end|>", "")))),
        fault(
            "double-bos",
            all_of(
                with_json("tokenizer_config.json", bos_token="<|im_start|>"),
                with_template("{{- bos_token -}}" + replaced()),
            ),
        ),
    ],
)
def test_a_chat_template_that_teaches_something_else_is_stopped(
    shared: Installation, finished: Finished, row: Row, change: Callable[[Path], None]
) -> None:
    base = brought_base(shared, finished.chain.base, row.key, change)
    row.assert_stopped(shared.train(sft_spec(base), *TRAINING)[1])


@pytest.mark.fault("base-swapped")
def test_a_base_that_was_swapped_under_its_name_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    base = brought_base(shared, finished.chain.base, "swapped", lambda folder: None)
    file = Path(base.removeprefix("hf:")) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    row.assert_stopped(shared.train(sft_spec(base), *TRAINING)[1])


@pytest.mark.fault("wrong-family")
def test_a_model_of_another_family_cannot_be_registered(shared: Installation, finished: Finished, row: Row) -> None:
    change = with_json("config.json", architectures=["Qwen3ForCausalLM"], model_type="qwen3")
    with pytest.raises(Exception) as refusal:
        brought_base(shared, finished.chain.base, "wrong-family", change)
    row.assert_says(str(refusal.value))
