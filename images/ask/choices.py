"""The worker's task "choices": the log-likelihood of each choice of a multiple-choice question, as an answer to it.

Where the tokenizer has a chat template a choice is scored as the assistant's answer, behind exactly what a server puts
before it; where not, as the continuation of the question's plain text, as lm-evaluation-harness does. A choice is
scored by all its tokens and no end token.
"""

import hashlib
import time
from typing import Any

from images.ask.generate import context_length, encode, load_model, read_jsonl, write_jsonl
from images.ask.perplexity import score_pieces
from images.chat_rendering import encode_text, encode_texts
from images.train.reporter import Reporter
from llmops_assets.records.jobs import ChoicesJob

_TOKENS_PER_ITEM = 256
DIGITS = 4
"""Log-likelihoods are rounded to 0.1 millinats: below, the order of floating-point sums differs with the batch."""


def run(job: ChoicesJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Score every choice of `prompts_file` (JSONL of {id, messages, choices}) and write to `output_file`, in order.

    `job`: model_dir, prompts_file, output_file; optionally precision (fp32) and batch_size (16 sequences of up to 256
    tokens). A line of the output is {id, nll, choice_tokens, truncated}: nats and tokens of each choice, in the order
    of the choices, and whether the beginning of a question was cut because it does not fit the model's context.
    """
    import torch
    import transformers

    model, tokenizer, device = load_model(job.model_dir, job.precision)
    prompts = read_jsonl(job.prompts_file)
    context = context_length(model) or 2048
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    pieces: list[tuple[tuple[int, int], list[int], int]] = []
    rows = []
    for index, prompt in enumerate(prompts):
        encoded = [_pair(tokenizer, prompt, choice) for choice in prompt["choices"]]
        # Cut from the left, the same for every choice: the question's end and the choice stay whole.
        room = context - max(len(choice) for _, choice in encoded)
        if room < 1:
            raise ValueError(f"prompt {prompt['id']}: a choice is longer than the model's context of {context} tokens")
        for number, (before, choice) in enumerate(encoded):
            pieces.append(((index, number), before[-room:] + choice, len(choice)))
        rows.append(
            {
                "id": prompt["id"],
                "nll": [0.0] * len(encoded),
                "choice_tokens": [len(choice) for _, choice in encoded],
                "truncated": any(len(before) > room for before, _ in encoded),
            }
        )
    pieces.sort(key=lambda piece: (len(piece[1]), piece[0]))
    started = time.monotonic()
    budget = _TOKENS_PER_ITEM * job.batch_size
    for (index, number), nll in score_pieces(model, device, pieces, pad, budget, reporter):
        rows[index]["nll"][number] = round(nll, DIGITS)
    seconds = time.monotonic() - started
    write_jsonl(job.output_file, rows)
    tokens = sum(len(ids) for _, ids, _ in pieces)
    template = str(tokenizer.chat_template) if tokenizer.chat_template else None
    return {
        "items": len(rows),
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
        "truncated": sum(row["truncated"] for row in rows),
        "settings": {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "precision": job.precision,
            "device": str(device),
            "context": context,
            "choices": "log-likelihood as an answer" if template else "log-likelihood as a continuation",
            "chat_template_hash": hashlib.sha256(template.encode()).hexdigest()[:16] if template else None,
        },
    }


def _pair(tokenizer: Any, prompt: dict[str, Any], choice: str) -> tuple[list[int], list[int]]:
    """Tokens of what stands before a choice, and of the choice."""
    if tokenizer.chat_template:
        return encode(tokenizer, prompt), encode_text(tokenizer, choice, role="assistant")
    text = "\n".join(message["content"] for message in prompt["messages"]).rstrip()
    before, whole = encode_texts(tokenizer, [text, f"{text} {choice}"])
    # A tokenizer may join the question's last letters with the choice's first: then the shared beginning counts.
    shared = next(
        (n for n, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole))
    )
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return ([prefix] if prefix is not None else []) + whole[:shared], whole[shared:]
