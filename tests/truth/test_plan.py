"""Faults that are stopped by the plan, before anything is trained."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import chats, sft_spec
from benchmarks.clean_trainings import Bench, other_job, passages, preferences
from benchmarks.installation import TRAINING, Installation
from tests.truth.conftest import Finished, fault
from tests.truth.faults import (
    ANSWER,
    HEADER,
    all_of,
    brought_base,
    replaced,
    with_ids_exchanged,
    with_json,
    with_template,
    with_weights,
)
from tests.truth.table import Row

QUOTED = "message['content'] | tojson + '<|im_end|>' -}}{%- endgen"
IN_PART = (
    "{{- message['content'][:8] -}}{%- generation -%}{{- message['content'][8:] + '<|im_end|>' -}}{%- endgeneration -%}"
)
PROMPT = "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
PLAIN_ANSWER = "{{- message['content'] + '<|im_end|>' -}}"


@pytest.mark.parametrize(
    "hyperparams",
    [
        fault("nothing-left-after-truncation", {"max_seq_len": 16}),
        fault("answers-cut", {"max_seq_len": 30}),
        fault("all-rows-left-out", {"max_seq_len": 30, "overlong": "drop"}),
        fault("rate-that-moves-nothing", {"lr": 1e-30, "max_steps": 4, "save_steps": 4}),
        fault("warm-up-never-ends", {"warmup_steps": 500, "max_steps": 4, "save_steps": 4}),
        fault("early-stopping-never-looks", {"early_stopping": {"patience": 2}, "eval_steps": 60, "max_steps": 20}),
        fault("target-module-missing", {"target_modules": ["q_proj", "W_pack"], "method": "lora"}),
    ],
)
def test_settings_under_which_nothing_or_something_else_is_learned_are_stopped(
    shared: Installation, finished: Finished, row: Row, hyperparams: dict[str, Any]
) -> None:
    row.assert_stopped(shared.train(sft_spec(finished.chain.base, **hyperparams), *TRAINING)[1])


def unmarked_end(folder: Path) -> None:
    """The token that ends a turn as one of the tokenizer's own that is not special."""
    file = folder / "tokenizer.json"
    core = json.loads(file.read_text(encoding="utf-8"))
    (end,) = [token for token in core["added_tokens"] if token["content"] == "<|im_end|>"]
    end["special"] = False
    file.write_text(json.dumps(core), encoding="utf-8")
    for name in ("config.json", "generation_config.json"):
        with_json(name, eos_token_id=0)(folder)


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
            "header-trained",
            with_template(replaced((HEADER, ""), ("{%- generation -%}", "{%- generation -%}" + HEADER))),
        ),
        fault("answer-quoted", with_template(replaced(("message['content'] + '<|im_end|>' -}}{%- endgen", QUOTED)))),
        fault("answer-marked-in-part", with_template(replaced(("{%- generation -%}" + ANSWER, IN_PART)))),
        fault("no-generation-prompt", with_template(replaced((PROMPT, "")))),
        fault("think-opened", with_template(replaced(("assistant\\n'", "assistant\\n<think>\\n'")))),
        fault(
            "content-rewritten",
            with_template(replaced(("message['content']", "message['content'] | replace('통행료', '요금')"))),
        ),
        fault(
            "words-replaced",
            with_template(replaced(("message['content']", "message['content'] | replace('사고', '일')"))),
        ),
        fault("end-token-within-answers", with_json("tokenizer_config.json", eos_token=".")),
        fault("end-token-shows", all_of(unmarked_end, with_json("tokenizer_config.json", eos_token="<|pad|>"))),
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


@pytest.mark.fault("recipe-edited")
@pytest.mark.parametrize(("rate", "name", "value"), [(4e-3, "lr", 0.4), (5e-3, "precision", "none that there is")])
def test_a_recipe_that_was_changed_behind_the_platform_is_stopped(
    shared: Installation, finished: Finished, row: Row, rate: float, name: str, value: object
) -> None:
    partition = shared.request(sft_spec(finished.chain.base, lr=rate))
    key = partition.split("|")[1]
    with closing(sqlite3.connect(shared.root / "catalog.db")) as connection, connection:
        change = f"update recipes set spec = json_set(spec, '$.hyperparams.{name}', ?) where key = ?"
        assert connection.execute(change, (value, key)).rowcount == 1
    row.assert_stopped(shared.run(partition, "training_plan"))


