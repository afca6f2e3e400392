"""The worker's tasks on a tiny model: plan, train by every method, merge, and what is refused."""

import json
import math
import shutil
from pathlib import Path

import polars as pl
import pytest

from images.train import rows
from llmops_assets.specs.families import FAMILY_VERSION_KEY, verify_family
from llmops_assets.specs.policy import load_policy
from llmops_assets.training import folders
from resources import content
from tests.training.conftest import Desk, chat_frame, of_task, pretrain_spec, run_here, sft_spec, write_splits


def trained(desk: Desk, folder: Path, base: Path, method: str, **hyperparams) -> dict[str, dict]:
    jobs = desk.jobs(sft_spec(f"hf:{base}", method, **hyperparams), folder, base)
    return jobs, {task: run_here(jobs[task], folder) for task in ("plan", "train", "merge")}


def test_a_model_from_nothing_is_one_of_its_family_and_can_be_chatted_with(tiny_base: Path) -> None:
    config = json.loads((tiny_base / "config.json").read_text())
    assert config[FAMILY_VERSION_KEY] == "3.0"
    verify_family(load_policy().families, "llama", config, "SFT")
    facts = folders.facts(tiny_base)
    assert facts["last_loss"] < facts["first_loss"]
    assert math.isclose(facts["first_loss"], math.log(config["vocab_size"]), rel_tol=0.1)

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert model.generation_config.eos_token_id == tokenizer.convert_tokens_to_ids("<|im_end|>")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "통행료는?"}], add_generation_prompt=True, tokenize=False
    )
    assert text == "<|im_start|>user\n통행료는?<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("method", ["lora", "full", "qlora"])
def test_every_method_trains_what_merges_into_an_equal_model(
    desk: Desk, tiny_base: Path, tmp_path: Path, method: str
) -> None:
    _jobs, results = trained(desk, tmp_path, tiny_base, method)
    train, merge = results["train"], results["merge"]
    assert train["steps"] == 12
    assert train["last_loss"] < train["first_loss"]
    assert train["weight_change"] > 0 and train["non_finite_weights"] == 0
    assert folders.last_checkpoint(tmp_path / "checkpoints")[0] == 12
    assert merge["reloads"] and merge["differs_from_base"]
    assert merge["chat_template_hash"] == results["plan"]["chat_template_hash"]
    if method == "full":
        assert (tmp_path / "merged" / "model.safetensors").samefile(tmp_path / "adapter" / "model.safetensors")
        assert merge["content_hash"] == train["content_hash"]
        assert merge["max_logit_difference"] is None
    else:
        assert merge["max_logit_difference"] < 1e-3
        assert merge["top1_agreement"] >= 0.99
        weights = {p.name for p in (tmp_path / "merged").iterdir()}
        assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "generation_config.json"} <= weights
        assert not any(p.suffix in (".bin", ".pt") for p in (tmp_path / "merged").iterdir())


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_servable_model_is_one_file_or_laid_out_as_the_hub_has_it(
    desk: Desk, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    import torch

    from images.train import merge, probe

    jobs, results = trained(desk, tmp_path, tiny_base, method)
    one = {path.name for path in (tmp_path / "merged").glob("*.safetensors*")}
    assert one == {"model.safetensors"}
    # Of a size that this model has many times over.
    monkeypatch.setitem(merge.SHARD_BYTES, "hf", 40_000)
    spec = {**jobs["merge"]["spec"], "output": {"artifact_name": "tiny-desk", "save_format": "hf"}}
    laid_out = tmp_path / "laid-out"
    facts = run_here({**jobs["merge"], "spec": spec, "output": str(laid_out)}, tmp_path)
    names = {path.name for path in laid_out.glob("*.safetensors*")}
    assert "model.safetensors.index.json" in names and "model.safetensors" not in names and len(names) > 3
    assert facts["reloads"] and facts["parameters"] == results["merge"]["parameters"]
    served = [
        probe.logits_of(merge._load(folder, torch.float32), [torch.arange(9)[None]])
        for folder in (tmp_path / "merged", laid_out)
    ]
    assert merge.compare(*served)[0] == 0.0


@pytest.mark.parametrize(("family", "tied"), [("mistral", True), ("gemma", False), ("qwen", True)])
def test_every_family_trains_from_nothing_and_on(desk: Desk, tmp_path: Path, family: str, tied: bool) -> None:
    recipe = {**pretrain_spec(max_steps=4), "model_family": family}
    recipe["architecture"] = {**recipe["architecture"], "tie_embeddings": tied}
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    base.mkdir(), tuned.mkdir()
    jobs = desk.jobs(recipe, base)
    for task in ("plan", "train"):
        run_here(of_task(task, {**jobs[task], "family_version": None}), base)
    verify_family(load_policy().families, family, json.loads((base / "adapter" / "config.json").read_text()), "SFT")
    jobs = desk.jobs({**sft_spec("hf:x", max_steps=4), "model_family": family}, tuned, base / "adapter")
    plan, train, merge = (run_here(jobs[task], tuned) for task in ("plan", "train", "merge"))
    assert plan["stop_token_trained"] and train["weight_change"] > 0
    assert merge["max_logit_difference"] < 1e-3 and merge["differs_from_base"] and merge["reloads"]


def test_packed_rows_train_too(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", packing=True, max_steps=4), tmp_path, tiny_base)
    run_here(jobs["plan"], tmp_path)
    facts = run_here(jobs["train"], tmp_path)
    assert facts["steps"] == 4 and facts["last_loss"] < facts["first_loss"]


def test_only_the_answers_and_their_end_carry_loss(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}"), tmp_path, tiny_base)
    facts = run_here(jobs["plan"], tmp_path)
    assert facts["stop_token"] == "<|im_end|>" and facts["stop_token_trained"]
    assert facts["prefix_preserving"] and facts["double_bos_rows"] == 0 and facts["failures"] == {}

    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plan" / "tokenizer")
    frame = desk.store.read(desk.chat["train"])
    for row, messages in zip(
        rows.load(tmp_path / "plan" / "train.parquet").iter_rows(named=True), frame["messages"].to_list(), strict=True
    ):
        learnt = tokenizer.decode([i for i, m in zip(row["ids"], row["trained"], strict=True) if m])
        assert learnt == "".join(f"{m['content']}<|im_end|>" for m in messages if m["role"] == "assistant")


def test_rows_that_are_cut_or_empty_are_counted_and_named(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    long = [{"role": "user", "content": "길다 " * 300}, {"role": "assistant", "content": "네."}]
    cut = [{"role": "user", "content": "짧다"}, {"role": "assistant", "content": "아주 긴 답입니다. " * 60}]
    fine = [{"role": "user", "content": "짧다"}, {"role": "assistant", "content": "네."}]
    manifests = write_splits(
        desk.store, "odd@v1", {"train": chat_frame([long, cut, fine]), "validation": chat_frame([fine])}
    )
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_seq_len=64), tmp_path, tiny_base)
    facts = run_here({**jobs["plan"], "manifests": manifests}, tmp_path)
    assert facts["rows_without_trainable_tokens"] == 1
    assert facts["truncated_rows"] == 2
    assert facts["cut_answers"] == 2
    assert facts["failures"]["no_trainable_tokens"] == ["row-0000"]
    assert facts["failures"]["cut_answers"] == ["row-0000", "row-0001"]


def test_rows_that_are_too_long_can_be_left_out(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    long = [{"role": "user", "content": "길다 " * 300}, {"role": "assistant", "content": "네."}]
    fine = [{"role": "user", "content": "짧다"}, {"role": "assistant", "content": "네."}]
    manifests = write_splits(
        desk.store, "long@v1", {"train": chat_frame([long, fine]), "validation": chat_frame([fine])}
    )
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_seq_len=64, overlong="drop"), tmp_path, tiny_base)
    facts = run_here({**jobs["plan"], "manifests": manifests}, tmp_path)
    assert facts["rows"]["train"] == 1 and facts["dropped_rows"] == 1
    assert facts["failures"] == {"dropped": ["row-0000"]}
    assert facts["cut_answers"] == facts["rows_without_trainable_tokens"] == 0
    everything = write_splits(desk.store, "long@v2", {"train": chat_frame([long]), "validation": chat_frame([fine])})
    again = desk.jobs(sft_spec(f"hf:{tiny_base}", max_seq_len=64, overlong="drop"), tmp_path / "again", tiny_base)
    with pytest.raises(ValueError, match="all 1 rows are longer"):
        run_here({**again["plan"], "manifests": everything}, tmp_path)


