"""What the training benchmarks share: rows, a base model of random weights, and the processes that are compared."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from llmops_assets.records.jobs import ModelFolder, PlanJob, TrainJob
from llmops_assets.specs.training import TrainJobSpec
from resources.dataset_store import DatasetStore
from resources.trainer import Trainer

WORDS = "통행료 환불 영업소 하이패스 단말기 잔액 휴게소 정체 사고 차로 요금 카드 영수증 접수 확인".split()  # noqa: SIM905


@dataclass(frozen=True)
class Size:
    """A model's dimensions, as a Llama has them."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool


SIZES = {
    "tiny": Size(64, 2, 4, 2, 128, 512, True),
    # The dimensions of Llama 3.2 1B and of Llama 3.1 8B.
    "1b": Size(2048, 16, 32, 8, 8192, 128256, True),
    "8b": Size(4096, 32, 32, 8, 14336, 128256, False),
}


def conversations(count: int, longest: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` conversations of one turn, of mixed length: an answer has up to `longest` words."""
    rng = random.Random(seed)

    def text(words: int) -> str:
        return " ".join(rng.choice(WORDS) + str(rng.randrange(100)) for _ in range(words))

    return [
        [
            {"role": "user", "content": text(rng.randint(4, 12))},
            {"role": "assistant", "content": text(rng.randint(max(2, longest // 10), longest))},
        ]
        for _ in range(count)
    ]


def make_base(folder: Path, size: Size, *, device: str, precision: str) -> Path:
    """A Llama of random weights with a tokenizer of our own, as a folder in safetensors."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from images.train.tokenizer import train_tokenizer

    texts = [m["content"] for c in conversations(400, 60, seed=9) for m in c]
    tokenizer = train_tokenizer(texts, min(size.vocabulary, 4000), 2, 4096)
    config = AutoConfig.for_model(
        "llama",
        vocab_size=max(size.vocabulary, len(tokenizer)),
        hidden_size=size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        head_dim=size.hidden // size.heads,
        intermediate_size=size.intermediate,
        max_position_embeddings=4096,
        tie_word_embeddings=size.tied,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        llmops_family_version="3.1",
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            config, dtype={"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def sft_spec(method: str, device: str, precision: str, **hyperparams: Any) -> TrainJobSpec:
    """An SFT job of the benchmark."""
    return TrainJobSpec.model_validate(
        {
            "job_type": "SFT",
            "model_family": "llama",
            "base_model_ref": "hf:benchmark",
            "dataset_ref": "benchmark@v1",
            "method": method,
            "hyperparams": {
                "lr": 1e-4,
                "num_epochs": 1000,
                "save_steps": 10_000,
                "precision": precision,
                **hyperparams,
            },
            "resources": {"gpus": 0 if device == "cpu" else 1},
            "output": {"artifact_name": "benchmark"},
        }
    )


def write_rows(folder: Path, rows: list[list[dict[str, str]]]) -> tuple[DatasetStore, dict[str, str]]:
    """The rows as our store holds them (manifests by split), and as JSONL beside it."""
    lines = (json.dumps({"messages": messages}, ensure_ascii=False) for messages in rows)
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    store = DatasetStore(folder / "store")
    frame = pl.DataFrame({"row_id": [f"row-{i}" for i in range(len(rows))], "messages": rows})
    parts = {"train": frame, "validation": frame.head(0)}
    manifests = {
        name: store.write(part, kind="rows", dataset="benchmark@v1", step="splits", config_hash="0")
        for name, part in parts.items()
    }
    return store, manifests


def run_ours(
    folder: Path, spec: TrainJobSpec, base: Path, device: str, data: tuple[DatasetStore, Mapping[str, str]]
) -> tuple[dict[str, Any], TrainJob, Trainer]:
    """Facts of planning by our worker, the job that trains what was planned, and what runs it in a process."""
    store, manifests = data
    trainer = Trainer(locks=folder / "locks")
    common: dict[str, Any] = {"spec": spec, "base": ModelFolder(path=str(base)), "plan_dir": str(folder / "plan")}
    plan = PlanJob(**common, store=str(store.root), manifests=dict(manifests))
    planned = trainer.run(None, plan, work_dir=folder / "work")
    job = TrainJob(
        **common,
        checkpoints=str(folder / "checkpoints"),
        output=str(folder / "adapter"),
        precision=spec.hyperparams.precision or "fp32",
        device=device,
        gpus=spec.resources.gpus,
        family_version="3.1",
        stop_token=planned["stop_token"],
    )
    return planned, job, trainer


def run_plain(
    folder: Path,
    spec: TrainJobSpec,
    base: Path,
    device: str,
    *,
    rows: Path | None = None,
    through: Sequence[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Figures of plain TRL on `rows` (else those beside `folder`) in a process of its own, `through` another module."""
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "model": str(base),
        "rows": str(rows or folder.parent / "rows.jsonl"),
        "output": str(folder / "out"),
        "result": str(folder / "result.json"),
        "method": spec.method,
        "precision": spec.hyperparams.precision,
        "device": device,
        "hyperparams": spec.hyperparams.model_dump(mode="json"),
        "options": options,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        [sys.executable, *through, "-m", "benchmarks.plain_trl", str(folder / "job.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()
        return {"failed": words[-1][:200] if words else f"exit code {done.returncode}"}
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))
