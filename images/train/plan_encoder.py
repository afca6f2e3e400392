"""Plans the training of an encoder: anchors and passages in tokens, and what would teach it something false."""

import hashlib
import json
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from images.train import sealed
from images.train.reporter import Reporter
from llmops_assets.specs.jobs import EmbeddingBlock
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_NEGATIVES = 4
"""Given negatives of a row that are used; each costs as much memory as a passage."""

PROBES = "probes.json"
"""Texts on which the saved encoder is compared with the trained one."""

SCHEMA = {
    "row_id": pl.String,
    "anchor": pl.List(pl.Int32),
    "passage": pl.List(pl.Int32),
    "negatives": pl.List(pl.List(pl.Int32)),
    "passage_key": pl.Int64,
    "negative_keys": pl.List(pl.Int64),
    "known": pl.List(pl.Int64),
    "score": pl.Float64,
}


def plan_encoder(
    spec: TrainJobSpec, frames: dict[str, pl.DataFrame], base: Path, folder: Path, reporter: Reporter
) -> dict[str, Any]:
    """Turn `frames` (row_id, anchor, positives, negatives, perhaps score) into token rows in `folder`, and tell what
    they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    length = longest_text(base, spec.hyperparams.max_seq_len)
    block = spec.embedding
    counts, cut, overlong = {}, [], []
    for split, frame in frames.items():
        frame = frame.filter(pl.col("positives").list.len() > 0)
        if not frame.height:
            continue
        rows, long = _rows(tokenizer, block, frame, length)
        if spec.hyperparams.overlong == "drop":
            rows = rows.filter(~pl.col("row_id").is_in(long))
            overlong = long if split == "train" else overlong
        elif split == "train":
            cut = long
        counts[split] = rows.height
        if rows.height:
            sealed.write_parquet(rows, folder / f"{split}.parquet")
        reporter.log.info("%d anchors with a passage in %s", rows.height, split)
    if not counts.get("train"):
        raise ValueError("no row of the train split has an anchor with a passage that fits max_seq_len")
    kept = frames["train"].filter(pl.col("positives").list.len() > 0).head(16)
    probes = [*kept["anchor"].to_list(), *kept["positives"].list.first().to_list()]
    sealed.write_bytes(folder / PROBES, json.dumps(probes, ensure_ascii=False).encode())
    tokenizer.model_max_length = length
    # With one, sentence-transformers renders every text as a chat, in other tokens than were trained.
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder / "tokenizer")
    return _facts(
        tokenizer, spec, sealed.read_parquet(folder / "train.parquet"), frames["train"], counts, cut, overlong
    )


def longest_text(base: Path, asked: int) -> int:
    """Tokens of a text: what was asked for, or what the encoder has positions for if that is less."""
    positions = json.loads((base / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    return min(asked, positions) if isinstance(positions, int) else asked


def cut_as_served(tokenizer: "PreTrainedTokenizerBase", text: str, length: int) -> tuple[list[int], bool]:
    """The tokens of a text, of a long one the `length` that sentence-transformers will leave of it, and whether it is
    one: the tokenizer keeps the tokens around a text, and may cut its beginning (`truncation_side`)."""
    ids = tokenizer(text)["input_ids"]
    if len(ids) <= length:
        return ids, False
    return tokenizer(text, truncation=True, max_length=length)["input_ids"], True


def text_key(text: str) -> int:
    """63 bits that name a text, whatever white space stands around its words and however its letters are composed."""
    words = " ".join(unicodedata.normalize("NFC", text).split())
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def _rows(
    tokenizer: "PreTrainedTokenizerBase", block: EmbeddingBlock, frame: pl.DataFrame, length: int
) -> tuple[pl.DataFrame, list[str]]:
    """A row for each anchor and passage that belong together, and the ids of those with a text that is too long."""
    known = _known(frame)
    frame = frame if "score" in frame.columns else frame.with_columns(score=pl.lit(None, pl.Float64))
    texts: dict[str, tuple[list[int], bool]] = {}

    def tokens(text: str) -> tuple[list[int], bool]:
        if text not in texts:
            texts[text] = cut_as_served(tokenizer, text, length)
        return texts[text]

    rows, long = [], []
    columns = ("row_id", "anchor", "positives", "negatives", "score")
    for row_id, anchor, positives, negatives, score in frame.select(columns).iter_rows():
        asked = tokens(block.query_prompt + anchor)
        own = known.get(anchor.strip(), set())
        # A text that belongs to the anchor teaches the opposite as a negative; the check on the plan tells of it.
        others = [text for text in negatives if text_key(text) not in own][:MOST_NEGATIVES]
        against = [tokens(block.passage_prompt + text) for text in others]
        for positive in positives:
            passage = tokens(block.passage_prompt + positive)
            if any(is_long for _, is_long in (asked, passage, *against)):
                long.append(row_id)
            rows.append(
                {
                    "row_id": row_id,
                    "anchor": asked[0],
                    "passage": passage[0],
                    "negatives": [ids for ids, _ in against],
                    "passage_key": text_key(positive),
                    "negative_keys": [text_key(text) for text in others],
                    "known": sorted(own),
                    "score": score,
                }
            )
    return pl.DataFrame(rows, schema=SCHEMA), list(dict.fromkeys(long))


def _known(frame: pl.DataFrame) -> dict[str, set[int]]:
    """The keys of all passages that belong to an anchor, whichever row says so; a text with a score need not."""
    known: dict[str, set[int]] = {}
    if "score" in frame.columns:
        frame = frame.filter(pl.col("score").is_null())
    for anchor, positives in frame.select("anchor", "positives").iter_rows():
        known.setdefault(anchor.strip(), set()).update(text_key(text) for text in positives)
    return known


def _facts(
    tokenizer: "PreTrainedTokenizerBase",
    spec: TrainJobSpec,
    rows: pl.DataFrame,
    frame: pl.DataFrame,
    counts: dict[str, int],
    cut: list[str],
    dropped: list[str],
) -> dict[str, Any]:
    lengths = rows.select(
        pl.col("anchor").list.len().alias("anchor"),
        pl.col("passage").list.len().alias("passage"),
        pl.col("negatives").list.eval(pl.element().list.len()).list.sum().alias("negatives"),
    )
    tokens = int(lengths.sum_horizontal().sum())
    longest = int(max(rows["anchor"].list.len().max(), rows["passage"].list.len().max()))
    longest = max(longest, int(rows["negatives"].list.explode(empty_as_null=False).list.len().max() or 0))
    count = rows.height + rows["passage_key"].len() + int(rows["negatives"].list.len().sum())
    contradicted = _contradictions(frame)
    repeated = 1 - rows["passage_key"].n_unique() / rows.height
    batch = spec.hyperparams.batch_size
    shown = rows.row(0, named=True)
    example = [f"**anchor**: {tokenizer.decode(shown['anchor'])}", f"**passage**: {tokenizer.decode(shown['passage'])}"]
    example += [f"**negative**: {tokenizer.decode(ids)}" for ids in shown["negatives"]]
    wrong = {"cut_answers": cut, "contradicted": contradicted, "dropped": dropped}
    return {
        "rows": counts,
        "tokens": tokens,
        "trainable_tokens": tokens,
        "longest_row": longest,
        "packing_efficiency": tokens / (count * longest),
        "rows_without_trainable_tokens": 0,
        "truncated_rows": len(cut),
        "cut_answers": len(cut),
        "dropped_rows": len(dropped),
        "double_bos_rows": 0,
        "stop_token": None,
        "stop_token_trained": True,
        "prefix_preserving": True,
        "chat_template_hash": None,
        "template_origin": "own",
        "vocabulary": len(tokenizer),
        "example": "\n\n".join(example),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
        "figures": {
            "pairs": rows.height,
            "scored": int(rows["score"].is_not_null().sum()),
            "given_negatives_mean": float(rows["negatives"].list.len().mean()),
            "contradictions": len(contradicted),
            "repeated_passages": repeated,
            "false_negatives_a_batch": _false_negatives(rows, batch),
        },
    }


def _contradictions(frame: pl.DataFrame) -> list[str]:
    """Rows that name a text as a negative which is a positive of the same anchor, in this row or another."""
    known = _known(frame)
    return [
        row_id
        for row_id, anchor, negatives in frame.select("row_id", "anchor", "negatives").iter_rows()
        if any(text_key(text) in known.get(anchor.strip(), ()) for text in negatives)
    ]


def _false_negatives(rows: pl.DataFrame, batch: int) -> float:
    """Passages a batch, on average, that would be taken for negatives of an anchor that they belong to.

    Expected over random batches of `batch` rows: each anchor meets batch - 1 other rows, and each of those holds one
    of its own passages with the share that these have of all rows. The loss masks them; the figure says how many.
    """
    share = rows.group_by("passage_key").len()
    frequency = dict(share.iter_rows())
    own = sum(sum(frequency.get(key, 0) for key in known) - 1 for known in rows["known"].to_list() if known)
    others = max(1, rows.height - 1)
    return own / rows.height * (min(batch, rows.height) - 1) / others * min(batch, rows.height)
