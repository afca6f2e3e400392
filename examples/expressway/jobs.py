"""Writes data, tiny bases and specs of the expressway's desk for preferences, encoders and readers.

Run `python -m examples.expressway.jobs FOLDER`; docs/training.md goes on from there. The bases are random, and
preferences are learned by what the spec `sft` makes of one: it shows the way through the platform and is no assistant.
"""

import json
import random
from pathlib import Path
from typing import Any

from examples.expressway import conversations, documents
from examples.expressway.generate import CONVERSATIONS, folder_named
from examples.expressway.tables import intents
from llmops_assets.specs.training import TrainJobSpec

ROWS = 2400
DOCUMENTS_AN_INTENT = 4

_HYPER = {"max_seq_len": 256, "precision": "fp32", "save_steps": 100}
SPECS: dict[str, dict[str, Any]] = {
    "sft": {
        "job_type": "SFT",
        "model_family": "llama",
        "dataset_ref": "desk-conversations@v1",
        "method": "full",
        "hyperparams": {"lr": 4e-3, "batch_size": 16, "num_epochs": 3, "max_steps": 360, **_HYPER},
        "evaluation": {"max_new_tokens": 48, "batch_size": 32},
    },
    "rlhf": {
        "job_type": "RLHF",
        "model_family": "llama",
        "dataset_ref": "desk-preferences@v1",
        "method": "lora",
        "hyperparams": {"lr": 1e-3, "batch_size": 16, "num_epochs": 1, "max_steps": 60, **_HYPER},
        "rlhf": {
            "reward_model_ref": None,
            "kl_coeff": 0.05,
            "ppo_steps": 20,
            "max_new_tokens": 24,
            "reward_lr": 5e-3,
        },
        "evaluation": {"max_new_tokens": 24},
    },
    "dpo": {
        "job_type": "RLHF",
        "model_family": "llama",
        "dataset_ref": "desk-preferences@v1",
        "method": "full",
        "hyperparams": {"lr": 2e-4, "batch_size": 16, "num_epochs": 1, "max_steps": 60, **_HYPER},
        "rlhf": {"algorithm": "dpo", "reward_model_ref": None, "kl_coeff": 0.1},
    },
    "embedding": {
        "job_type": "EMBEDDING",
        "model_family": "bert",
        "dataset_ref": "desk-passages@v1",
        "method": "full",
        "hyperparams": {"lr": 1e-3, "batch_size": 32, "num_epochs": 2, "max_steps": 150, **_HYPER},
    },
    "rag": {
        "job_type": "RAG_TUNING",
        "model_family": "llama",
        "dataset_ref": "desk-questions@v1",
        "method": "full",
        "hyperparams": {"lr": 2e-3, "batch_size": 16, "num_epochs": 1, "max_steps": 80, **_HYPER, "max_seq_len": 512},
        "rag": {"retriever_type": "dense", "passages": 2},
        "evaluation": {"max_new_tokens": 48, "batch_size": 32},
    },
}


def write(folder: Path, seed: int = 7) -> dict[str, Path]:
    """Write everything into `folder`; the files by what they are. The same seed gives the same rows."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(f"jobs-{seed}")
    counts = {**CONVERSATIONS, **dict.fromkeys(("exact", "near", "poor", "greeted"), 0), "unique": ROWS, "broken": {}}
    lines = conversations.write_rows(random.Random(f"conversations-{seed}"), counts).lines
    rows = [json.loads(line) for line in lines]
    about = {intent.id: _passages(intent, rng) for intent in intents()}
    answers = {intent.id: intent.answer for intent in intents()}
    data: dict[str, list[dict[str, Any]]] = {"conversations": [], "preferences": [], "passages": [], "questions": []}
    for row in rows:
        metadata = {"category": row["metadata"]["category"], "phrasing": row["metadata"]["phrasing"]}
        intent, question = row["metadata"]["intent"], row["messages"][0]["content"]
        other = rng.choice([name for name in answers if answers[name] != answers[intent]])
        away = rng.choice(about[other])
        data["conversations"].append({"messages": row["messages"], "metadata": metadata})
        data["preferences"].append(
            {"prompt": question, "chosen": answers[intent], "rejected": answers[other], "metadata": metadata}
        )
        near = {"positives": about[intent], "negatives": [away], "metadata": metadata}
        data["passages"].append({"anchor": question, **near})
        data["questions"].append({"question": question, "answer": answers[intent], **near})
    files = {}
    for name, found in data.items():
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in found), encoding="utf-8")
    texts = [text for found in about.values() for text in found] + [row["messages"][-1]["content"] for row in rows]
    files |= _bases(folder / "models", texts)
    bases = dict.fromkeys(SPECS, f"hf:{files['writer']}") | {"embedding": f"hf:{files['encoder']}"}
    for name, spec in SPECS.items():
        full = {**spec, "base_model_ref": bases[name], "resources": {"gpus": 0}}
        full["output"] = {"artifact_name": f"desk-{name}"}
        if name == "sft":
            # Preferences and passages are for a model that answers already: the training of this spec, by its cell.
            cell = f"{spec['dataset_ref']}|{TrainJobSpec.model_validate(full).recipe_key()}"
            bases |= {"rlhf": cell, "dpo": cell, "rag": cell}
        if "rag" in spec:
            full["rag"] = {**spec["rag"], "retriever_model_ref": f"hf:{files['encoder']}"}
        files[f"{name}.json"] = folder / f"{name}.json"
        files[f"{name}.json"].write_text(json.dumps(full, ensure_ascii=False, indent=1), encoding="utf-8")
    return files


def _passages(intent: Any, rng: random.Random) -> list[str]:
    found: list[str] = []
    while len(found) < DOCUMENTS_AN_INTENT:
        text = documents._about(intent, "manual", rng)[0]
        if text not in found:
            found.append(text)
    return found


def _bases(folder: Path, texts: list[str]) -> dict[str, Path]:
    """A random encoder and a random writer with a tokenizer of their own, of about half a million weights each."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    from images.train.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, 2000, 2, 512)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "max_position_embeddings": 512,
        "initializer_range": 0.05,
        "pad_token_id": tokenizer.pad_token_id,
    }
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "tie_word_embeddings": True}
    kinds = {
        "encoder": (AutoModel, AutoConfig.for_model("bert", **sizes)),
        "writer": (
            AutoModelForCausalLM,
            AutoConfig.for_model("llama", **sizes, **ends, num_key_value_heads=2, llmops_family_version="3.0"),
        ),
    }
    torch.manual_seed(0)
    for name, (auto, config) in kinds.items():
        auto.from_config(config, dtype=torch.float32).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: (folder / name).absolute() for name in kinds}


if __name__ == "__main__":
    for name, path in write(folder_named("examples.expressway.jobs", __doc__)).items():
        print(f"{name:12} {path}")
