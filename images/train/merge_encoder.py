"""Makes the servable encoder of trained weights, for `SentenceTransformer(path)`, and a retriever's index with it.

What is saved is loaded again by sentence-transformers and must give the vectors that the training's own pooling gives:
tokens, pooling and normalisation are then what was trained.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from images.train import encoder, sealed, weights
from images.train.plan_encoder import PROBES, cut_as_served
from images.train.reporter import Reporter
from images.train.weights import SHARD_BYTES
from llmops_assets.records.jobs import MergeJob
from llmops_assets.specs.jobs import Pooling
from llmops_assets.specs.training import TrainJobSpec
from resources import content

SAME_COSINE = 0.999
"""Two vectors of a text this near are one and the same, but for rounding."""


def merge_encoder(
    spec: TrainJobSpec, job: MergeJob, base: str, trained: Path, plan_dir: Path, output: Path, reporter: Reporter
) -> dict[str, Any]:
    """Write the encoder trained from `base` to `output` as sentence-transformers reads it; how near it is to it."""
    pooling: Pooling = job.pooling
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    texts = json.loads(sealed.read_bytes(plan_dir / PROBES))
    dtype = torch.float32 if job.precision == "fp32" else torch.bfloat16
    model = _trained(spec, base, trained, dtype)
    before = _embed(model, tokenizer, texts, pooling)
    # Beside the output: the system's folder for temporary files may be memory, and an encoder fills it.
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        (model.merge_and_unload(safe_merge=True) if spec.method != "full" else model).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _save(spec, folder, tokenizer.model_max_length, pooling, output)
    reporter.log.info("loading the encoder again as sentence-transformers does")
    served = load(output)
    after = served.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float32)
    origin = AutoModel.from_pretrained(base, dtype=torch.float32, trust_remote_code=False, use_safetensors=True).eval()
    cosines = (before * after).sum(1)
    return {
        "parameters": sum(p.numel() for p in served.parameters()),
        "max_logit_difference": float(np.abs(before - after).max()),
        "top1_agreement": float((cosines > SAME_COSINE).mean()),
        "differs_from_base": bool(np.abs(_embed(origin, tokenizer, texts, pooling) - after).max() > 1e-6),
        "reloads": bool(np.isfinite(after).all()),
        "figures": {"dimensions": after.shape[1], "pooling": pooling, "longest_text": tokenizer.model_max_length},
    }


def load(folder: Path | str) -> Any:
    """The encoder in a folder as sentence-transformers loads it, on the CPU or the first GPU that is seen."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)


def _trained(spec: TrainJobSpec, base: str, trained: Path, dtype: torch.dtype) -> Any:
    if spec.method == "full":
        return AutoModel.from_pretrained(trained, dtype=dtype, trust_remote_code=False, use_safetensors=True).eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(weights.trained_base(spec.method, base, dtype, AutoModel), trained).eval()


def _embed(model: Any, tokenizer: Any, texts: list[str], pooling: Pooling) -> np.ndarray:
    rows = [cut_as_served(tokenizer, text, tokenizer.model_max_length)[0] for text in texts]
    return encoder.embed(model, rows, tokenizer.pad_token_id or 0, pooling)


def _save(spec: TrainJobSpec, folder: str, length: int, pooling: Pooling, output: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts

    body = parts.Transformer(folder, max_seq_length=length)
    modules = [body, parts.Pooling(body.get_embedding_dimension(), pooling), parts.Normalize()]
    prompts = {"query": spec.embedding.query_prompt, "document": spec.embedding.passage_prompt}
    model = SentenceTransformer(modules=modules, prompts=prompts, device="cpu", similarity_fn_name="cosine")
    model.save_pretrained(str(output), create_model_card=False, safe_serialization=True)
    body.model.save_pretrained(output, max_shard_size=SHARD_BYTES[spec.output.save_format])
    if (output / "model.safetensors.index.json").exists():
        (output / "model.safetensors").unlink(missing_ok=True)


def build_index(spec: TrainJobSpec, retriever: Path, passages: Path, output: Path) -> dict[str, Any]:
    """Write the vectors of all passages (`passages`: Parquet of key, text) with the passages beside them to `output`.

    `vectors.safetensors` holds float32 unit vectors of shape (passages, dimensions) in the order of
    `passages.parquet`, so a query's nearest passages are the largest products with its own unit vector.
    """
    from safetensors.numpy import load_file, save_file

    output.mkdir(parents=True)
    frame = sealed.read_parquet(passages)
    model = load(retriever)
    vectors = encode(model, frame["text"].to_list(), spec.embedding.passage_prompt)
    save_file({"vectors": vectors}, output / "vectors.safetensors")
    frame.write_parquet(output / "passages.parquet", compression="zstd")
    # Found again, a passage must be its own nearest one: else vectors and passages do not stand in the same order.
    again = load_file(output / "vectors.safetensors")["vectors"]
    sample = np.linspace(0, len(again) - 1, min(64, len(again))).astype(int)
    asked = encode(model, [frame["text"][int(i)] for i in sample], spec.embedding.passage_prompt)
    nearest = (asked @ again.T).max(1)
    own = (asked * again[sample]).sum(1)
    facts = {
        "passages": len(vectors),
        "dimensions": int(vectors.shape[1]),
        "metric": "cosine",
        "query_prompt": spec.embedding.query_prompt,
        "retriever": content.content_hash(retriever),
        "found_again": float((own > nearest - 1e-4).mean()),
    }
    (output / "index.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    return facts


def encode(model: Any, texts: list[str], prompt: str) -> np.ndarray:
    """Unit vectors, float32 of shape (texts, dimensions), of texts behind `prompt`."""
    found = model.encode(
        [prompt + text for text in texts], prompt="", normalize_embeddings=True, convert_to_numpy=True, batch_size=64
    )
    return found.astype(np.float32)