def test_a_loss_that_is_no_number_ends_the_training(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    from images.train.progress import Diverged

    broken = tmp_path / "base"
    shutil.copytree(tiny_base, broken)
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = float("nan")
    jobs = desk.jobs(sft_spec(f"hf:{broken}"), tmp_path, broken)
    run_here(jobs["plan"], tmp_path)
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(Diverged, match="loss became nan in step 1"):
        run_here(jobs["train"], tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_a_damaged_last_checkpoint_is_passed_over(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    jobs, results = trained(desk, tmp_path, tiny_base, "lora")
    whole = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    shutil.rmtree(tmp_path / "adapter")
    weights = tmp_path / "checkpoints" / "checkpoint-12" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    lines: list[str] = []
    facts = run_here(jobs["train"], tmp_path, lines.append)
    assert facts["resumed_from"] == 8
    assert any("checkpoint of step 12 is not used" in line for line in lines)
    assert facts["content_hash"] == results["train"]["content_hash"]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == whole


def test_pickled_weights_are_not_read(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = tmp_path / "pickled"
    shutil.copytree(tiny_base, folder)
    jobs = desk.jobs(sft_spec(f"hf:{folder}"), tmp_path, folder)
    run_here(jobs["plan"], tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        run_here(jobs["train"], tmp_path)
    with pytest.raises(FileNotFoundError, match="safetensors"):
        content.content_hash(folder)


def test_a_corpus_too_small_for_one_block_is_refused(desk: Desk, tmp_path: Path) -> None:
    tiny = pl.DataFrame({"row_id": ["a"], "text": ["짧다"]})
    manifests = write_splits(desk.store, "short@v1", {"train": tiny, "validation": tiny})
    jobs = desk.jobs(pretrain_spec(), tmp_path)
    with pytest.raises(ValueError, match="less than one block"):
        run_here({**jobs["plan"], "manifests": manifests}, tmp_path)
