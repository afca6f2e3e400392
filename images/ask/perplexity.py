"""The worker's task "perplexity": the negative log-likelihood of whole documents under a model folder.

Every token of a document is scored exactly once, after a prefix token (BOS, or the end token where the tokenizer has no
BOS), as lm-evaluation-harness does in `loglikelihood_rolling`; documents longer than the context are scored in windows
that overlap by half, so that a token never lacks its context merely because a window begins there.
"""

import time
from collections.abc import Iterator
from typing import Any

from images.ask.generate import context_length, load_model, read_jsonl, write_jsonl
from images.chat_rendering import encode_texts
from images.train.reporter import Reporter
from llmops_assets.records.jobs import PerplexityJob

_TOKENS_PER_BATCH = 4096


def run(job: PerplexityJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Score every document of `texts_file` (JSONL of {id, text}) and write {id, nll, tokens, bytes} to `output_file`.

    `job`: model_dir, texts_file, output_file; optionally precision (fp32) and max_length (tokens of a window, default
    the model's context, at most 2048). `nll` is in nats, summed over the document; `bytes` is its length in UTF-8.
    Returns totals, seconds, the size of the vocabulary (the perplexity of guessing at random) and the settings.
    """
    import torch
    import transformers

    model, tokenizer, device = load_model(job.model_dir, job.precision)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if prefix is None:
        raise ValueError(f"{job.model_dir}: its tokenizer has no BOS and no end token to begin a document with")
    window = min(job.max_length or 2048, context_length(model) or 2048)
    documents = read_jsonl(job.texts_file)
    pieces: list[tuple[int, list[int], int]] = []
    rows = []
    for index, document in enumerate(documents):
        (ids,) = encode_texts(tokenizer, [document["text"]])
        rows.append({"id": document["id"], "nll": 0.0, "tokens": len(ids), "bytes": len(document["text"].encode())})
        pieces.extend((index, ids_in, scored) for ids_in, scored in windows([prefix, *ids], window))
    pieces.sort(key=lambda piece: len(piece[1]))

    started = time.monotonic()
    for index, nll in score_pieces(model, device, pieces, prefix, _TOKENS_PER_BATCH, reporter):
        rows[index]["nll"] += nll
    seconds = time.monotonic() - started
    write_jsonl(job.output_file, rows)
    tokens = sum(row["tokens"] for row in rows)
    return {
        "items": len(rows),
        "nll": sum(row["nll"] for row in rows),
        "tokens": tokens,
        "bytes": sum(row["bytes"] for row in rows),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
        "settings": {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "precision": job.precision,
            "device": str(device),
            "window": window,
            "prefix_id": prefix,
            "vocabulary": len(tokenizer),
        },
    }


def windows(ids: list[int], size: int) -> list[tuple[list[int], int]]:
    """Cut `ids` (a prefix token and the document) into windows of at most `size` tokens.

    Gives (tokens of the window, how many of its last tokens are scored). All but the prefix are scored exactly once.
    """
    if size < 2:
        raise ValueError(f"a window of {size} tokens has no room for a token and its context: take at least 2")
    if len(ids) < 2:
        return []
    pieces = [(ids[:size], len(ids[:size]) - 1)]
    step = max(1, size // 2)
    scored = size
    while scored < len(ids):
        end = min(scored + step, len(ids))
        pieces.append((ids[max(0, end - size) : end], end - scored))
        scored = end
    return pieces


def score_pieces(
    model: Any,
    device: Any,
    pieces: list[tuple[Any, list[int], int]],
    pad: int,
    budget: int,
    reporter: Reporter | None = None,
) -> Iterator[tuple[Any, float]]:
    """(key, nats of the last tokens) for every piece (key, tokens, how many of the last are scored).

    Pieces come sorted by length; a batch has at most `budget` tokens with its padding.
    """
    reported = time.monotonic()
    position = 0
    while position < len(pieces):
        # Sorted by length, so the last piece that fits decides the width of the batch.
        end = position + 1
        while end < len(pieces) and (end + 1 - position) * len(pieces[end][1]) <= budget:
            end += 1
        batch = pieces[position:end]
        yield from zip((key for key, _, _ in batch), _score(model, device, batch, pad), strict=True)
        position = end
        if time.monotonic() - reported > 5 and reporter is not None:
            reported = time.monotonic()
            reporter.log.info(f"scored {position} of {len(pieces)} pieces")


def _score(model: Any, device: Any, batch: list[tuple[Any, list[int], int]], pad: int) -> list[float]:
    """Nats of the scored tokens of each piece; padding is on the right, where a causal model cannot see it."""
    import torch

    width = max(len(ids) for _, ids, _ in batch)
    input_ids = torch.full((len(batch), width), pad, dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for row, (_, ids, _) in enumerate(batch):
        input_ids[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
        mask[row, : len(ids)] = 1
    with torch.inference_mode():
        logits = model(input_ids=input_ids.to(device), attention_mask=mask.to(device)).logits
        nats = []
        for row, (_, ids, scored) in enumerate(batch):
            predicted = logits[row, len(ids) - 1 - scored : len(ids) - 1].float()
            target = torch.tensor(ids[len(ids) - scored :], device=device)
            nats.append(torch.nn.functional.cross_entropy(predicted, target, reduction="sum").item())
    return nats
