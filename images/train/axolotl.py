"""Trains the planned rows with Axolotl, in its own environment: renders the job as Axolotl's YAML, checks it, runs it.

Axolotl reads the rows as the plan made them, tokens and label mask (or pairs of answers in tokens), so neither its chat
templates nor its masking rules can make another training of the same spec. It checks the configuration against its own
schema; `axolotl_plugin`, which runs inside it, refuses keys that the schema does not know, seals checkpoints, writes
the live metrics, names the rows of a broken batch and heeds stop requests as our own trainer does.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from images.train import faults, pairs, rows, session, subprocesses
from images.train.reporter import Reporter, Stopped
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.steps import total_steps, warmup_steps
from resources import files
from resources.environment import engine_python

PLUGIN = "images.train.axolotl_plugin.Plugin"
DPO_TRAINER = "images.train.axolotl_dpo.Trainer"
_ROOT = Path(__file__).parents[2]
_EVALUATED_ROWS = 512


class AxolotlError(RuntimeError):
    """Axolotl is not there, or failed; the message says which and what to do."""


def render(
    spec: TrainJobSpec, job: TrainJob, work: Path, count: int, evaluated: bool, plain: Path | None = None
) -> dict[str, Any]:
    """Axolotl's configuration of a job over `count` planned rows, whose files are in `work`.

    What Axolotl would choose otherwise is written out where its default is another than ours: it warms up over 3 % of
    the steps, packs the evaluation, and drops equal rows.
    """
    hyper = spec.hyperparams
    packing = hyper.packing and spec.job_type != "PRETRAIN"
    checkpoint = folders.last_checkpoint(Path(job.checkpoints))[1]
    base = str(work / "initial") if job.base is None else job.base.path
    config: dict[str, Any] = {
        "base_model": base,
        "tokenizer_config": str(Path(job.plan_dir) / "tokenizer"),
        "type_of_model": "AutoModelForCausalLM",
        "trust_remote_code": False,
        "datasets": [_rows_of((plain or work) / "train.parquet")],
        "dataset_prepared_path": str((plain or work) / "prepared"),
        "dataset_num_proc": 1,
        "dataset_exact_deduplication": False,
        "val_set_size": 0,
        "output_dir": job.checkpoints,
        "sequence_len": hyper.max_seq_len,
        "sample_packing": packing,
        "eval_sample_packing": False,
        "pad_to_sequence_len": packing,
        "group_by_length": not packing and spec.rlhf is None,
        "micro_batch_size": hyper.batch_size,
        "eval_batch_size": hyper.batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation_steps,
        "num_epochs": hyper.num_epochs,
        "learning_rate": hyper.lr,
        "lr_scheduler": hyper.scheduler,
        "weight_decay": hyper.weight_decay,
        "optimizer": "adamw_torch",
        "seed": hyper.seed,
        "gradient_checkpointing": bool(job.gradient_checkpointing),
        "save_strategy": "steps",
        "save_steps": hyper.save_steps,
        "save_total_limit": 2,
        "logging_steps": max(1, min(10, total_steps(count, hyper) // 100)),
        "resume_from_checkpoint": str(checkpoint) if checkpoint else None,
        "use_tensorboard": False,
        "use_wandb": False,
        "strict": False,
        "plugins": [PLUGIN],
        "llmops_job": str(work / "job.json"),
        **_preferences(spec),
        **_steps(spec, count, packing),
        **_precision(job),
        **_adapter(spec, job),
        **_evaluation(spec, plain or work, evaluated),
    }
    return {name: value for name, value in config.items() if value is not None}


def _rows_of(path: Path) -> dict[str, Any]:
    # Without `type`: the rows are tokens already.
    return {"path": str(path), "ds_type": "parquet", "split": "train"}


def _preferences(spec: TrainJobSpec) -> dict[str, Any]:
    if spec.rlhf is None:
        return {}
    if spec.rlhf.algorithm != "dpo":
        raise AxolotlError(f"axolotl optimises no policy by {spec.rlhf.algorithm} here: write algorithm: dpo, or trl")
    return {
        "rl": "dpo",
        "rl_beta": spec.rlhf.kl_coeff,
        "trainer_cls": DPO_TRAINER,
        # Tokens already, in an order of ours: it would look for texts in them, and shuffle them first.
        "skip_prepare_dataset": True,
        "shuffle_merged_datasets": False,
        "remove_unused_columns": False,
    }


def _steps(spec: TrainJobSpec, count: int, packing: bool) -> dict[str, Any]:
    hyper = spec.hyperparams
    if packing:
        # How many blocks the rows fill is known to Axolotl alone.
        warm: dict[str, Any] = {"warmup_steps": hyper.warmup_steps} if hyper.warmup_ratio is None else {}
        if hyper.warmup_ratio is not None:
            warm = {"warmup_ratio": hyper.warmup_ratio}
        return {"max_steps": hyper.max_steps, **(warm if any(warm.values()) else {"warmup_steps": 0})}
    steps = total_steps(count, hyper)
    return {"max_steps": steps, "warmup_steps": warmup_steps(hyper, steps)}


def _precision(job: TrainJob) -> dict[str, Any]:
    half = {name: job.precision == name for name in ("bf16", "fp16")}
    if job.device == "cuda":
        return {**half, "tf32": False, "attn_implementation": "sdpa"}
    # Kernels that need Triton, off one by one: left out, Axolotl switches them on.
    kernels = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
    return {"bf16": False, "fp16": False, "tf32": False, "attn_implementation": "sdpa", **dict.fromkeys(kernels, False)}


def _adapter(spec: TrainJobSpec, job: TrainJob) -> dict[str, Any]:
    if spec.method == "full":
        return {}
    hyper = spec.hyperparams
    config: dict[str, Any] = {
        "adapter": spec.method,
        "load_in_4bit": spec.method == "qlora",
        "lora_r": hyper.lora_rank,
        # Axolotl takes whole numbers.
        "lora_alpha": _whole(hyper.lora_alpha),
        "lora_dropout": hyper.lora_dropout or 0.0,
    }
    if spec.method == "qlora":
        config["bnb_config_kwargs"] = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    if hyper.target_modules == "all-linear":
        config["lora_target_linear"] = True
    else:
        config["lora_target_modules"] = hyper.target_modules
    if hyper.train_embeddings:
        tied = _tied(Path(job.base.path))
        config["lora_modules_to_save"] = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
        config["peft_ensure_weight_tying"] = tied
    return config


def _whole(alpha: float | None) -> int:
    if alpha is None or alpha != int(alpha):
        raise AxolotlError(f"hyperparams.lora_alpha is {alpha}: axolotl takes whole numbers, or write trainer: trl")
    return int(alpha)


def _tied(model: Path) -> bool:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", False))


def _evaluation(spec: TrainJobSpec, work: Path, evaluated: bool) -> dict[str, Any]:
    if not evaluated:
        return {"eval_strategy": "no"}
    hyper = spec.hyperparams
    config: dict[str, Any] = {"test_datasets": [_rows_of(work / "validation.parquet")]}
    if hyper.eval_steps is None:
        return {**config, "eval_strategy": "epoch"}
    config |= {"eval_strategy": "steps", "eval_steps": hyper.eval_steps}
    if hyper.early_stopping is not None:
        config |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "llmops_patience": hyper.early_stopping.patience,
            "llmops_min_delta": hyper.early_stopping.min_delta,
        }
    return config


def train(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """Train as `images.train.train` does, and leave the same folder: weights in `output`, sealed with their facts."""
    # An image holds its own; elsewhere it is one of this machine.
    engines = os.environ.get("LLMOPS_IMAGE_ENGINES") or job.engines
    if engines is None:
        raise AxolotlError("engines: the folder of the trainers' environments is not named in the job")
    engine = engine_python(engines, "axolotl")
    if not engine.exists():
        raise AxolotlError(f"no environment of axolotl at {engine.parents[1]}: run `make engines`, or trainer: trl")
    faults.check_inputs(job)
    with faults.explained(job, {}):
        return _train(engine, spec, job, reporter)


def _train(engine: Path, spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    output, plan_dir = Path(job.output), Path(job.plan_dir)
    work = output.parent / "work" / "axolotl"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    step, _ = session.last_checkpoint(Path(job.checkpoints), faults.identity(spec, job), reporter)
    if job.base is None:
        _write_initial(spec, job, work / "initial")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (work / "job.json").write_text(job.model_copy(update={"resumed_from": step}).model_dump_json(), encoding="utf-8")
    config = work / "config.yaml"
    # Axolotl reads plain files: where rows are sealed at rest, these must not outlive it, or us.
    with files.plain_folder(work) as plain:
        count, evaluated = _write_plain(spec, plan_dir, plain)
        settings = render(spec, job, work, count, evaluated, plain)
        config.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
        with reporter.finishing_first():
            code = _run(engine, config, job, work, reporter)
    ended = work / "facts.json"
    if code != 0 or not ended.exists():
        raise AxolotlError(_failure(code, work))
    facts = json.loads(ended.read_text(encoding="utf-8"))
    if "stopped" in facts:
        raise Stopped(facts["stopped"])
    folders.seal(output, facts)
    reporter.log.info("trained %d steps in %.0f s with axolotl", facts["steps"], facts["seconds"])
    return facts


def _write_plain(spec: TrainJobSpec, plan_dir: Path, plain: Path) -> tuple[int, bool]:
    """Write the planned rows as Axolotl reads them: how many there are, and whether there are some to validate on."""
    write = _write_rows if spec.rlhf is None else _write_pairs
    count, validation = write(plan_dir / "train.parquet", plain / "train.parquet"), plan_dir / "validation.parquet"
    return count, validation.exists() and write(validation, plain / "validation.parquet", _EVALUATED_ROWS) > 0


def _write_rows(source: Path, target: Path, limit: int | None = None) -> int:
    """Write planned rows as Axolotl reads tokens; how many there are."""
    frame = rows.load(source).filter(pl.col("trained").list.sum() > 0)
    frame = frame if limit is None else frame.head(limit)
    columns = rows.training_columns(frame)
    table = pl.DataFrame(
        {
            "input_ids": columns["input_ids"],
            "labels": columns["labels"],
            "attention_mask": [[1] * len(ids) for ids in columns["input_ids"]],
        },
        schema={name: pl.List(pl.Int32) for name in ("input_ids", "labels", "attention_mask")},
    )
    table.write_parquet(target)
    _write_ids(target, columns["row_id"])
    return table.height


def _write_pairs(source: Path, target: Path, limit: int | None = None) -> int:
    """Write planned pairs as a DPO trainer takes them; how many there are."""
    frame = pairs.load(source)
    frame = frame if limit is None else frame.head(limit)
    columns = pairs.preference_columns(frame)
    pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.List(pl.Int32))).write_parquet(target)
    _write_ids(target, frame["row_id"].to_list())
    return frame.height


def _write_ids(target: Path, ids: list[str]) -> None:
    """The row ids of the file beside it: Axolotl would take a column of them for one of its own."""
    target.with_suffix(".ids.json").write_text(json.dumps(ids, ensure_ascii=False), encoding="utf-8")


def _write_initial(spec: TrainJobSpec, job: TrainJob, folder: Path) -> None:
    """A model that nothing was trained of yet, for a training that starts from nothing."""
    import torch
    from transformers import AutoTokenizer

    from images.train import weights

    tokenizer = AutoTokenizer.from_pretrained(Path(job.plan_dir) / "tokenizer", trust_remote_code=False)
    torch.manual_seed(spec.hyperparams.seed)
    model = weights.new_model(spec, len(tokenizer), tokenizer, job)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def environment(engine: Path, device: str) -> dict[str, str]:
    """What Axolotl's process sees: its programs first, our root and nothing else of ours, no network."""
    found = {
        **os.environ,
        "PATH": f"{engine.parent}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": str(_ROOT),
        "VIRTUAL_ENV": str(engine.parents[1]),
        "AXOLOTL_DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "LLMOPS_PARENT_PID": str(os.getpid()),
    }
    if device == "cpu":
        found |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    return found


def _run(engine: Path, config: Path, job: TrainJob, work: Path, reporter: Reporter) -> int:
    """Run `axolotl train`, passing on what our plugin says and keeping the rest in a log; the exit code."""
    command = [str(engine), "-m", "axolotl.cli.main", "train", str(config), "--launcher", "python"]
    process = subprocesses.start(command, environment(engine, job.device))
    interrupted = False
    with process, open(work / "axolotl.log", "a", encoding="utf-8") as log:
        assert process.stdout is not None
        for line in process.stdout:
            reporter.pass_on(line, log)
            if reporter.stop_reason and not interrupted:
                interrupted = True
                process.send_signal(signal.SIGINT)
    return process.returncode


def _failure(code: int, work: Path) -> str:
    lines = (work / "axolotl.log").read_text(encoding="utf-8", errors="replace").splitlines()
    last = [line for line in lines if line.strip() and not line.startswith(" ")][-12:]
    ended = f"axolotl ended with code {code}" if code else "axolotl ended without training"
    return "\n".join([f"{ended}; its log: {work / 'axolotl.log'}", *last])
