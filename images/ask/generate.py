"""The worker's task "generate": greedy answers of a model folder to a file of chat prompts.

The answers depend on the model, the prompts, `max_new_tokens` and the precision, and on nothing else: prompts are
padded on the left under an attention mask (so every token has the position that it has alone), sampling settings that
the model's folder may carry are set aside, and the order of the prompts is no input.
"""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from images.ask.alone import asked_alone
from images.chat_rendering import render
from images.train import sealed
from images.train.reporter import Reporter
from llmops_assets.records.jobs import GenerateJob

_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def run(job: GenerateJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Answer every prompt in `prompts_file` and write them to `output_file`, in the order of the prompts.

    `job`: model_dir; prompts_file, JSONL of {id, messages} and perhaps tools; output_file; max_new_tokens; and
    optionally batch_size (16), precision (fp32 | bf16 | fp16), seed (0), latency_items (0).

    A line of the output is {id, text, token_ids, tokens, prompt_ids, prompt_tokens, finish_reason}. `tokens` counts the
    generated ones with the stop token; `finish_reason` is "stop", "length" (cut by max_new_tokens or by the model's
    context), or "prompt_too_long" (nothing was generated, as the prompt fills the context).

    Returns counts, seconds, tokens per second, what the answers depend on (stop ids, template hash, versions), and the
    seconds that `latency_items` of the prompts, evenly spread, took one at a time ({id, seconds, tokens}). With
    `asks_alone`, `alone` says of those with the most padding how far their answer alone is from that in the batch.
    """
    import torch
    import transformers
    from transformers import GenerationConfig

    model, tokenizer, device = load_model(job.model_dir, job.precision)
    if not tokenizer.chat_template:
        raise ValueError(
            f"{job.model_dir}: its tokenizer has no chat template, so a conversation cannot be rendered. "
            "Fine-tune it on conversations first, or put a chat_template.jinja beside the tokenizer"
        )
    stop_ids = stop_token_ids(model, tokenizer, job.model_dir)
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    # The folder's own sampling settings (temperature, repetition penalty…) would leak into greedy decoding.
    model.generation_config = GenerationConfig(eos_token_id=stop_ids, pad_token_id=pad_id)
    torch.manual_seed(job.seed)

    prompts = read_jsonl(job.prompts_file)
    encoded = [encode(tokenizer, prompt) for prompt in prompts]
    context = context_length(model)
    limit = job.max_new_tokens
    batches = make_batches([len(ids) for ids in encoded], job.batch_size, limit, context)

    answers: list[dict[str, Any] | None] = [None] * len(prompts)
    for index, ids in enumerate(encoded):
        if context is not None and len(ids) >= context:
            answers[index] = _answer(prompts[index]["id"], tokenizer, [], ids, "prompt_too_long")
    started = reported = time.monotonic()
    done = 0
    for batch, room in batches:
        width = max(len(encoded[i]) for i in batch)
        input_ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, index in enumerate(batch):
            ids = torch.tensor(encoded[index], dtype=torch.long)
            input_ids[row, width - len(ids) :] = ids
            mask[row, width - len(ids) :] = 1
        output = _greedy(model, device, input_ids, mask, room)
        for row, index in enumerate(batch):
            ids, reason = cut_at_stop(output[row, width:].tolist(), stop_ids)
            answers[index] = _answer(prompts[index]["id"], tokenizer, ids, encoded[index], reason)
        done += len(batch)
        if time.monotonic() - reported > 5 and reporter is not None:
            reported = time.monotonic()
            reporter.log.info(f"answered {done} of {len(prompts)} prompts")
    seconds = time.monotonic() - started
    latency = _latency(model, device, prompts, encoded, batches, stop_ids, job.latency_items)
    alone: list[dict[str, Any]] = []
    if job.asks_alone:

        def once(ids: Any, room: int) -> list[int]:
            output = _greedy(model, device, ids, torch.ones_like(ids), room)
            return cut_at_stop(output[0, ids.shape[1] :].tolist(), stop_ids)[0]

        given = [answer["token_ids"] if answer is not None else [] for answer in answers]
        alone = [
            {"id": prompts[one["index"]]["id"], "gap": one["gap"]}
            for one in asked_alone(model, device, encoded, batches, given, once)
        ]

    complete = [answer for answer in answers if answer is not None]
    if len(complete) != len(prompts):
        raise RuntimeError(f"{len(prompts) - len(complete)} of {len(prompts)} prompts got no answer")
    write_jsonl(job.output_file, complete)
    tokens = sum(answer["tokens"] for answer in complete)
    return {
        "items": len(complete),
        "tokens": tokens,
        "prompt_tokens": sum(answer["prompt_tokens"] for answer in complete),
        "seconds": seconds,
        "tokens_per_second": tokens / seconds if seconds > 0 else 0.0,
        "latency": latency,
        "alone": alone,
        "settings": {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "decoding": "greedy",
            "max_new_tokens": limit,
            "precision": job.precision,
            "seed": job.seed,
            "device": str(device),
            "stop_ids": stop_ids,
            "context": context,
            "chat_template_hash": hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16],
        },
    }


def _greedy(model: Any, device: Any, input_ids: Any, mask: Any, room: int) -> Any:
    import torch

    with torch.inference_mode():
        return model.generate(
            input_ids=input_ids.to(device),
            attention_mask=mask.to(device),
            max_new_tokens=room,
            do_sample=False,
            num_beams=1,
        )


def _latency(
    model: Any,
    device: Any,
    prompts: list[dict[str, Any]],
    encoded: list[list[int]],
    batches: list[tuple[list[int], int]],
    stop_ids: list[int],
    items: int,
) -> list[dict[str, Any]]:
    """Seconds of single requests; the first one is asked twice, since it pays for what the others find warm."""
    import torch

    rooms = sorted((index, room) for batch, room in batches for index in batch)
    if not items or not rooms:
        return []
    chosen = rooms[:: max(1, len(rooms) // items)][:items]
    measured = []
    for index, room in [chosen[0], *chosen]:
        input_ids = torch.tensor([encoded[index]], dtype=torch.long)
        started = time.perf_counter()
        output = _greedy(model, device, input_ids, torch.ones_like(input_ids), room)
        ids, _ = cut_at_stop(output[0, input_ids.shape[1] :].tolist(), stop_ids)
        seconds = time.perf_counter() - started
        measured.append({"id": prompts[index]["id"], "seconds": seconds, "tokens": len(ids)})
    return measured[1:]


def load_model(model_dir: str, precision: str) -> tuple[Any, Any, Any]:
    """The causal language model in a local folder, its tokenizer, and the device that it is on.

    `precision` is fp32, bf16 or fp16. The device is the first GPU that the process may see, Apple's MPS, or the CPU.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if precision not in _DTYPES:
        raise ValueError(f"precision {precision!r} is none of {', '.join(_DTYPES)}")
    if not (Path(model_dir) / "config.json").exists():
        raise FileNotFoundError(f"{model_dir} is no model folder: it has no config.json")
    if torch.cuda.is_available():
        device = torch.device("cuda", 0)
    elif torch.backends.mps.is_available():
        device = torch.device("mps")
    else:
        device = torch.device("cpu")
    tokenizer = AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=getattr(torch, _DTYPES[precision]), local_files_only=True
    )
    return model.to(device).eval(), tokenizer, device


