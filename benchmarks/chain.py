"""A small desk from its files to an endpoint, every step by the graph itself: what faults are seeded into.

`python -m benchmarks.chain [FOLDER]` builds one and prints what each step took.
"""

import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.installation import TRAINING, Installation, Ran, opened

CORPUS, DESK, ENDPOINT = "corpus@v1", "desk@v1", "desk"

TOPICS = {
    "통행료": ("toll", "통행료는 요금소에서 냅니다."),
    "영수증": ("toll", "영수증은 창구에 있습니다."),
    "환불": ("refund", "환불은 사흘 걸립니다."),
    "단말기": ("refund", "단말기는 매장에서 바꿉니다."),
    "휴게소": ("road", "휴게소는 다음 출구입니다."),
    "사고": ("road", "사고는 전화로 알리세요."),
}
"""What is asked about: its category, and the one answer."""

_PROSE = (
    "어제 오늘 아침 저녁 주말 비 오는 날 서울 부산 대전 광주 대구 인천 방향 도로 위에서 급하게 처음 다시 혼자 가족과 "
    "트럭 버스 승용차 화물 회사 업무 출장 여행 중에 지나다가 갑자기 문득 정말 혹시 아까 방금 내일 모레 이번 지난 여름 "
    "겨울 터널 다리 고개 근처 북쪽 남쪽 동쪽 서쪽 입구 출구 차로 운전 도중 친구 부모님 아이 짐 많이 조금 천천히 빨리"
)
_WORDS = tuple(_PROSE.split())
_ENDS = ("알려 주세요", "어떻게 하나요", "궁금합니다", "도와주세요", "물어봅니다", "찾고 있어요")

POLICY: dict[str, Any] = {
    "gates.PRETRAIN": {"metric": "perplexity", "suite": "test", "at_most": 300, "n_at_least": 20},
    "gates.SFT": {"metric": "accuracy", "suite": "test", "judge": "exact", "at_least": 0.9, "n_at_least": 40},
    "evaluation.latency_items": 2,
}
"""What the policy of the chain says otherwise than the shipped one: the desk is small."""


def questions(count: int, seed: int = 0, topics: tuple[str, ...] = tuple(TOPICS)) -> list[tuple[str, str]]:
    """(question, topic): `count` of them, no two near each other, every topic as often."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        topic = topics[number % len(topics)]
        words = rng.sample(_WORDS, 7)
        place = rng.randint(2, 6)
        found.append((f"{' '.join([*words[:place], topic, *words[place:]])} {rng.choice(_ENDS)}", topic))
    return found


def chats(count: int, seed: int = 0, topics: tuple[str, ...] = tuple(TOPICS)) -> list[dict[str, Any]]:
    """Rows of conversations with the desk, in the shape of OpenAI's messages."""
    return [
        {
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": TOPICS[topic][1]}],
            "category": TOPICS[topic][0],
        }
        for question, topic in questions(count, seed, topics)
    ]


