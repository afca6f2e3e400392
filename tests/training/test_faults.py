"""What breaks a training, in real processes: kills, no room on disk, no memory, other inputs, a loss of no number."""

import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from images.train import faults
from llmops_assets.records.training import AdapterRecord, CurvePoint, MergedModelRecord, PlanRecord
from llmops_assets.training import folders, merge_verdicts, progress, verdicts
from resources import content
from tests.training.conftest import (
    Desk,
    chat_frame,
    conversations,
    pretrain_spec,
    run_here,
    sft_spec,
    typed,
    write_splits,
)
from tests.training.test_worker import until

STEPS = 24


def work(job_file: str, limits: dict[int, int], environment: dict[str, str]) -> None:
    """The worker as a process of its own; the imports are those of the server that it is forked from."""
    from images.job_process import main

    os.environ.update(environment)
    for number, limit in limits.items():
        resource.setrlimit(number, (limit, resource.getrlimit(number)[1]))
    sys.exit(main(job_file, "images.train"))


@pytest.fixture(scope="module")
def worker() -> Callable[..., multiprocessing.Process]:
    """Starts a worker on a job, with limits of the system and variables of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["images.train.train", "images.train.sft", "images.train.session", "peft"])

    def start(job: dict, folder: Path, limits: dict[int, int] | None = None, **environment: str):
        files = {n: str(folder / "work" / f"{job['task']}.{n}") for n in ("result", "error", "log", "metrics", "live")}
        (folder / "work").mkdir(exist_ok=True)
        path = folder / "work" / f"{job['task']}.json"
        path.write_text(json.dumps({**job, **files, "locks": str(folder / "locks")}))
        process = context.Process(target=work, args=(str(path), limits or {}, environment))
        process.start()
        return process

    return start


def error_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / "work" / "train.error").read_text())


@pytest.fixture(scope="module")
def whole(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS, save_steps=6), folder, tiny_base)
    run_here(jobs["plan"], folder)
    run_here(jobs["train"], folder)
    return folder


def weights(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def interrupted_copy(whole: Path, target: Path, step: int) -> None:
    """The folder of `whole` as a training leaves it that was cut off behind the checkpoint of `step`."""
    shutil.copytree(whole / "plan", target / "plan")
    shutil.copytree(whole / "checkpoints" / f"checkpoint-{step}", target / "checkpoints" / f"checkpoint-{step}")


def test_a_full_disk_loses_nothing_and_says_what_is_needed(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path, worker: Callable
) -> None:
    interrupted_copy(whole, tmp_path, 18)
    job = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS, save_steps=6), tmp_path, tiny_base)["train"]
    largest = max(path.stat().st_size for path in (tmp_path / "checkpoints").rglob("*") if path.is_file())
    process = worker(job, tmp_path, {resource.RLIMIT_FSIZE: largest - 1})
    process.join(300)
    assert process.exitcode == 1
    error = error_of(tmp_path)
    assert error["type"] == "DiskFull"
    for words in ("a checkpoint takes about", "are free", "the checkpoint of step 18 is whole"):
        assert words in error["message"]
    assert [step for step, _ in folders.checkpoints(tmp_path / "checkpoints")] == [18], "the half-written one is gone"
    facts = run_here(job, tmp_path)
    assert facts["resumed_from"] == 18
    assert weights(tmp_path) == weights(whole)


def test_a_training_that_needs_more_memory_than_there_is_says_what_the_plan_reckoned_with(
    desk: Desk, tiny_base: Path, tmp_path: Path, worker: Callable
) -> None:
    spec = sft_spec(f"hf:{tiny_base}", batch_size=4096, num_epochs=400, max_steps=1)
    manifests = write_splits(
        desk.store,
        "wide@v1",
        {"train": chat_frame(conversations(4096)), "validation": chat_frame(conversations(4, 1))},
    )
    job = desk.jobs(spec, tmp_path, tiny_base)
    run_here({**job["plan"], "manifests": manifests}, tmp_path)
    memory = {"needed": 9 << 30, "available": 4 << 30, "advice": "batch_size: 8"}
    process = worker({**job["train"], "memory": memory}, tmp_path, {resource.RLIMIT_DATA: 1800 << 20})
    process.join(300)
    assert process.exitcode == 1
    error = error_of(tmp_path)
    assert error["type"] == "OutOfMemory"
    for words in ("reckoned with 9.00 GiB of the 4.00 GiB", "batch_size: 8", "alloc"):
        assert words in error["message"]
    assert not (tmp_path / "adapter").exists()


def test_a_killed_worker_leaves_a_gpu_and_a_checkpoint_behind_and_the_weights_do_not_know(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path, worker: Callable
) -> None:
    from resources.gpus import discover, lease

    shutil.copytree(whole / "plan", tmp_path / "plan")
    job = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS, save_steps=6), tmp_path, tiny_base)["train"]
    simulated = {"LLMOPS_SIMULATED_GPUS": "1"}
    process = worker({**job, "gpus": 1}, tmp_path, **simulated)
    until(lambda: folders.last_checkpoint(tmp_path / "checkpoints")[0] is not None, "a checkpoint")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with lease(discover(simulated), tmp_path / "locks", timeout=5.0, poll=0.01) as held:
        assert held[0].id == "simulated-0"
    live = progress.read(tmp_path)
    assert live.steps == STEPS and live.checkpoint >= 6 and live.memory_bytes > 1 << 20
    # What is shown is at most a second old; a second before, there may have been no loss yet.
    assert live.loss is None or live.loss > 0
    facts = run_here(job, tmp_path)
    assert facts["resumed_from"] >= 6
    assert weights(tmp_path) == weights(whole)


def test_a_batch_that_breaks_the_loss_is_named_by_its_rows(desk: Desk, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    recipe = pretrain_spec(max_steps=4)
    recipe["architecture"] = {**recipe["architecture"], "tie_embeddings": False}
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    base.mkdir(), tuned.mkdir()
    for task in ("plan", "train"):
        run_here(desk.jobs(recipe, base)[task], base)
    # A token of one row alone, whose embedding is no number.
    odd = [{"role": "user", "content": "≋"}, {"role": "assistant", "content": "네."}]
    frame = chat_frame([*conversations(30), odd])
    manifests = write_splits(desk.store, "odd@v2", {"train": frame, "validation": chat_frame(conversations(4, 1))})
    jobs = desk.jobs(sft_spec("hf:x", train_embeddings=False), tuned, base / "adapter")
    run_here({**jobs["plan"], "manifests": manifests}, tuned)
    tokens = AutoTokenizer.from_pretrained(tuned / "plan" / "tokenizer")("≋", add_special_tokens=False)["input_ids"]
    others = AutoTokenizer.from_pretrained(tuned / "plan" / "tokenizer")(
        [m["content"] for c in conversations(30) for m in c], add_special_tokens=False
    )["input_ids"]
    alone = next(token for token in tokens if not any(token in row for row in others))
    file = base / "adapter" / "model.safetensors"
    values = load_file(file)
    values["model.embed_tokens.weight"][alone] = float("nan")
    save_file(values, file, metadata={"format": "pt"})
    with pytest.raises(Exception, match=r"the loss became nan in step \d+.*rows of this batch: .*row-0030") as caught:
        run_here(jobs["train"], tuned)
    assert type(caught.value).__name__ == "Diverged"
    assert 1 <= str(caught.value).count("row-") <= 4, "the batch, and no other rows"
    assert "32 weights of the base model are no numbers" in str(caught.value)


@pytest.mark.parametrize("what", ["rows", "seal", "base", "gone"])
def test_inputs_that_changed_after_they_were_planned_are_refused(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path, what: str
) -> None:
    shutil.copytree(whole / "plan", tmp_path / "plan")
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    job = desk.jobs(sft_spec(f"hf:{base}", max_steps=STEPS, save_steps=6), tmp_path, base)["train"]
    job["base"]["content_hash"] = content.content_hash(base)
    if what == "rows":
        path = tmp_path / "plan" / "train.parquet"
        path.write_bytes((whole / "plan" / "validation.parquet").read_bytes())
    elif what == "seal":
        seal = tmp_path / "plan" / folders.SEAL
        seal.write_bytes(seal.read_bytes()[:-40])
    elif what == "base":
        config = json.loads((base / "config.json").read_text())
        (base / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    else:
        shutil.rmtree(base)
    reasons = {
        "rows": "train.parquet is not what was written",
        "seal": f"{folders.SEAL} cannot be read. Materialise training_plan again",
        "base": "was changed after",
        "gone": "base model is gone",
    }
    with pytest.raises(faults.InputsChanged, match=reasons[what]):
        run_here(job, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_a_checkpoint_of_other_rows_is_not_gone_on_with(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS, save_steps=6), tmp_path, tiny_base)
    frames = {"train": chat_frame(conversations(60, 9)), "validation": chat_frame(conversations(8, 1))}
    run_here({**jobs["plan"], "manifests": write_splits(desk.store, "desk@v2", frames)}, tmp_path)
    shutil.copytree(whole / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(faults.InputsChanged, match="step 24 was made with other rows: going on"):
        run_here(jobs["train"], tmp_path)
    assert [step for step, _ in folders.checkpoints(tmp_path / "checkpoints")] == [24, 18], "nothing is deleted"


def test_a_disk_without_room_for_a_checkpoint_is_told_before_the_first_step(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    faults.check_disk(tmp_path, 1)
    with pytest.raises(faults.DiskFull, match="LLMOPS_ARTIFACT_ROOT"):
        faults.check_disk(tmp_path, 2 * free + (1 << 40))


def plan_of(folder: Path, **more: object) -> PlanRecord:
    needed = {name: None for name, field in PlanRecord.model_fields.items() if field.is_required()}
    return PlanRecord.model_construct(**{**needed, "model_dir": str(folder), "precision": "fp32", **more})


def record_of(facts: dict) -> AdapterRecord:
    needed = {name: facts.get(name) for name in AdapterRecord.model_fields}
    return AdapterRecord.model_construct(**{**needed, "curve": [CurvePoint(**point) for point in facts["curve"]]})


def test_early_stopping_keeps_the_best_weights_and_both_checkpoints(
    desk: Desk, tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    stopping = {"eval_steps": 3, "save_steps": 30, "early_stopping": {"patience": 2}}
    # A rate at which the validation loss falls at first and then rises.
    spec = sft_spec(f"hf:{tiny_base}", max_steps=60, num_epochs=60, lr=0.2, scheduler="constant", **stopping)
    jobs = desk.jobs(spec, tmp_path, tiny_base)
    run_here(jobs["plan"], tmp_path)
    facts = run_here(jobs["train"], tmp_path)
    evaluated = {p["step"]: p["eval_loss"] for p in facts["curve"] if "eval_loss" in p}
    assert facts["steps"] < 60, "it stopped early"
    assert facts["best_step"] == min(evaluated, key=evaluated.get) < facts["steps"]
    assert facts["eval_loss"] == min(evaluated.values())
    checkpoints = tmp_path / "checkpoints"
    best = load_file(checkpoints / f"checkpoint-{facts['best_step']}" / "adapter_model.safetensors")
    kept = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert best.keys() == kept.keys() and all(bool((best[name] == kept[name]).all()) for name in kept)

    record, plan = record_of(facts), plan_of(tmp_path)
    assert verdicts.checkpoint_kept(record, plan).passed
    last = checkpoints / f"checkpoint-{facts['steps']}"
    hidden = last.rename(tmp_path / "hidden")
    assert "steps were trained" in verdicts.checkpoint_kept(record, plan).text
    hidden.rename(last)
    (checkpoints / f"checkpoint-{facts['best_step']}" / "adapter_model.safetensors").unlink()
    verdict = verdicts.checkpoint_kept(record, plan)
    assert not verdict.passed and "adapter_model.safetensors is missing" in verdict.text


def test_weights_that_did_not_move_and_a_loss_that_did_not_fall_are_found(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    good = record_of(folders.facts(whole / "adapter"))
    for judge in (verdicts.weights_moved, verdicts.weights_finite, verdicts.loss_fell):
        assert judge(good).passed
    shutil.copytree(whole / "plan", tmp_path / "plan")
    job = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=4, lr=1e-30), tmp_path, tiny_base)["train"]
    still = record_of(run_here(job, tmp_path))
    assert not verdicts.weights_moved(still).passed
    wild = tmp_path / "wild"
    shutil.copytree(whole / "plan", wild / "plan")
    diverging = sft_spec(f"hf:{tiny_base}", max_steps=12, lr=1.0, scheduler="constant")
    rising = record_of(run_here(desk.jobs(diverging, wild, tiny_base)["train"], wild))
    assert not verdicts.loss_fell(rising).passed


def merged_of(facts: dict) -> MergedModelRecord:
    return MergedModelRecord.model_construct(
        **{**dict.fromkeys(MergedModelRecord.model_fields), "figures": {}, **facts}
    )


def test_a_merge_that_changed_the_model_or_left_the_adapter_out_is_found(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from images.train import merge, probe

    facts = run_here(desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS), whole, tiny_base)["merge"], whole)
    good = merged_of(facts)
    assert facts["mean_kl"] < 1e-6
    for verdict in (
        merge_verdicts.same_as_trained(good, "fp32"),
        merge_verdicts.differs_from_base(good),
        merge_verdicts.reloads(good),
    ):
        assert verdict.passed, verdict.text
    # What a merge that dropped the adapter would serve: the base.
    probes = probe.probes(whole / "plan")
    trained, base = (probe.logits_of(merge._load(p, torch.float32), probes) for p in (whole / "merged", tiny_base))
    difference, agreement = merge.compare(trained, base)
    figures = {
        "max_logit_difference": difference,
        "top1_agreement": agreement,
        "mean_kl": merge.divergence(trained, base),
    }
    assert figures["mean_kl"] > 0.1
    for name in figures:
        one = merged_of({**facts, name: figures[name]})
        assert not merge_verdicts.same_as_trained(one, "fp32").passed, name

    assert facts["adapter_kl"] == pytest.approx(facts["base_kl"], rel=1e-3)

    assert facts["saved_difference"] < 1e-4, "what was saved is what was in memory"
    verdict = merge_verdicts.same_as_trained(merged_of({**facts, "saved_difference": 0.5}), "fp32")
    assert not verdict.passed and "was not saved: embeddings" in verdict.text

    shutil.copytree(whole / "plan", tmp_path / "plan")
    unmoved = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=1, lr=1e-30, train_embeddings=False), tmp_path, tiny_base)
    for task in ("train", "merge"):
        facts = run_here(unmoved[task], tmp_path)
    assert not merge_verdicts.differs_from_base(merged_of(facts)).passed

    broken = tmp_path / "broken"
    shutil.copytree(whole / "plan", broken / "plan")
    shutil.copytree(tiny_base, broken / "adapter")
    values = load_file(broken / "adapter" / "model.safetensors")
    values["model.norm.weight"][0] = float("nan")
    save_file(values, broken / "adapter" / "model.safetensors", metadata={"format": "pt"})
    full = desk.jobs(sft_spec(f"hf:{tiny_base}", "full"), broken, tiny_base)["merge"]
    with pytest.raises(faults.InputsChanged, match=r"model\.safetensors is not what was written"):
        run_here(full, broken)
    # As if they had been trained so.
    folders.seal(broken / "adapter", folders.noted(broken / "adapter"))
    assert not merge_verdicts.reloads(merged_of(run_here(full, broken))).passed


def test_an_index_that_is_out_of_range_is_told_as_the_token_that_it_is(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(whole / "plan", tmp_path / "plan")
    job = typed(desk.jobs(sft_spec(f"hf:{tiny_base}"), tmp_path, tiny_base)["train"])
    for error in (IndexError("index out of range in self"), RuntimeError("CUDA error: device-side assert triggered")):
        with pytest.raises(faults.TokenOutOfRange, match="max_position_embeddings"), faults.explained(job, {}):
            raise error
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "plan" / "tokenizer")
    rows = len(tokenizer)
    tokenizer.add_tokens(["통행료"])
    tokenizer.save_pretrained(tmp_path / "plan" / "tokenizer")
    frame = pl.read_parquet(tmp_path / "plan" / "train.parquet")
    frame.with_columns(pl.col("ids").list.concat([rows]).cast(frame.schema["ids"])).write_parquet(
        tmp_path / "plan" / "train.parquet"
    )
    with pytest.raises(faults.TokenOutOfRange, match=rf"token '통행료' \(id {rows}\)"), faults.explained(job, {}):
        raise IndexError("index out of range in self")
    with pytest.raises(IndexError, match="list index"), faults.explained(job, {}):
        raise IndexError("list index out of range")


def test_a_merge_in_few_bits_that_rounds_a_gentle_adapter_away_is_found(
    desk: Desk, tiny_base: Path, whole: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(whole / "plan", tmp_path / "plan")
    shutil.copytree(whole / "adapter", tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    # As one that was trained at a hundredth of the rate.
    gentle = {
        name: t * 0.01 if "lora_B" in name else t
        for name, t in load_file(file).items()
        if not re.search("embed|lm_head", name)
    }
    save_file(gentle, file, metadata={"format": "pt"})
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"modules_to_save": None}))
    folders.seal(tmp_path / "adapter", {})
    job = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS), tmp_path, tiny_base)["merge"]
    whole_bits = merged_of(run_here(job, tmp_path))
    assert merge_verdicts.same_as_trained(whole_bits, "fp32").passed
    few = merged_of(run_here({**job, "precision": "bf16"}, tmp_path))
    assert few.mean_kl < merge_verdicts.MAX_KL["bf16"], "by itself the merge is as close as bf16 asks"
    verdict = merge_verdicts.same_as_trained(few, "bf16")
    assert not verdict.passed and "the merge takes away what was learned" in verdict.text
    assert "train longer or at a higher lr, or in fp32" in verdict.text


def test_a_folder_that_was_made_for_another_training_is_not_its_own(tmp_path: Path) -> None:
    ours, theirs = (tmp_path / key / "adapter" for key in ("0123456789ab", "ba9876543210"))
    theirs.mkdir(parents=True)
    (theirs / "adapter_model.safetensors").write_text("weights")
    folders.seal(theirs, {"steps": 4})
    assert folders.facts(theirs) == {"steps": 4}
    shutil.copytree(theirs, ours)
    assert folders.damage(ours) == "it was made as ba9876543210/adapter, and laid here"
    assert folders.facts(ours) is None
    # The home may be moved as a whole.
    theirs.parent.parent.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    assert folders.damage(tmp_path.with_name(f"{tmp_path.name}-moved") / "ba9876543210" / "adapter") is None
