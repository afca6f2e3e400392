"""The worker's task "embed": the vectors of texts, kept part by part, so that one that is cut off goes on."""

import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from images.ask.generate import read_jsonl
from images.train import sealed
from images.train.reporter import Reporter
from llmops_assets.records.jobs import EmbedJob
from resources.encryption import EncryptionError


def run(job: EmbedJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Write a unit vector (float32) of each text of `texts_file` to `output_file`, in their order.

    The vectors of `chunk` texts at a time lie in a folder beside it until all are there; a later run takes those of the
    same texts by the same encoder from it. Raises ValueError where a vector is none.
    """
    from images.train.merge_encoder import encode
    from images.train.merge_encoder import load as load_encoder
    from resources import content

    rows = read_jsonl(job.texts_file)
    if not rows:
        raise ValueError(f"{job.texts_file} holds no text")
    began = time.monotonic()
    encoder_hash = content.content_hash(Path(job.model_dir))
    folder = Path(f"{job.output_file}.parts")
    folder.mkdir(parents=True, exist_ok=True)
    model = None
    parts: list[np.ndarray] = []
    reused = 0
    for start in range(0, len(rows), job.chunk):
        texts = [row["text"] for row in rows[start : start + job.chunk]]
        key = hashlib.sha256(json.dumps([encoder_hash, texts], ensure_ascii=False).encode()).hexdigest()
        path = folder / f"{key[:32]}.safetensors"
        vectors = _kept(path, len(texts))
        if vectors is None:
            model = load_encoder(job.model_dir) if model is None else model
            vectors = encode(model, texts, "")
            if not np.isfinite(vectors).all() or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
                raise ValueError(
                    f"{job.model_dir} gives vectors without direction (zero, not finite): it is no encoder"
                )
            sealed.write_bytes(path, save({"vectors": vectors}))
        else:
            reused += len(texts)
        parts.append(vectors)
        # Of few texts nobody needs to be told, least of all on the output of a command.
        if reporter is not None and len(rows) > job.chunk:
            reporter.log.info("%d of %d texts are embedded", start + len(texts), len(rows))
    whole = np.concatenate(parts)
    sealed.write_bytes(job.output_file, save({"vectors": whole}))
    shutil.rmtree(folder)
    return {
        "items": len(whole),
        "dimensions": int(whole.shape[1]),
        "reused": reused,
        "encoder": encoder_hash,
        "seconds": time.monotonic() - began,
    }


def _kept(path: Path, count: int) -> np.ndarray | None:
    """The vectors that an earlier run left, where they are whole."""
    if not path.exists():
        return None
    try:
        vectors = load(sealed.read_bytes(path))["vectors"]
    except (SafetensorError, KeyError, OSError, EncryptionError):
        return None
    return vectors if len(vectors) == count else None
