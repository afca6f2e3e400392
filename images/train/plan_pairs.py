"""Plans a training on preferences: the pairs as they will be compared, and what in them teaches nothing."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from images.train import pairs
from images.train.chat import Row, choose_template, marked_markdown, template_hash
from images.train.pairs import Pair
from images.train.reporter import Reporter
from images.train.template_findings import Conversation, findings, last_answer
from images.train.trained_modules import check_token_ids
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def plan_pairs(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the pairs of `frames` (prompt, chosen, rejected), keep them in `folder`, and tell what they are."""
    if spec.rlhf.algorithm == "kto":
        from images.train.plan_kto import plan_kto

        return plan_kto(spec, frames, base, folder, reporter, date)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = choose_template(tokenizer, date)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    reporter.log.info("chat template: %s", template.origin)
    known = findings(tokenizer, template, (row for frame in frames.values() for row in _conversations(frame)))
    rendered: dict[str, list[tuple[str, Pair]]] = {}
    dropped: list[str] = []
    for split, frame in frames.items():
        found = pairs.pairs(tokenizer, template, frame, spec.hyperparams.max_seq_len)
        columns = (frame[name].to_list() for name in ("prompt", "tools"))
        rows = list(zip(frame["row_id"].to_list(), found, *columns, strict=True))
        if spec.hyperparams.overlong == "drop":
            if split == "train":
                dropped = [row_id for row_id, pair, *_ in rows if pair.truncated]
            rows = [row for row in rows if not row[1].truncated]
        rendered[split] = [(row_id, pair) for row_id, pair, *_ in rows]
        if rows:
            pairs.save(folder / f"{split}.parquet", *map(list, zip(*rows, strict=True)))
        reporter.log.info("rendered %d pairs of %s", len(rows), split)
    if not rendered["train"]:
        raise ValueError(
            f"all {len(dropped)} pairs are longer than max_seq_len {spec.hyperparams.max_seq_len}: raise it"
        )
    ids = (max((*pair.prompt, *pair.chosen, *pair.rejected), default=0) for _, pair in rendered["train"])
    check_token_ids(tokenizer, max(ids), base)
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = _facts(tokenizer, spec, rendered["train"])
    facts |= {
        "rows": {split: len(found) for split, found in rendered.items() if found},
        "dropped_rows": len(dropped),
        "chat_template_hash": template_hash(template.serving),
        "template_origin": template.origin,
        "findings": [finding.model_dump() for finding in known],
    }
    if dropped:
        facts["failures"]["dropped"] = dropped[:10]
    return facts


def _conversations(frame: pl.DataFrame) -> Iterator[Conversation]:
    """Both conversations of every pair, of which the last answer alone is trained."""
    for row_id, prompt, chosen, rejected, tools in frame.select(
        "row_id", "prompt", "chosen", "rejected", "tools"
    ).iter_rows():
        yield last_answer(row_id, prompt, chosen, tools)
        yield last_answer(row_id, prompt, rejected, tools)


def _facts(tokenizer: "PreTrainedTokenizerBase", spec: TrainJobSpec, found: list[tuple[str, Pair]]) -> dict[str, Any]:
    ends = Counter(stop for _, pair in found for stop in pair.stops if stop is not None)
    stop = ends.most_common(1)[0][0] if ends else None
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    wrong = {
        "no_trainable_tokens": [i for i, p in found if not p.chosen or not p.rejected],
        "cut_answers": [i for i, p in found if p.truncated],
        "same_pairs": [i for i, p in found if p.chosen and p.same],
        "double_bos": [i for i, p in found if p.leading_bos > 1],
        "stop_token_untrained": [i for i, p in found if any(s is not None and s not in special for s in p.stops)],
        "prefix_changed": [i for i, p in found if not p.keeps_prefix],
    }
    chosen = np.array([len(p.chosen) for _, p in found])
    rejected = np.array([len(p.rejected) for _, p in found])
    prompts = np.array([len(p.prompt) for _, p in found])
    longest = int(max(p.length for _, p in found))
    tokens = int(2 * prompts.sum() + chosen.sum() + rejected.sum())
    differing = chosen != rejected
    shown = next((pair for _, pair in found if not pair.same), found[0][1])
    return {
        "tokens": tokens,
        "trainable_tokens": int(chosen.sum() + rejected.sum()),
        "longest_row": longest,
        "packing_efficiency": tokens / (2 * len(found) * longest),
        "rows_without_trainable_tokens": len(wrong["no_trainable_tokens"]),
        "truncated_rows": len(wrong["cut_answers"]),
        "cut_answers": len(wrong["cut_answers"]),
        "double_bos_rows": len(wrong["double_bos"]),
        "stop_token": tokenizer.convert_ids_to_tokens(stop) if stop is not None else None,
        "stop_token_trained": stop is not None and not wrong["stop_token_untrained"],
        "prefix_preserving": not wrong["prefix_changed"],
        "vocabulary": len(tokenizer),
        "example": _example(tokenizer, shown),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
        "figures": {
            "pairs": len(found),
            "same_pairs": len(wrong["same_pairs"]),
            "prompt_tokens_mean": float(prompts.mean()),
            "chosen_tokens_mean": float(chosen.mean()),
            "rejected_tokens_mean": float(rejected.mean()),
            # A reward that is length is the fault that preference data breeds most often.
            "chosen_longer": float((chosen > rejected)[differing].mean()) if differing.any() else 0.5,
            "prompts_without_room": int((prompts > _room(spec)).sum()),
        },
    }


def _room(spec: TrainJobSpec) -> int:
    """The longest prompt that an answer can be sampled behind."""
    return spec.hyperparams.max_seq_len - (spec.rlhf.max_new_tokens or 1)


def _example(tokenizer: "PreTrainedTokenizerBase", pair: Pair) -> str:
    parts = []
    for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        mask = [0] * len(pair.prompt) + [1] * len(answer)
        row = Row(pair.prompt + answer, mask, pair.truncated, pair.truncated, pair.leading_bos, None)
        parts.append(f"**{name}**: {marked_markdown(tokenizer, row, 300)}")
    return "\n\n".join(parts)