def stop_token_ids(model: Any, tokenizer: Any, model_dir: str) -> list[int]:
    """What ends an answer: the folder's generation_config, as a server reads it, else the tokenizer's end token."""
    eos = model.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError(f"{model_dir}: neither generation_config.json nor the tokenizer names an end token")
    return [int(i) for i in eos] if isinstance(eos, list | tuple) else [int(eos)]


def context_length(model: Any) -> int | None:
    """The most positions that the model was made for, or None where its config names no limit."""
    config = model.config.get_text_config()
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def make_batches(
    lengths: list[int], batch_size: int, max_new_tokens: int, context: int | None
) -> list[tuple[list[int], int]]:
    """Batches of prompt indices with the number of tokens that each may generate.

    Prompts of like length go together, the longest first, so that memory runs out at once if at all. Prompts near the
    end of the context get batches of their own: the room of one must not shorten the answers of its neighbours.
    Prompts that fill the context are in no batch.
    """
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(f"batch_size ({batch_size}) and max_new_tokens ({max_new_tokens}) must be at least 1")
    by_room: dict[int, list[int]] = {}
    for index, length in enumerate(lengths):
        room = max_new_tokens if context is None else min(max_new_tokens, context - length)
        if room > 0:
            by_room.setdefault(room, []).append(index)
    batches = []
    for room, indices in sorted(by_room.items()):
        indices.sort(key=lambda i: (-lengths[i], i))
        batches.extend((indices[s : s + batch_size], room) for s in range(0, len(indices), batch_size))
    return batches


def cut_at_stop(ids: list[int], stop_ids: list[int]) -> tuple[list[int], str]:
    """The generated ids up to and with the first stop token, and whether there was one ("stop") or not ("length").

    What follows a stop token in a batch is padding, which may be a stop token itself.
    """
    for position, token in enumerate(ids):
        if token in stop_ids:
            return ids[: position + 1], "stop"
    return ids, "length"


def encode(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    """Token ids of a prompt (its `messages`, perhaps `tools`), rendered as a server renders it before an answer."""
    (rendered,) = render(
        tokenizer,
        tokenizer.get_chat_template(tools=prompt.get("tools") or None),
        [prompt["messages"]],
        tools=[prompt.get("tools") or None],
        add_generation_prompt=True,
    )
    return rendered.ids


def _answer(item: str, tokenizer: Any, ids: list[int], prompt_ids: list[int], reason: str) -> dict[str, Any]:
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return {
        "id": item,
        "text": text,
        "token_ids": ids,
        "tokens": len(ids),
        "prompt_ids": prompt_ids,
        "prompt_tokens": len(prompt_ids),
        "finish_reason": reason,
    }


def read_jsonl(path: str) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines, opened where it is sealed."""
    return [json.loads(line) for line in sealed.read_bytes(path).splitlines()]


def write_jsonl(path: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as JSON lines; the file is whole or not there."""
    sealed.write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
