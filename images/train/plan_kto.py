"""Plans a training on answers found good or bad: the rows as they will be weighed, and what in them teaches nothing."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from images.train import unpaired
from images.train.chat import Row, choose_template, marked_markdown, template_hash
from images.train.reporter import Reporter
from images.train.template_findings import findings, last_answer
from images.train.trained_modules import check_token_ids
from images.train.unpaired import Rated
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.rated import balance, ratio

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plan_kto(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the rows of `frames` (prompt, completion, label, tools), keep them in `folder`, and say what they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = choose_template(tokenizer, date)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    reporter.log.info("chat template: %s", template.origin)
    columns = ("row_id", "prompt", "completion", "tools")
    rated_rows = (row for frame in frames.values() for row in frame.select(columns).iter_rows())
    known = findings(tokenizer, template, (last_answer(*row) for row in rated_rows))
    kept: dict[str, list[tuple[str, Rated]]] = {}
    dropped: list[str] = []
    for split, frame in frames.items():
        found = unpaired.rated(tokenizer, template, frame, spec.hyperparams.max_seq_len)
        rows = list(zip(frame["row_id"].to_list(), found, strict=True))
        if spec.hyperparams.overlong == "drop":
            if split == "train":
                dropped = [row_id for row_id, one in rows if one.truncated]
            rows = [row for row in rows if not row[1].truncated]
        kept[split] = rows
        if rows:
            ids, ratings = zip(*rows, strict=True)
            unpaired.save(folder / f"{split}.parquet", ids, ratings, spec.hyperparams.seed)
        reporter.log.info("rendered %d rated answers of %s", len(rows), split)
    if not kept["train"]:
        raise ValueError(
            f"all {len(dropped)} rows are longer than max_seq_len {spec.hyperparams.max_seq_len}: raise it"
        )
    check_token_ids(tokenizer, max(max((*one.prompt, *one.completion), default=0) for _, one in kept["train"]), base)
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = _facts(tokenizer, spec, kept["train"], frames["train"])
    facts |= {
        "rows": {split: len(found) for split, found in kept.items() if found},
        "dropped_rows": len(dropped),
        "chat_template_hash": template_hash(template.serving),
        "template_origin": template.origin,
        "findings": [finding.model_dump() for finding in known],
    }
    if dropped:
        facts["failures"]["dropped"] = dropped[:10]
    return facts


def _facts(
    tokenizer: "PreTrainedTokenizerBase", spec: TrainJobSpec, found: list[tuple[str, Rated]], frame: pl.DataFrame
) -> dict[str, Any]:
    ends = Counter(one.stop for _, one in found if one.stop is not None)
    stop = ends.most_common(1)[0][0] if ends else None
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    wrong = {
        "no_trainable_tokens": [i for i, one in found if not one.completion],
        "cut_answers": [i for i, one in found if one.truncated],
        "both_labels": _both_labels(frame),
        "double_bos": [i for i, one in found if one.leading_bos > 1],
        "stop_token_untrained": [i for i, one in found if one.stop is not None and one.stop not in special],
        "prefix_changed": [i for i, one in found if not one.keeps_prefix],
    }
    label = np.array([one.label for _, one in found])
    answers = np.array([len(one.completion) for _, one in found])
    prompts = np.array([len(one.prompt) for _, one in found])
    longest = int(max(one.length for _, one in found))
    tokens = int(prompts.sum() + answers.sum())
    good, bad = int(label.sum()), int((~label).sum())
    weights = balance(good, bad, spec.rlhf.desirable_weight, spec.rlhf.undesirable_weight)
    shown = {one.label: one for _, one in reversed(found)}
    return {
        "tokens": 2 * tokens,
        "trainable_tokens": int(answers.sum()),
        "longest_row": longest,
        "packing_efficiency": tokens / (len(found) * longest),
        "rows_without_trainable_tokens": len(wrong["no_trainable_tokens"]),
        "truncated_rows": len(wrong["cut_answers"]),
        "cut_answers": len(wrong["cut_answers"]),
        "double_bos_rows": len(wrong["double_bos"]),
        "stop_token": tokenizer.convert_ids_to_tokens(stop) if stop is not None else None,
        "stop_token_trained": stop is not None and not wrong["stop_token_untrained"],
        "prefix_preserving": not wrong["prefix_changed"],
        "vocabulary": len(tokenizer),
        "example": "\n\n".join(_example(tokenizer, shown[own]) for own in (True, False) if own in shown),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
        "figures": {
            "pairs": len(found),
            "desirable": good,
            "undesirable": bad,
            "desirable_weight": weights[0],
            "undesirable_weight": weights[1],
            "weight_ratio": ratio(good, bad, weights),
            "same_pairs": len(wrong["no_trainable_tokens"]),
            "both_labels": len(wrong["both_labels"]),
            "prompt_tokens_mean": float(prompts.mean()),
            "chosen_tokens_mean": float(answers[label].mean()) if good else 0.0,
            "rejected_tokens_mean": float(answers[~label].mean()) if bad else 0.0,
            "chosen_longer": _longer(answers[label], answers[~label]),
            "prompts_without_room": int((prompts >= spec.hyperparams.max_seq_len).sum()),
        },
    }


def _both_labels(frame: pl.DataFrame) -> list[str]:
    """Rows whose very answer to the very prompt is found good in one row and bad in another."""
    texts = [
        pl.col(name).list.eval(pl.element().struct.field("content")).list.join("\x1e")
        for name in ("prompt", "completion")
    ]
    whole = frame.select("row_id", "label", pl.concat_str(texts, separator="\x1f").alias("whole"))
    twice = whole.group_by("whole").agg(pl.col("label").n_unique().alias("labels")).filter(pl.col("labels") > 1)
    return whole.join(twice, on="whole", how="semi", maintain_order="left")["row_id"].to_list()


def _longer(good: np.ndarray, bad: np.ndarray) -> float:
    """How often a good answer is the longer one of a good and a bad one; half where nothing tells."""
    if not len(good) or not len(bad):
        return 0.5
    below = np.searchsorted(np.sort(bad), good, side="left") + np.searchsorted(np.sort(bad), good, side="right")
    return float(below.mean() / (2 * len(bad)))


def _example(tokenizer: "PreTrainedTokenizerBase", one: Rated) -> str:
    mask = [0] * len(one.prompt) + [1] * len(one.completion)
    row = Row(one.prompt + one.completion, mask, one.truncated, one.truncated, one.leading_bos, None)
    return f"**{'desirable' if one.label else 'undesirable'}**: {marked_markdown(tokenizer, row, 300)}"