@pytest.mark.fault("rows-left-out")
def test_a_training_on_the_few_rows_that_are_short_is_stopped(
    shared: Installation, finished: Finished, row: Row
) -> None:
    rows = chats(60, 46)
    for long, other in zip(rows[:40], chats(40, 47), strict=True):
        long["messages"][0]["content"] += " " + " ".join([other["messages"][0]["content"]] * 4)
    assert not shared.ingest("long@v1", "sft_pair", rows).failed
    row.assert_stopped(
        shared.train(sft_spec(finished.chain.base, "long@v1", max_seq_len=64, overlong="drop"), *TRAINING)[1]
    )


UNMARKED = "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}"
LOOP = "{%- for message in messages -%}"
SYSTEM = {"role": "system", "content": "고속도로 안내 창구입니다. 짧게 답하세요."}
TOOL = {"type": "function", "function": {"name": "fare", "parameters": {"type": "object", "properties": {}}}}


def with_system() -> list[dict[str, Any]]:
    return [row | {"messages": [SYSTEM, *row["messages"]]} for row in chats(40, 41)]


def of_two_turns() -> list[dict[str, Any]]:
    pairs = zip(chats(40, 42), chats(40, 43), strict=True)
    return [first | {"messages": first["messages"] + second["messages"]} for first, second in pairs]


def with_tools() -> list[dict[str, Any]]:
    return [row | {"tools": [TOOL]} for row in chats(40, 44)]


def with_reasoning() -> list[dict[str, Any]]:
    rows = chats(40, 45)
    for row in rows:
        row["messages"][1]["reasoning_content"] = "손님이 무엇을 묻는지 본다."
    return rows


@pytest.mark.parametrize(
    ("rows", "template"),
    [
        fault(
            "system-prompt-dropped",
            with_system(),
            replaced((LOOP, "{%- for message in messages if message['role'] != 'system' -%}")),
        ),
        fault(
            "system-prompt-refused",
            with_system(),
            "{%- if messages[0]['role'] == 'system' -%}{{ raise_exception('System role not supported') }}{%- endif -%}"
            + replaced(),
        ),
        fault("earlier-turns-dropped", of_two_turns(), replaced((LOOP, "{%- for message in messages[-2:] -%}"))),
        fault(
            "earlier-turns-unmarked",
            of_two_turns(),
            replaced(("{%- generation -%}" + ANSWER, "{%- if loop.last -%}{%- generation -%}" + ANSWER + UNMARKED)),
        ),
        fault(
            "earlier-turns-without-end",
            of_two_turns(),
            replaced((ANSWER, ANSWER.replace("'<|im_end|>'", "('<|im_end|>' if loop.last else '')"))),
        ),
        fault("tools-dropped", with_tools(), replaced()),
        fault("reasoning-dropped", with_reasoning(), replaced()),
    ],
)
def test_a_chat_template_that_leaves_out_what_rows_have_is_stopped(
    shared: Installation, finished: Finished, row: Row, rows: list[dict[str, Any]], template: str
) -> None:
    assert not shared.ingest(f"{row.key}@v1", "sft_pair", rows).failed
    base = brought_base(shared, finished.chain.base, row.key, with_template(template))
    row.assert_stopped(shared.train(sft_spec(base, f"{row.key}@v1"), *TRAINING)[1])


@pytest.mark.fault("pairs-exchanged")
def test_pairs_of_which_some_are_exchanged_are_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    pairs = preferences()
    turned = [one | {"chosen": one["rejected"], "rejected": one["chosen"]} for one in pairs[:40]]
    assert not shared.ingest("pairs@v1", "rlhf_pair", [*pairs, *turned]).failed
    dpo = {"algorithm": "dpo", "kl_coeff": 0.1, "reward_model_ref": None}
    spec = other_job(Bench(shared, finished.chain), "RLHF", "pairs@v1", finished.chain.tuned, rlhf=dpo)
    row.assert_stopped(shared.train(spec, "training_plan")[1])


@pytest.mark.fault("negatives-are-positives")
def test_negatives_that_are_the_passage_itself_are_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    spaced = [one | {"negatives": [one["positives"][0].replace(" ", "  ")]} for one in passages(answers=False)]
    assert not shared.ingest("anchors@v1", "embedding_pair", spaced).failed
    bench = Bench(shared, finished.chain)
    row.assert_stopped(
        shared.train(other_job(bench, "EMBEDDING", "anchors@v1", bench.encoder(), "bert"), "training_plan")[1]
    )


def of_tokenizer(**parts: Any) -> Callable[[Path], None]:
    """Sets parts of tokenizer.json; those of the model under `model`."""

    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        core = json.loads(file.read_text(encoding="utf-8"))
        core["model"] |= parts.get("model", {})
        file.write_text(json.dumps(core | {k: v for k, v in parts.items() if k != "model"}), encoding="utf-8")

    return change


