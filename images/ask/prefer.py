"""The worker's task "prefer": what a model, or a reward model, thinks of two answers to each of some prompts."""

import time
from typing import Any

from images.ask.generate import context_length, load_model, read_jsonl, write_jsonl
from images.train.reporter import Reporter
from llmops_assets.records.jobs import PreferJob
from resources.row_upgrade import MESSAGE


def run(job: PreferJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Score both answers of every row in `pairs_file` and write {id, chosen, rejected, …} to `output_file`.

    `pairs_file`: JSONL of {id, prompt, chosen, rejected} (messages of canonical rows), and optionally their `tools`,
    and `ended`: whether each of the two ended of itself. `job`: model_dir, kind, precision. With kind `reward` the
    model is a reward model, and the scores are its rewards. With kind `likelihood` they are log-likelihoods in nats,
    summed over the answer, beside `chosen_tokens` and `rejected_tokens`.
    """
    import transformers

    rows = read_jsonl(job.pairs_file)
    began = time.monotonic()
    score = {"reward": _rewards, "likelihood": _likelihoods}[job.kind]
    output = score(job, rows)
    write_jsonl(job.output_file, output)
    return {
        "items": len(output),
        "seconds": time.monotonic() - began,
        "tokens_per_second": 0.0,
        "settings": {
            "engine": f"transformers {transformers.__version__}",
            "precision": job.precision,
            "kind": job.kind,
        },
    }


def _rewards(job: PreferJob, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from images.train.chat import choose_template
    from images.train.reward import score
    from images.train.rlhf import rendered
    from images.train.weights import DTYPES

    tokenizer = AutoTokenizer.from_pretrained(job.model_dir, local_files_only=True, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(
        job.model_dir, dtype=DTYPES[job.precision], trust_remote_code=False, use_safetensors=True
    ).eval()
    if torch.cuda.is_available():
        model = model.to("cuda")
    template = choose_template(tokenizer)
    longest = context_length(model)
    scores = {}
    for at, name in enumerate(("chosen", "rejected")):
        ended = [row.get("ended", [True, True])[at] for row in rows]
        prompts, tools = [r["prompt"] for r in rows], [r.get("tools") for r in rows]
        ids = rendered(tokenizer, template, prompts, [r[name] for r in rows], ended, tools)
        scores[name] = score(model, tokenizer.pad_token_id or 0, [row[:longest] for row in ids])
    pairs = zip(rows, scores["chosen"], scores["rejected"], strict=True)
    return [{"id": row["id"], "chosen": float(one), "rejected": float(other)} for row, one, other in pairs]


def _likelihoods(job: PreferJob, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    import polars as pl

    from images.train.chat import choose_template
    from images.train.likelihood import answer_likelihoods
    from images.train.pairs import pairs

    model, tokenizer, device = load_model(job.model_dir, job.precision)
    template = choose_template(tokenizer)
    columns = {name: pl.List(MESSAGE) for name in ("prompt", "chosen", "rejected")} | {"tools": pl.String}
    frame = pl.DataFrame({name: [row.get(name) for row in rows] for name in columns}, schema=columns)
    found = pairs(tokenizer, template, frame, context_length(model) or 1 << 30)
    pad = tokenizer.pad_token_id or 0
    likelihoods = {
        name: answer_likelihoods(model, device, [(p.prompt, getattr(p, name)) for p in found], pad)
        for name in ("chosen", "rejected")
    }
    return [
        {
            "id": row["id"],
            "chosen": float(likelihoods["chosen"][at]),
            "rejected": float(likelihoods["rejected"][at]),
            "chosen_tokens": len(pair.chosen),
            "rejected_tokens": len(pair.rejected),
        }
        for at, (row, pair) in enumerate(zip(rows, found, strict=True))
    ]
