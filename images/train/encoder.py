"""Trains an encoder to put a text near the texts that belong to it: contrastively, against the rest of its batch.

The loss is InfoNCE over cosines (van den Oord et al. 2018, arXiv:1807.03748; with in-batch negatives: Henderson et al.
2017, arXiv:1705.00652). Every other passage of the batch, given negatives included, is a negative of an anchor, except
those that are known to belong to it: they are taken out of its row of the loss.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, Trainer, TrainingArguments

from images.train import sealed, session, weights
from images.train.order import LengthGroups
from images.train.progress import finite
from images.train.reporter import Reporter
from images.train.session import Session, common_arguments
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.jobs import ALIKE, Pooling
from llmops_assets.specs.training import TrainJobSpec
from resources import content

_MEASURED = 256
_EVALUATED_ROWS = 512


def train(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """The worker's training of an EMBEDDING job."""
    plan_dir = Path(job.plan_dir)
    return session.train(
        lambda: build(spec, job, plan_dir, job.base.path, job.pooling),
        spec,
        job,
        reporter,
    )


def build(
    spec: TrainJobSpec, job: TrainJob, plan_dir: Path, base: str, pooling: Pooling, lr: float | None = None
) -> Session:
    """The trainer of the encoder in folder `base` on the anchors and passages planned in `plan_dir`."""
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    train = sealed.read_parquet(plan_dir / "train.parquet")
    path = plan_dir / "validation.parquet"
    validation = sealed.read_parquet(path).head(_EVALUATED_ROWS) if path.exists() else None
    model = backbone(spec, base, job.precision)
    if spec.method != "full":
        from peft import get_peft_model

        model = get_peft_model(model, weights.lora(spec, model, "FEATURE_EXTRACTION"))
        weights.keep_trained_in_fp32(model)
    evaluated = validation is not None and validation.height > 1
    arguments = common_arguments(spec, job, train.height, evaluated) | {
        "learning_rate": lr or spec.hyperparams.lr,
        "gradient_checkpointing": job.gradient_checkpointing,
        "remove_unused_columns": False,
        # The last batch of a pass may hold one row, which has nothing to be told apart from.
        "dataloader_drop_last": train.height > spec.hyperparams.batch_size,
        "include_num_input_tokens_seen": "non_padding",
    }
    trainer = _Trainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=train.to_dicts(),
        eval_dataset=validation.to_dicts() if evaluated else None,
        data_collator=Collator(tokenizer.pad_token_id or 0),
        processing_class=tokenizer,
    )
    trainer.pooling, trainer.temperature = pooling, spec.embedding.temperature
    trainer.lengths = train["passage"].list.len().to_numpy()
    measured = (validation if evaluated else train).head(_MEASURED)

    def save(output: Path) -> str:
        trainer.model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        return content.content_hash(output) if spec.method == "full" else weights.adapter_hash(output)

    return Session(
        trainer=trainer,
        evaluated=evaluated,
        save=save,
        stopping=spec.hyperparams.early_stopping if trainer.args.load_best_model_at_end else None,
        figures=lambda: figures(trainer.model, tokenizer.pad_token_id or 0, pooling, measured),
        row_ids=lambda batch: batch["row_id"],
    )


def backbone(spec: TrainJobSpec, path: str, precision: str) -> Any:
    """The encoder to be trained: the body of a language model, or a BERT, whose unused pooler stays as it is."""
    model = weights.base_model(spec, path, precision, AutoModel)
    for name, parameter in model.named_parameters():
        if "pooler" in name.split("."):
            parameter.requires_grad_(False)
    return model


class Collator:
    """Batches of {anchor, passage, negatives, keys…} as one padded table of texts, anchors first, then passages."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        passages = [row["passage"] for row in rows] + [n for row in rows for n in row["negatives"]]
        keys = [row["passage_key"] for row in rows] + [k for row in rows for k in row["negative_keys"]]
        batch = padded([row["anchor"] for row in rows] + passages, self.pad)
        # How alike two texts with a score are says nothing of others, so theirs are no negatives.
        scores = [row.get("score") for row in rows]
        mask = allowed(keys, [row["known"] for row in rows])
        mask[:, [at for at, score in enumerate(scores) if score is not None]] = False
        np.fill_diagonal(mask, True)
        batch["allowed"] = torch.from_numpy(mask)
        batch["score"] = torch.tensor([float("nan") if score is None else score for score in scores])
        batch["row_id"] = [row["row_id"] for row in rows]
        return batch


def padded(rows: Sequence[Sequence[int]], pad: int) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask` of token rows, padded on the right."""
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def allowed(keys: Sequence[int], known: Sequence[Sequence[int]]) -> np.ndarray:
    """Which passages an anchor is told apart from, bool of shape (anchors, passages).

    `keys` names the passages of the batch, the i-th being that of anchor i; `known` those that belong to each anchor.
    A passage that belongs to the anchor is no negative of it, wherever else in the batch it stands.
    """
    every = np.asarray(keys)
    mask = np.stack([~np.isin(every, np.asarray(own)) for own in known])
    np.fill_diagonal(mask, True)
    return mask


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """Unit vectors (texts, dimensions) of `hidden` (texts, tokens, dimensions); the padding is on the right."""
    if pooling == "cls":
        vectors = hidden[:, 0]
    elif pooling == "lasttoken":
        vectors = hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]
    else:
        weight = mask.unsqueeze(-1).to(hidden.dtype)
        vectors = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    return functional.normalize(vectors.float(), dim=-1)