@pytest.mark.parametrize(
    "change",
    [
        fault(
            "lines-lost-by-the-tokenizer",
            of_tokenizer(normalizer={"type": "Replace", "pattern": {"String": "\n"}, "content": " "}),
        ),
        fault("letters-taken-apart-by-the-tokenizer", of_tokenizer(normalizer={"type": "NFD"})),
        fault("merges-lost", of_tokenizer(model={"merges": []})),
    ],
)
def test_a_tokenizer_that_was_changed_is_named_where_it_looks_like_something_else(
    shared: Installation, finished: Finished, row: Row, change: Callable[[Path], None]
) -> None:
    base = brought_base(shared, finished.chain.base, row.key, change)
    row.assert_stopped(shared.train(sft_spec(base), "training_plan")[1])


@pytest.mark.fault("file-laid-beside-the-base")
def test_a_file_that_was_laid_beside_those_of_an_approved_base_is_stopped(
    shared: Installation, finished: Finished, row: Row
) -> None:
    # Of these files earlier releases knew all, so that their hash of the folder is today's.
    base = brought_base(shared, finished.chain.base, "beside", lambda f: (f / "generation_config.json").unlink())
    (Path(base.removeprefix("hf:")) / "generation_config.json").write_text('{"suppress_tokens": [2]}')
    row.assert_stopped(shared.train(sft_spec(base), "training_plan")[1])


@pytest.mark.fault("base-swapped")
def test_a_base_that_was_swapped_under_its_name_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    base = brought_base(shared, finished.chain.base, "swapped", lambda folder: None)
    file = Path(base.removeprefix("hf:")) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"\0\0\0\0")
    row.assert_stopped(shared.train(sft_spec(base), *TRAINING)[1])


def cut_short(tensors: dict[str, Any]) -> None:
    name = "model.embed_tokens.weight"
    tensors[name] = tensors[name][:-5].clone()


def without_a_layer(tensors: dict[str, Any]) -> None:
    del tensors[next(name for name in tensors if "q_proj" in name)]


def not_a_number(tensors: dict[str, Any]) -> None:
    tensors[next(name for name in tensors if "norm" in name)].fill_(float("nan"))


def enormous(tensors: dict[str, Any]) -> None:
    name = next(name for name in tensors if "down_proj" in name)
    tensors[name] = tensors[name] * 1e30


def with_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "another/base", "peft_type": "LORA"}')


def without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


TWO_THETAS = {"rope_theta": 5e5, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
NAMED = [{"name": "tool_use", "template": replaced()}]
QWEN = with_json("config.json", architectures=["Qwen3ForCausalLM"], model_type="qwen3")


@pytest.mark.parametrize(
    ("change", "family"),
    [
        fault("wrong-family", QWEN, "llama"),
        fault("weights-of-another-family", QWEN, "qwen"),
        fault("weights-incomplete", with_weights(without_a_layer), "llama"),
        fault("more-tokens-than-embeddings", with_weights(cut_short), "llama"),
        fault("weights-are-no-numbers", with_weights(not_a_number), "llama"),
        fault("weights-enormous", with_weights(enormous), "llama"),
        fault("setting-under-two-names", with_json("config.json", **TWO_THETAS), "llama"),
        fault("two-chat-templates", with_json("tokenizer_config.json", chat_template="{{ messages }}"), "llama"),
        fault(
            "no-default-template",
            all_of(without_template, with_json("tokenizer_config.json", chat_template=NAMED)),
            "llama",
        ),
        fault("end-token-is-text", with_json("generation_config.json", eos_token_id=[2, 16]), "llama"),
        fault("window-of-another-family", with_json("config.json", sliding_window=8), "llama"),
        fault("adapter-beside-the-weights", with_adapter, "llama"),
        fault("quantised-in-words", with_json("config.json", quantization_config={"quant_method": "fp8"}), "llama"),
        fault("dropout-of-the-base", with_json("config.json", attention_dropout=0.9), "llama"),
        fault("tokenizer-of-a-training", of_tokenizer(model={"dropout": 0.5}), "llama"),
        fault("vocabulary-exchanged", with_ids_exchanged(4), "llama"),
        fault("vocabulary-shuffled", with_ids_exchanged(None), "llama"),
    ],
)
def test_a_model_folder_that_is_not_what_it_says_cannot_be_registered(
    shared: Installation, finished: Finished, row: Row, change: Callable[[Path], None], family: str
) -> None:
    with pytest.raises(Exception) as refusal:
        brought_base(shared, finished.chain.base, row.key, change, family)
    row.assert_says(str(refusal.value))