def documents(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows of prose about the same things."""
    rng = random.Random(seed + 1000)
    rows = []
    for number in range(count):
        asked = questions(3, seed * 1000 + number, tuple(rng.sample(list(TOPICS), 3)))
        rows.append({"text": " ".join(f"{question}. {TOPICS[topic][1]}" for question, topic in asked)})
    return rows


def pretrain_spec(**hyperparams: Any) -> dict[str, Any]:
    """The job that makes the chain's base model."""
    return {
        "job_type": "PRETRAIN",
        "model_family": "llama",
        "dataset_ref": CORPUS,
        "method": "full",
        "hyperparams": {
            "lr": 5e-3,
            "batch_size": 8,
            "num_epochs": 8,
            "max_steps": 40,
            "max_seq_len": 64,
            "scheduler": "cosine",
            "save_steps": 40,
            **hyperparams,
        },
        "resources": {"gpus": 0},
        "output": {"artifact_name": "tiny-base"},
        "architecture": {
            "hidden_size": 64,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "intermediate_size": 128,
            "max_position_embeddings": 256,
            "initializer_range": 0.05,
        },
        "tokenizer": {"vocab_size": 700},
    }


def sft_spec(base: str, dataset: str = DESK, method: str = "full", **hyperparams: Any) -> dict[str, Any]:
    """The job that teaches the desk's answers to the base; keywords are hyperparameters."""
    lora = {"lora_rank": 16, "train_embeddings": True} if method != "full" else {}
    return {
        "job_type": "SFT",
        "model_family": "llama",
        "base_model_ref": base,
        "dataset_ref": dataset,
        "method": method,
        "hyperparams": {
            "lr": 5e-3,
            "batch_size": 16,
            "num_epochs": 20,
            "max_steps": 120,
            "max_seq_len": 128,
            "scheduler": "cosine",
            "save_steps": 60,
            **lora,
            **hyperparams,
        },
        "resources": {"gpus": 0},
        "output": {"artifact_name": "tiny-desk"},
        "evaluation": {"max_new_tokens": 24, "batch_size": 64},
    }


def deployment_spec(model_ref: str = "tiny-desk@1", **more: Any) -> dict[str, Any]:
    """The endpoint of the desk, on the CPU."""
    return {
        "model_ref": model_ref,
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "endpoint": ENDPOINT,
        "environment": "production",
        "resources": {"gpus": 0},
        "runtime": {"max_concurrent_requests": 8, "max_input_tokens": 128, "max_output_tokens": 32},
        **more,
    }


@dataclass(frozen=True)
class Chain:
    """Partitions of a finished chain, and the ref of its registered model."""

    base: str
    tuned: str
    model_ref: str
    seconds: dict[str, float]
    steps: dict[str, float]
    """What each step of the graph took: `<part of the chain>/<asset or check>`."""

    def check_share(self, part: str, asset: str) -> tuple[float, float]:
        """Seconds that an asset of a part took, and those of its checks together."""
        own = f"{part}/{asset}"
        checks = sum(taken for name, taken in self.steps.items() if name.startswith(f"{own}_"))
        return self.steps[own], checks


class NotFinished(RuntimeError):
    """A step of the chain was stopped; the message says by what."""


def build(one: Installation, *, serve: bool = True) -> Chain:
    """Take an empty installation through the whole chain; raises NotFinished where a step is stopped."""
    seconds: dict[str, float] = {}
    steps: dict[str, float] = {}

    def step(name: str, run: Callable[[], Ran]) -> None:
        begun = time.monotonic()
        ran = run()
        seconds[name] = time.monotonic() - begun
        steps.update({f"{name}/{key}": taken for key, taken in ran.seconds.items()})
        if not ran.success or ran.failed:
            raise NotFinished(f"{name}: {ran.failed}")

    step("corpus", lambda: one.ingest(CORPUS, "pretrain_corpus", documents(300)))
    split = {"stratify_by": "category", "ratios": [0.7, 0.1, 0.2]}
    step("desk", lambda: one.ingest(DESK, "sft_pair", chats(360), split=split))
    base = one.request(pretrain_spec())
    step("base", lambda: one.run(base, "training_plan", "adapter", "merged_model"))
    step("base evaluated", lambda: one.run(base, "evaluation", "registered_model"))
    tuned = one.request(sft_spec(base))
    step("tuned", lambda: one.run(tuned, "training_plan", "adapter", "merged_model"))
    step("tuned evaluated", lambda: one.run(tuned, "evaluation", "registered_model"))
    if serve:
        step("deployed", lambda: one.deploy(deployment_spec()))
    return Chain(base, tuned, "tiny-desk@1", seconds, steps)


def main() -> None:
    """Build a chain in the folder named, or in a temporary one, and print the seconds of its steps."""
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary) / "home"
        begun = time.monotonic()
        with opened(root, POLICY) as one:
            chain = build(one)
        for name, taken in chain.seconds.items():
            print(f"{name:18} {taken:6.1f} s")
        print(f"{'in all':18} {time.monotonic() - begun:6.1f} s, with what starts and ends")
        for part, asset in (("desk", "clean_dataset"), ("desk", "splits"), *(("tuned", a) for a in TRAINING[:3])):
            taken, checks = chain.check_share(part, asset)
            print(f"{part + ' ' + asset:24} {taken:6.2f} s, its checks {checks:6.2f} s")


if __name__ == "__main__":
    main()