def contrastive_loss(
    anchors: torch.Tensor, passages: torch.Tensor, mask: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Mean InfoNCE of unit vectors: passage i belongs to anchor i, `mask` says which others it is told apart from."""
    scores = (anchors @ passages.T / temperature).masked_fill(~mask, float("-inf"))
    return functional.cross_entropy(scores, torch.arange(len(anchors), device=scores.device))


def score_loss(cosines: torch.Tensor, scores: torch.Tensor, temperature: float) -> torch.Tensor:
    """CoSENT: the cosine of a pair with a higher score is to be the higher one (Su 2022, kexue.fm/archives/8847).

    `cosines` and `scores` have shape (pairs,); the loss is 0 where all scores are equal.
    """
    differences = (cosines[None, :] - cosines[:, None]) / temperature
    ordered = scores[:, None] > scores[None, :]
    return torch.logsumexp(torch.cat([cosines.new_zeros(1), differences[ordered]]), dim=0)


def batch_loss(
    anchors: torch.Tensor, passages: torch.Tensor, mask: torch.Tensor, scores: torch.Tensor, temperature: float
) -> torch.Tensor:
    """The loss of a batch: contrastive of rows without a score (NaN), by the order of scores of the others."""
    scored = ~torch.isnan(scores)
    if not scored.any():
        return contrastive_loss(anchors, passages, mask, temperature)
    own = passages[: len(anchors)]
    by_score = score_loss((anchors[scored] * own[scored]).sum(1), scores[scored], temperature)
    plain = torch.nonzero(~scored).flatten()
    if not len(plain):
        return by_score
    logits = (anchors[plain] @ passages.T / temperature).masked_fill(~mask[plain], float("-inf"))
    contrast = functional.cross_entropy(logits, plain)
    return (len(plain) * contrast + scored.sum() * by_score) / len(scores)


class _Trainer(Trainer):
    """The contrastive training of an encoder."""

    pooling: Pooling
    temperature: float
    lengths: np.ndarray

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.can_return_loss, self.label_names = True, []
        self._accuracy: list[float] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(self.lengths, size, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        mask = inputs["allowed"]
        hidden = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        vectors = pool(hidden, inputs["attention_mask"], self.pooling)
        loss = batch_loss(vectors[: len(mask)], vectors[len(mask) :], mask, inputs["score"], self.temperature)
        return (loss, {"loss": loss}) if return_outputs else loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return finite(super().training_step(*args, **kwargs), self.state.global_step + 1)

    def get_eval_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        # Only training leaves the last rows out: a validation split smaller than a batch would be none.
        dropping, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(*args, **kwargs)
        finally:
            self.args.dataloader_drop_last = dropping

    def prediction_step(self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: Any = None) -> Any:
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            loss = self.compute_loss(model, inputs)
        return loss.detach(), None, None


@torch.inference_mode()
def embed(model: Any, rows: Sequence[Sequence[int]], pad: int, pooling: Pooling, texts_a_batch: int = 64) -> np.ndarray:
    """Unit vectors of token rows, float32 of shape (rows, dimensions)."""
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(order), texts_a_batch):
        batch = order[start : start + texts_a_batch]
        inputs = {name: part.to(device) for name, part in padded([rows[i] for i in batch], pad).items()}
        vectors = pool(model(**inputs).last_hidden_state, inputs["attention_mask"], pooling).cpu().numpy()
        found.update(zip(batch, vectors, strict=True))
    return np.stack([found[i] for i in range(len(rows))])


def figures(model: Any, pad: int, pooling: Pooling, frame: pl.DataFrame) -> dict[str, float]:
    """Whether the encoder still tells texts apart: mean cosine of an anchor to its passage and to all others.

    Of pairs with scores it is the rank correlation of cosines and scores, and those that are alike stand for the rest.
    """
    was_training = model.training
    model.eval()
    by_score: dict[str, float] = {}
    if "score" in frame.columns and (scored := frame.filter(pl.col("score").is_not_null())).height > 1:
        sides = [embed(model, scored[name].to_list(), pad, pooling) for name in ("anchor", "passage")]
        found = pl.DataFrame({"cosine": (sides[0] * sides[1]).sum(1), "score": scored["score"]})
        rank = found.select(pl.corr("cosine", "score", method="spearman")).item()
        if rank is not None and np.isfinite(rank):
            by_score = {"score_spearman": float(rank), "scored_pairs": float(scored.height)}
        alike = frame.filter(pl.col("score").is_null() | (pl.col("score") >= ALIKE))
        frame = alike if alike.height else frame.head(1)
    frame = frame.unique("passage_key", maintain_order=True)
    anchors = embed(model, frame["anchor"].to_list(), pad, pooling)
    passages = embed(model, frame["passage"].to_list(), pad, pooling)
    model.train(was_training)
    cosines = anchors @ passages.T
    among = passages @ passages.T
    count = len(passages)
    others = ~np.eye(count, dtype=bool)
    return {
        "cosine_own": float(np.diag(cosines).mean()),
        "cosine_others": float(cosines[others].mean()) if count > 1 else 0.0,
        "cosine_among_passages": float(among[others].mean()) if count > 1 else 0.0,
        "measured_passages": float(count),
        **by_score,
    }
