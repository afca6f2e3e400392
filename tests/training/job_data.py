"""Invented rows of the desk for every job type beyond SFT, and tiny models of every family to train from."""

import random
from pathlib import Path
from typing import Any

import polars as pl

TOPICS = {
    "통행료": ("통행료는 요금소에서 카드로 낼 수 있습니다.", "요금소의 모든 차로는 카드와 현금을 받는다."),
    "환불": ("환불은 사흘 안에 처리됩니다.", "두 번 낸 요금은 사흘 안에 계좌로 돌려준다."),
    "휴게소": ("다음 휴게소까지 20 km 남았습니다.", "휴게소는 평균 20 km마다 하나씩 있다."),
    "분실물": ("분실물은 가까운 휴게소에서 찾으세요.", "주운 물건은 가까운 휴게소가 한 달 동안 맡는다."),
    "영수증": ("영수증은 일 년 동안 다시 받을 수 있습니다.", "영수증 기록은 일 년 동안 보관한다."),
    "사고": ("사고가 나면 갓길로 옮기고 전화하세요.", "사고 차량은 갓길로 옮기고 상황실에 알린다."),
}
PLACES = ["북문", "남문", "강변", "산성", "들녘", "새터", "물목", "솔밭"]
ENDINGS = ["알려 주세요.", "어떻게 하나요?", "궁금합니다.", "도와주세요."]
RUDE = ["몰라요.", "바쁩니다.", "직접 찾으세요."]
MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
TEXTS = pl.List(pl.String)


def _questions(count: int, seed: int) -> list[tuple[str, str]]:
    rng = random.Random(seed)
    every = [(topic, f"{place} {topic} {ending}") for topic in TOPICS for place in PLACES for ending in ENDINGS]
    rng.shuffle(every)
    return [every[i % len(every)] for i in range(count)]


def preference_frame(count: int, seed: int = 0) -> pl.DataFrame:
    """A polite answer preferred to a rude one."""
    rng = random.Random(seed)
    rows = [
        {
            "row_id": f"pair-{i:04d}",
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": TOPICS[topic][0]}],
            "rejected": [{"role": "assistant", "content": rng.choice(RUDE)}],
        }
        for i, (topic, question) in enumerate(_questions(count, seed))
    ]
    schema = {"row_id": pl.String, "prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES}
    return pl.DataFrame(rows, schema=schema)


def rated_frame(count: int, seed: int = 0) -> pl.DataFrame:
    """A polite answer that was found good, or a rude one that was found bad; good ones are the rarer ones."""
    frame = preference_frame(count, seed)
    good = pl.int_range(pl.len()) % 3 == 0
    return frame.select(
        "row_id",
        "prompt",
        pl.when(good).then(pl.col("chosen")).otherwise(pl.col("rejected")).alias("completion"),
        pl.lit(None, pl.String).alias("tools"),
        good.alias("label"),
    )


def embedding_frame(count: int, seed: int = 0) -> pl.DataFrame:
    """A question with the passage of its place and topic, and a passage of another topic."""
    rng = random.Random(seed)
    rows = []
    for i, (topic, question) in enumerate(_questions(count, seed)):
        place, other = question.split()[0], rng.choice([t for t in TOPICS if t != topic])
        rows.append(
            {
                "row_id": f"anchor-{i:04d}",
                "anchor": question,
                "positives": [f"{place}: {TOPICS[topic][1]}"],
                "negatives": [f"{place}: {TOPICS[other][1]}"] if i % 2 else [],
            }
        )
    return pl.DataFrame(rows, schema={"row_id": pl.String, "anchor": pl.String, "positives": TEXTS, "negatives": TEXTS})


def scored_frame(count: int, seed: int = 0) -> pl.DataFrame:
    """A question with a passage of its topic (1), of its place alone (.5), or of neither (0)."""
    rng = random.Random(seed)
    rows = []
    for i, (topic, question) in enumerate(_questions(count, seed)):
        place = question.split()[0]
        other = rng.choice([t for t in TOPICS if t != topic])
        score, text = [
            (1.0, f"{place}: {TOPICS[topic][1]}"),
            (0.5, f"{place}: {TOPICS[other][1]}"),
            (0.0, TOPICS[other][1]),
        ][i % 3]
        rows.append({"row_id": f"s-{i}", "anchor": question, "positives": [text], "negatives": [], "score": score})
    schema = {"row_id": pl.String, "anchor": pl.String, "positives": TEXTS, "negatives": TEXTS, "score": pl.Float64}
    return pl.DataFrame(rows, schema=schema)


def rag_frame(count: int, seed: int = 0) -> pl.DataFrame:
    """The same with the answer."""
    answers = [TOPICS[topic][0] for topic, _ in _questions(count, seed)]
    frame = embedding_frame(count, seed).rename({"anchor": "question"})
    return frame.with_columns(pl.Series("answer", answers))


FRAMES = {"RLHF": preference_frame, "EMBEDDING": embedding_frame, "RAG_TUNING": rag_frame}
DATASETS = {"RLHF": "pairs@v1", "EMBEDDING": "anchors@v1", "RAG_TUNING": "qa@v1"}
BLOCKS: dict[str, dict[str, Any]] = {
    "RLHF": {"rlhf": {"reward_model_ref": None, "kl_coeff": 0.05, "ppo_steps": 2, "max_new_tokens": 8}},
    "EMBEDDING": {},
    "RAG_TUNING": {"rag": {"retriever_type": "dense", "retriever_model_ref": "hf:x", "passages": 2}},
}


def job_spec(job_type: str, family: str, base: str, method: str = "full", **changes: Any) -> dict[str, Any]:
    """A recipe of a few steps; `changes` are of hyperparams, but for `rlhf`, `rag` and `embedding`."""
    lora = {"lora_rank": 4} if method != "full" else {}
    blocks = {name: changes.pop(name) for name in ("rlhf", "rag", "embedding") if name in changes}
    merged = {name: {**BLOCKS[job_type].get(name, {}), **block} for name, block in blocks.items()}
    hyper = {"lr": 3e-3, "batch_size": 8, "num_epochs": 1, "max_seq_len": 160, "max_steps": 2, "save_steps": 2}
    return {
        "job_type": job_type,
        "model_family": family,
        "base_model_ref": base,
        "method": method,
        "hyperparams": {**hyper, **lora, **changes},
        "resources": {"gpus": 0},
        "output": {"artifact_name": f"tiny-{job_type.lower().replace('_', '-')}"},
        **{**BLOCKS[job_type], **merged},
    }


def make_base(family: str, folder: Path, tokenizer_of: Path) -> Path:
    """A random model of `family` with the tokenizer of another; bert is an encoder."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

    kinds = {"llama": "llama", "mistral": "mistral", "gemma": "gemma3_text", "qwen": "qwen3", "bert": "bert"}
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_of)
    sizes: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 256,
        "initializer_range": 0.05,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if family != "bert":
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        sizes |= {"num_key_value_heads": 2, "head_dim": 8, "tie_word_embeddings": True, **ends}
    if family == "llama":
        sizes["llmops_family_version"] = "3.0"
    torch.manual_seed(0)
    config = AutoConfig.for_model(kinds[family], **sizes)
    model = (AutoModel if family == "bert" else AutoModelForCausalLM).from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
