"""The session of a policy that learns from planned answers without sampling any: by pairs, or by ratings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import polars as pl
from transformers import AutoTokenizer

from images.train import sft, weights
from images.train.heads import small_head
from images.train.likelihood import MEASURED
from images.train.probe import reference_in_memory
from images.train.session import Session, common_arguments
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec


def answer_session(
    spec: TrainJobSpec,
    job: TrainJob,
    train: pl.DataFrame,
    validation: pl.DataFrame | None,
    *,
    trainer: Callable[..., Any],
    config: Callable[..., Any],
    columns: Callable[[pl.DataFrame], dict[str, Any]],
    figures: Callable[[Any, int, pl.DataFrame], dict[str, float]],
    row_ids: Callable[[Any, pl.DataFrame], list[str]],
    **arguments: Any,
) -> Session:
    """The session of a TRL `trainer` class with its `config` class on planned rows.

    `columns` gives the columns that the trainer reads, `figures` what is measured afterwards (of the trainer, the
    padding token and some rows), `row_ids` the rows of a batch; `arguments` are further ones of the config.
    """
    tokenizer = AutoTokenizer.from_pretrained(Path(job.plan_dir) / "tokenizer", trust_remote_code=False)
    model = weights.base_model(spec, job.base.path, job.precision)
    small_head(model)
    common = common_arguments(spec, job, train.height, validation is not None) | {
        "beta": spec.rlhf.kl_coeff,
        "max_length": spec.hyperparams.max_seq_len,
        "gradient_checkpointing": job.gradient_checkpointing,
    }
    rows = [None if part is None else datasets.Dataset.from_dict(columns(part)) for part in (train, validation)]
    made = trainer(
        model=model,
        args=config(**common, **arguments),
        train_dataset=rows[0],
        eval_dataset=rows[1],
        processing_class=tokenizer,
        peft_config=None if spec.method == "full" else weights.lora(spec, model),
    )
    if spec.method == "qlora":
        weights.keep_trained_in_fp32(made.model)
    measured = (validation if validation is not None else train).head(MEASURED)
    return Session(
        trainer=made,
        evaluated=validation is not None,
        save=lambda output: sft.save(made.model, tokenizer, spec, output, job.stop_token),
        stopping=spec.hyperparams.early_stopping if made.args.load_best_model_at_end else None,
        figures=lambda: {
            **figures(made, tokenizer.pad_token_id or 0, measured),
            **reference_in_memory(made, Path(job.plan_dir)),
        },
        row_ids=lambda batch: row_ids(batch, train),
    )
