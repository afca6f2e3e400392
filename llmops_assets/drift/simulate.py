"""Invented traffic of users who differ from each other: how often is an alarm false, and a change noticed?"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from llmops_assets.drift.window import Window, thinned

_TOPICS = (
    "통행료 영수증 요금 카드 결제 환불",
    "하이패스 단말기 등록 분실 배터리 교체",
    "휴게소 주유소 화장실 식당 주차 위치",
    "사고 정체 우회 차로 통제 견인",
)
_ENDINGS = ("어떻게 하나요", "얼마인가요", "알려 주세요", "가능한가요", "where is it", "please help")
_START = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Change:
    """What is otherwise than in stable traffic; by default nothing."""

    words: float = 1.0
    """Words of a question, as a factor."""
    topic: float = 0.0
    """Share of the questions that is about the last topic whatever the user cares for."""
    refusals: float = 0.03
    latency: float = 1.0
    rating: float = 0.0


def window(rng: np.random.Generator, users: int, change: Change | None = None, *, per_user: int = 10) -> Window:
    """A week of requests: users come with Pareto numbers of them, topics, lengths, speeds and tastes of their own."""
    change = change or Change()
    counts = np.minimum(1 + rng.pareto(1.2, users).astype(int), 500)
    who = np.repeat(np.arange(users), counts)
    n = len(who)
    names = rng.integers(0, 10**9, users)
    taste = rng.dirichlet(np.full(len(_TOPICS), 0.4), users)
    topic = np.array([rng.choice(len(_TOPICS), p=taste[user]) for user in who])
    topic = np.where(rng.random(n) < change.topic, len(_TOPICS) - 1, topic)
    length = np.maximum(1, rng.poisson(change.words * (2 + 3 * rng.random(users))[who]))
    questions = [_question(rng, topic[i], length[i]) for i in range(n)]
    refused = rng.random(n) < _own(rng, change.refusals, users)[who]
    answers = np.where(refused, "죄송하지만 도와드릴 수 없습니다.", "네, 안내해 드리겠습니다.")
    level = 3.6 + change.rating + rng.normal(0, 0.8, users)[who] + rng.normal(0, 1, n)
    rating = np.clip(np.rint(level), 1, 5).astype(int)
    is_rated = rng.random(n) < _own(rng, 0.3, users)[who]
    failed = rng.random(n) < _own(rng, 0.01, users)[who]
    frame = pl.DataFrame(
        {
            "request_id": [f"{rng.integers(2**60)}-{i}" for i in range(n)],
            "at": [_START + timedelta(seconds=float(s)) for s in np.sort(rng.random(n) * 7 * 86400)],
            "model_ref": ["desk@1"] * n,
            "user": [f"u{names[user]}" for user in who],
            "query": questions,
            "response": [None if f else str(a) for a, f in zip(answers, failed, strict=True)],
            "status": np.where(failed, 502, 200),
            "source": ["model"] * n,
            "latency_ms": 400 * change.latency * np.exp(rng.normal(0, 0.4, users)[who] + rng.normal(0, 0.5, n)),
            "finish_reason": np.where(rng.random(n) < _own(rng, 0.02, users)[who], "length", "stop"),
            "rating": [int(r) if given else None for r, given in zip(rating, is_rated, strict=True)],
        },
        schema_overrides={"rating": pl.Int64, "response": pl.String},
    )
    return Window(_START, _START + timedelta(days=7), thinned(frame, per_user))


def training(rng: np.random.Generator, rows: int) -> tuple[list[str], list[str | None]]:
    """Questions of the same users, one each, with their topics as categories."""
    topic = rng.integers(0, len(_TOPICS), rows)
    length = np.maximum(1, rng.poisson(2 + 3 * rng.random(rows)))
    return [_question(rng, t, n) for t, n in zip(topic, length, strict=True)], [f"topic {t}" for t in topic]


def _question(rng: np.random.Generator, topic: int, length: int) -> str:
    words = _TOPICS[topic].split()
    chosen = " ".join(words[i] for i in rng.integers(0, len(words), length))
    return f"{chosen} {_ENDINGS[rng.integers(0, len(_ENDINGS))]}"


def _own(rng: np.random.Generator, share: float, users: int) -> np.ndarray:
    """A share of each user's own around a common one."""
    return rng.beta(3 * share, 3 * (1 - share), users)
