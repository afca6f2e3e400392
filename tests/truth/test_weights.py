"""Faults that are stopped by what was trained and merged."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from benchmarks.chain import chats, sft_spec
from benchmarks.installation import TRAINING, Installation
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord
from tests.truth.conftest import Finished, fault
from tests.truth.faults import SPLIT, brought_base, layers_exchanged, with_json, with_weights
from tests.truth.table import Row

ATTENTION = {"target_modules": ["q_proj", "k_proj", "v_proj"], "train_embeddings": False}


@pytest.mark.fault("diverged")
def test_a_rate_that_is_far_too_high_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    spec = sft_spec(finished.chain.base, lr=1.0, max_steps=6, save_steps=6)
    row.assert_stopped(shared.train(spec, *TRAINING)[1])


def deaf(tensors: dict[str, Any]) -> None:
    """What attention finds goes nowhere, so nothing in front of it can be learned."""
    for name in [name for name in tensors if "o_proj" in name]:
        tensors[name] = tensors[name] * 0


@pytest.mark.fault("adapter-unchanged")
def test_an_adapter_that_no_gradient_reaches_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    base = brought_base(shared, finished.chain.base, "deaf", with_weights(deaf))
    spec = sft_spec(base, method="lora", max_steps=4, save_steps=4, **ATTENTION)
    row.assert_stopped(shared.train(spec, *TRAINING)[1])


@pytest.mark.fault("module-without-gradient")
def test_an_adapter_of_which_one_module_learns_nothing_is_stopped(
    shared: Installation, finished: Finished, row: Row
) -> None:
    base = brought_base(shared, finished.chain.base, "half-deaf", with_weights(deaf))
    targets = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"]
    learning = {"target_modules": targets, "train_embeddings": True}
    spec = sft_spec(base, method="lora", max_steps=4, save_steps=4, **learning)
    row.assert_stopped(shared.train(spec, *TRAINING)[1])


@pytest.mark.fault("layers-exchanged")
def test_a_base_whose_layers_were_exchanged_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    base = brought_base(shared, finished.chain.base, "exchanged", with_weights(layers_exchanged))
    row.assert_stopped(shared.train(sft_spec(base, max_steps=8, save_steps=8))[1])


def zeroed(folder: Path) -> None:
    """The adapter as one that does nothing."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def doubled(folder: Path) -> None:
    """The adapter with twice its weight in the merge."""
    file = folder / "adapter_config.json"
    text = file.read_text(encoding="utf-8")
    assert '"lora_alpha": 32' in text
    file.write_text(text.replace('"lora_alpha": 32', '"lora_alpha": 64'), encoding="utf-8")


def embeddings_set_back(folder: Path) -> None:
    """The adapter whose trained embeddings are the base's again."""
    from safetensors.torch import load_file, save_file

    file, base = folder / "adapter_model.safetensors", folder.parent.parent.parent
    tensors = load_file(file)
    (name,) = [name for name in tensors if "embed_tokens" in name]
    (untrained,) = [
        load_file(other)["model.embed_tokens.weight"]
        for other in base.parent.glob("pretrain/tiny-base/*/merged-*/model.safetensors")
    ]
    assert not (untrained == tensors[name]).all()
    save_file(tensors | {name: untrained}, file, {"format": "pt"})


@pytest.mark.parametrize(
    "change",
    [
        fault("merge-equals-base", zeroed),
        fault("merge-of-another-scale", doubled),
        fault("trained-embeddings-set-back", embeddings_set_back),
    ],
)
def test_an_adapter_that_was_changed_before_its_merge_is_not_merged(
    one: Installation, finished: Finished, row: Row, change: Callable[[Path], None]
) -> None:
    spec = sft_spec(finished.chain.base, method="lora", max_steps=8, save_steps=8)
    cell, ran = one.train(spec, "training_plan", "adapter")
    assert not ran.failed
    change(Path(one.w.records.load(AdapterRecord, cell).path))
    row.assert_stopped(one.run(cell, "merged_model", "evaluation", "registered_model"))


ADDED = "하이패스카드"


def with_an_added_token(folder: Path) -> None:
    """The base with one more token, as a user adds it: in the tokenizer, with a row of the embeddings of its own."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(ADDED, normalized=False)])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.right("added-tokens")
def test_added_tokens_and_tied_embeddings_are_trained_saved_merged_and_answered_with(
    shared: Installation, finished: Finished
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    base = brought_base(shared, finished.chain.base, "added", with_an_added_token)
    rows = chats(240, 51)
    for one in rows:
        one["messages"][1]["content"] = f"{ADDED} {one['messages'][1]['content']}"
    assert not shared.ingest("added@v1", "sft_pair", rows, split=SPLIT).failed
    cell, ran = shared.train(sft_spec(base, "added@v1", method="lora", max_steps=60, save_steps=60))
    assert ran.failed.keys() <= {"accuracy_gate", "registered_model"}, ran.failed
    folder = Path(shared.w.records.load(MergedModelRecord, cell).path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    number = tokenizer.convert_tokens_to_ids(ADDED)
    before, merged = (load_file(Path(one) / "model.safetensors") for one in (base.removeprefix("hf:"), folder))
    trained = load_file(Path(shared.w.records.load(AdapterRecord, cell).path) / "adapter_model.safetensors")
    (name,) = [name for name in trained if "embed_tokens" in name]
    embeddings = merged["model.embed_tokens.weight"]
    assert (embeddings == trained[name]).all() and "lm_head.weight" not in merged, "tied: the head is the embeddings"
    moved = (embeddings - before["model.embed_tokens.weight"]).abs().amax(1)
    assert moved[number] > 1e-3
    answers = shared.w.records.load(EvaluationRecord, cell).answers
    said = [json.loads(line)["token_ids"] for line in Path(answers).read_text(encoding="utf-8").splitlines()]
    assert sum(number in ids for ids in said) > 0.9 * len(said), "the model writes the token that it was taught"


@pytest.mark.right("pad-is-eos")
def test_a_padding_token_that_is_the_end_token_masks_no_end(shared: Installation, finished: Finished) -> None:
    def same(folder: Path) -> None:
        from transformers import AutoTokenizer

        end = AutoTokenizer.from_pretrained(folder).eos_token_id
        with_json("tokenizer_config.json", pad_token="<|im_end|>", padding_side="right")(folder)
        with_json("config.json", pad_token_id=end)(folder)
        with_json("generation_config.json", pad_token_id=end)(folder)

    base = brought_base(shared, finished.chain.base, "pad-is-end", same)
    cell, ran = shared.train(sft_spec(base))
    assert not ran.failed and "registered_model" in ran.made, ran.failed
    record = shared.w.records.load(EvaluationRecord, cell)
    assert record.length_truncated == 0 and record.metric("test", "accuracy").value > 0.9
