"""Plans a training on conversations: rendered as they will be trained, and what in them would be learned wrongly."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from images.train import rows
from images.train.chat import Row, Template, choose_template, keeps_prefixes, marked_markdown, template_hash
from images.train.content_findings import stop_ids
from images.train.marked_texts import Conversation
from images.train.reporter import Reporter
from images.train.template_findings import findings
from images.train.trained_modules import check_token_ids
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PREFIX_SAMPLE = 64
"""Conversations on which the template is compared, turn by turn, with what a server renders."""


def plan_chat(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the conversations of `frames` (row_id, messages, tools), keep them in `folder`, and tell what they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = choose_template(tokenizer, date)
    reporter.log.info("chat template: %s", template.origin)
    if spec.reasoning == "drop":
        frames = {split: without_reasoning(frame) for split, frame in frames.items()}
    conversations = (row for frame in frames.values() for row in conversations_of(frame))
    known = findings(tokenizer, template, conversations, stop_ids(base, tokenizer))
    rendered: dict[str, tuple[list[str], list[Row]]] = {}
    dropped: dict[str, list[str]] = {"train": []}
    for split, frame in frames.items():
        pairs = list(rows.chat_rows(tokenizer, template, frame, spec.hyperparams.max_seq_len))
        if spec.hyperparams.overlong == "drop":
            dropped[split] = [row_id for row_id, row in pairs if row.truncated]
            pairs = [(row_id, row) for row_id, row in pairs if not row.truncated]
            reporter.log.info("left out %d rows of %s that are too long", len(dropped[split]), split)
        rendered[split] = ([row_id for row_id, _ in pairs], [row for _, row in pairs])
        if pairs:
            rows.save(folder / f"{split}.parquet", *rendered[split])
        reporter.log.info("rendered %d rows of %s", len(pairs), split)
    ids, found = rendered["train"]
    if not found:
        raise ValueError(
            f"all {len(dropped['train'])} rows are longer than max_seq_len {spec.hyperparams.max_seq_len}: raise it"
        )
    check_token_ids(tokenizer, max(max(row.ids, default=0) for row in found), base)
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = _facts(tokenizer, template, frames["train"].filter(pl.col("row_id").is_in(ids)), ids, found)
    facts["rows"] = {split: len(pair[0]) for split, pair in rendered.items() if pair[0]}
    facts["dropped_rows"] = len(dropped["train"])
    facts["figures"] = _answers(ids, frames["train"])
    facts["findings"] = [finding.model_dump() for finding in known]
    if dropped["train"]:
        facts["failures"]["dropped"] = dropped["train"][:10]
    return facts


def _answers(ids: list[str], frame: pl.DataFrame) -> dict[str, float]:
    """How many different last answers the planned rows have, and the share of the most frequent."""
    kept = frame.filter(pl.col("row_id").is_in(ids))
    last = kept["messages"].list.last()
    counts = last.struct.field("content").value_counts()["count"]
    if "tool_calls" in {field.name for field in frame.schema["messages"].inner.fields}:
        counts = last.struct.unnest().select("content", "tool_calls").group_by(pl.all()).len()["len"]
    return {"distinct_answers": float(len(counts)), "commonest_answer": float(counts.max() or 0) / max(1, kept.height)}


def conversations_of(frame: pl.DataFrame) -> Iterator[Conversation]:
    """The rows of a frame (row_id, messages, perhaps tools)."""
    tools = frame["tools"] if "tools" in frame.columns else pl.repeat(None, frame.height, dtype=pl.String, eager=True)
    columns = (frame["row_id"].to_list(), frame["messages"].to_list(), tools.to_list())
    return (Conversation(*row) for row in zip(*columns, strict=True))


def without_reasoning(frame: pl.DataFrame) -> pl.DataFrame:
    """The same conversations less the reasoning of their answers."""
    fields = {field.name for field in frame.schema["messages"].inner.fields}
    if "reasoning_content" not in fields:
        return frame
    emptied = pl.element().struct.with_fields(reasoning_content=pl.lit(None, dtype=pl.String))
    return frame.with_columns(pl.col("messages").list.eval(emptied))


def _facts(
    tokenizer: "PreTrainedTokenizerBase", template: Template, frame: pl.DataFrame, ids: list[str], found: list[Row]
) -> dict[str, Any]:
    """What is known of the rendered rows; `failures` lists up to ten row ids for each thing that is wrong."""
    stops = Counter(row.stop for row in found if row.stop is not None)
    stop = stops.most_common(1)[0][0] if stops else None
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    unstopped = [i for i, row in zip(ids, found, strict=True) if row.stop is not None and row.stop not in special]
    some = frame.head(PREFIX_SAMPLE)
    tools = some["tools"].to_list() if "tools" in some.columns else [None] * some.height
    sample = zip(ids, some["messages"].to_list(), tools, strict=False)
    broken = [i for i, m, t in sample if not keeps_prefixes(tokenizer, template, m, t)]
    wrong = {
        "no_trainable_tokens": [i for i, row in zip(ids, found, strict=True) if not any(row.trained)],
        "cut_answers": [i for i, row in zip(ids, found, strict=True) if row.cut_answer],
        "double_bos": [i for i, row in zip(ids, found, strict=True) if row.leading_bos > 1],
        "stop_token_untrained": unstopped,
        "prefix_changed": broken,
    }
    longest = max(len(row.ids) for row in found)
    tokens = sum(len(row.ids) for row in found)
    shown = next((row for row in found if any(row.trained)), found[0])
    return {
        "tokens": tokens,
        "trainable_tokens": sum(sum(row.trained) for row in found),
        "longest_row": longest,
        "packing_efficiency": tokens / (len(found) * longest),
        "rows_without_trainable_tokens": len(wrong["no_trainable_tokens"]),
        "truncated_rows": sum(row.truncated for row in found),
        "cut_answers": len(wrong["cut_answers"]),
        "double_bos_rows": len(wrong["double_bos"]),
        "stop_token": tokenizer.convert_ids_to_tokens(stop) if stop is not None else None,
        "stop_token_trained": stop is not None and not unstopped,
        "prefix_preserving": not broken,
        "chat_template_hash": template_hash(template.serving),
        "template_origin": template.origin,
        "vocabulary": len(tokenizer),
        "example": marked_markdown(tokenizer, shown),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
    }
