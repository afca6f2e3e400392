"""The worker's task "bertscore": how alike two texts are by the contextual embeddings of a local encoder.

BERTScore (Zhang et al. 2020) without idf weights and without rescaling: every token of one text is matched with the
most similar token of the other by cosine, special tokens aside; precision is the mean over the answer's tokens, recall
over the reference's, and F1 their harmonic mean.
"""

import time
from typing import Any

from images.ask.generate import read_jsonl, write_jsonl
from images.train.reporter import Reporter
from llmops_assets.records.jobs import BertscoreJob


def run(job: BertscoreJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Score every line of `pairs_file` (JSONL of {id, answer, references}) and write {id, f1} to `output_file`.

    `job`: model_dir (an encoder such as a BERT, or any model with hidden states), pairs_file, output_file; optionally
    batch_size (16) and layer (-1, an index into the hidden states). Of several references the best counts; an empty
    answer scores 0.
    """
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model_dir, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(job.model_dir, local_files_only=True).eval()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    model.to(device)
    layer, size = job.layer, job.batch_size
    pairs = read_jsonl(job.pairs_file)
    started = time.monotonic()
    texts = sorted({t for p in pairs for t in (p["answer"], *p["references"]) if t.strip()}, key=lambda t: (len(t), t))
    vectors: dict[str, Any] = {}
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        vectors |= dict(zip(batch, _embed(model, tokenizer, device, batch, layer), strict=True))
    rows = []
    for pair in pairs:
        answer = vectors.get(pair["answer"])
        scores = [_f1(answer, vectors.get(reference)) for reference in pair["references"]]
        # Rounded: the last digits of a floating-point sum differ with the batch.
        rows.append({"id": pair["id"], "f1": round(max(scores), 4)})
    seconds = time.monotonic() - started
    write_jsonl(job.output_file, rows)
    return {
        "items": len(rows),
        "seconds": seconds,
        "settings": {
            "engine": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "layer": layer,
            "device": str(device),
        },
    }


def _embed(model: Any, tokenizer: Any, device: Any, texts: list[str], layer: int) -> list[Any]:
    """Unit vectors of the tokens of each text, float32 of shape (tokens, hidden)."""
    import torch

    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    longest = getattr(model.config, "max_position_embeddings", 512)
    encoded = tokenizer(
        texts,
        return_tensors="pt",
        padding=True,
        truncation=True,
        max_length=longest,
        return_special_tokens_mask=True,
        padding_side="right",
    )
    special = encoded.pop("special_tokens_mask").bool()
    with torch.inference_mode():
        inputs = {name: value.to(device) for name, value in encoded.items() if name in ("input_ids", "attention_mask")}
        hidden = model(**inputs, output_hidden_states=True).hidden_states[layer].float().cpu()
    hidden = torch.nn.functional.normalize(hidden, dim=-1)
    keep = encoded["attention_mask"].bool() & ~special
    return [states[mask] for states, mask in zip(hidden, keep, strict=True)]


def _f1(answer: Any, reference: Any) -> float:
    if answer is None or reference is None or not len(answer) or not len(reference):
        return 0.0
    similar = answer @ reference.T
    precision, recall = similar.max(dim=1).values.mean().item(), similar.max(dim=0).values.mean().item()
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
