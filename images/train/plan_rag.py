"""Plans a RAG training: the retriever's anchors and passages, and the reader's questions with passages before them."""

import random
from pathlib import Path
from typing import Any

import polars as pl

from images.train import sealed
from images.train.plan_chat import plan_chat
from images.train.plan_encoder import plan_encoder, text_key
from images.train.reporter import Reporter
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.reader import asked
from resources.row_upgrade import MESSAGE


def plan_rag(
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    retriever: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Plan both trainings from `frames` (row_id, question, answer, positives, negatives); the facts are the reader's.

    Those of the retriever are beside them among the figures, by names that begin with `retriever_`.
    """
    without = frames["train"].filter(pl.col("positives").list.len() == 0)["row_id"].to_list()
    if len(without) == frames["train"].height:
        raise ValueError("no row of the train split has a passage that answers it: give `positives`")
    searched = folder / "retriever"
    searched.mkdir()
    anchors = {split: frame.rename({"question": "anchor"}) for split, frame in frames.items()}
    found = plan_encoder(spec, anchors, retriever, searched, reporter)
    pool = sorted({text for texts in frames["train"]["positives"].to_list() for text in texts})
    read = {split: conversations(spec, frame, pool) for split, frame in frames.items()}
    facts = plan_chat(spec, read, base, folder, reporter, date)
    figures = {f"retriever_{name}": value for name, value in found["figures"].items()}
    figures |= {
        **facts["figures"],
        "retriever_tokens": found["tokens"],
        "retriever_rows": found["rows"]["train"],
        "retriever_longest_row": found["longest_row"],
        "retriever_cut_texts": found["cut_answers"],
        "questions_without_passage": len(without),
        "pairs": found["figures"]["pairs"],
        "contradictions": found["figures"]["contradictions"],
        "false_negatives_a_batch": found["figures"]["false_negatives_a_batch"],
        "repeated_passages": found["figures"]["repeated_passages"],
    }
    failures = {**facts["failures"], **{k: v for k, v in found["failures"].items() if k == "contradicted"}}
    if without:
        failures["without_passage"] = without[:10]
    example = f"{facts['example']}\n\nRetriever:\n\n{found['example']}"
    return {**facts, "figures": figures, "failures": failures, "example": example}


def save_passages(path: Path, frames: list[pl.DataFrame]) -> None:
    """Write every passage that `frames` name, once, as Parquet of key and text: what the index will hold."""
    parts = [frame[name].explode(empty_as_null=False) for frame in frames for name in frame.columns]
    texts = sorted({text.strip() for text in pl.concat([part.rename("text") for part in parts])})
    schema = {"key": pl.Int64, "text": pl.String}
    frame = pl.DataFrame({"key": [text_key(text) for text in texts], "text": texts}, schema=schema)
    sealed.write_parquet(frame, path)


def conversations(spec: TrainJobSpec, frame: pl.DataFrame, pool: list[str]) -> pl.DataFrame:
    """The reader's training rows (row_id, messages): each question behind its passages, in an order drawn from its id.

    A row has the passages that answer it, then its negatives, then others of the corpus (`pool`), up to the number
    that the reader gets when it is served, so that it learns to find the answer among what does not hold it.
    """
    rows = []
    for row_id, question, answer, positives, negatives in frame.select(
        "row_id", "question", "answer", "positives", "negatives"
    ).iter_rows():
        drawn = random.Random(f"{spec.hyperparams.seed}:{row_id}")
        passages = list(dict.fromkeys([*positives, *negatives]))[: spec.rag.passages]
        while pool and len(passages) < min(spec.rag.passages, len(pool)):
            other = drawn.choice(pool)
            if other not in passages:
                passages.append(other)
        drawn.shuffle(passages)
        messages = [*asked(spec.rag, question, passages), {"role": "assistant", "content": answer}]
        rows.append({"row_id": row_id, "messages": messages})
    return pl.DataFrame(rows, schema={"row_id": pl.String, "messages": pl.List(MESSAGE)})
