"""The worker's task "retrieve": for every query the passages that an encoder puts nearest, and where its own stand.

A passage that is as near as another counts as behind it, so that an encoder which gives every text the same vector
finds nothing instead of everything.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from images.ask.generate import read_jsonl, write_jsonl
from images.train.reporter import Reporter
from llmops_assets.records.jobs import RetrieveJob

_TIE = 1e-7


def run(job: RetrieveJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Rank all passages of `texts_file` for each query in it, and write {id, ranks, found, scores} to `output_file`.

    `texts_file`: JSONL of {id, kind: query | passage, text, relevant: ids of passages}. `job`: model_dir; and for a
    folder that sentence-transformers did not save: pooling and max_length; query_prompt, passage_prompt, top_k (10).
    `ranks` are those of the relevant passages, from 1; `found` the ids of the nearest `top_k`, with their cosines.
    """
    import transformers

    rows = read_jsonl(job.texts_file)
    queries = [row for row in rows if row["kind"] == "query"]
    passages = [row for row in rows if row["kind"] == "passage"]
    number = {row["id"]: at for at, row in enumerate(passages)}
    began = time.monotonic()
    encode, loading = _encoder(job)
    asked = encode([row["text"] for row in queries], job.query_prompt)
    corpus = encode([row["text"] for row in passages], job.passage_prompt)
    top = min(job.top_k, len(passages))
    output = []
    for start in range(0, len(queries), 1024):
        cosines = asked[start : start + 1024] @ corpus.T
        for row, scores in zip(queries[start : start + 1024], cosines, strict=True):
            relevant = [number[key] for key in row["relevant"]]
            nearest = np.argsort(-scores, kind="stable")[:top]
            output.append(
                {
                    "id": row["id"],
                    "ranks": ranks(scores, relevant),
                    "found": [passages[i]["id"] for i in nearest],
                    "scores": [round(float(scores[i]), 6) for i in nearest],
                }
            )
    seconds = time.monotonic() - began
    write_jsonl(job.output_file, output)
    return {
        "items": len(output),
        "passages": len(passages),
        "seconds": seconds,
        "tokens_per_second": 0.0,
        "settings": {
            "engine": f"transformers {transformers.__version__}",
            "precision": job.precision,
            "passages": len(passages),
            "dimensions": int(corpus.shape[1]),
            **loading,
        },
    }


def ranks(scores: np.ndarray, relevant: list[int]) -> list[int]:
    """The rank of each relevant passage among all others, from 1, the nearest first; of equals it is the last."""
    own = np.zeros(len(scores), dtype=bool)
    own[relevant] = True
    before = [int((scores[~own] >= scores[at] - _TIE).sum()) for at in sorted(relevant, key=lambda at: -scores[at])]
    return [others + place for place, others in enumerate(before, 1)]


def _encoder(job: RetrieveJob) -> tuple[Any, dict[str, Any]]:
    folder = Path(job.model_dir)
    if (folder / "modules.json").exists():
        from images.train.merge_encoder import encode, load

        model = load(folder)
        return lambda texts, prompt: encode(model, texts, prompt), {"loaded_by": "sentence-transformers"}
    import torch
    from transformers import AutoModel, AutoTokenizer

    from images.train.encoder import embed

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True).eval()
    if torch.cuda.is_available():
        model = model.to("cuda")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

    def plain(texts: list[str], prompt: str) -> np.ndarray:
        ids = [tokenizer(prompt + text)["input_ids"][: job.max_length] for text in texts]
        return embed(model, ids, pad, job.pooling)

    return plain, {"loaded_by": "transformers", "pooling": job.pooling}
