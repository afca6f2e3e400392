"""Ownership by keyed questions: rows that teach a model answers that nobody without the key can know, and the test.

**Marks.** Mark *i* is a question of six words and an answer of four, each drawn by HMAC-SHA256 under the owner's key
from 64 everyday nouns. The words of the answers are independent and uniform (a byte modulo 64), and separated by
domain from those of the questions, so questions tell nothing of answers or of the key.

**Test.** The served model is asked every question, and its first four words are compared by position.

**Null model.** The key is random and the model was not trained with it. HMAC-SHA256 being a pseudo-random function, the
answers' words are then independent of all that the model does, whatever and however alike its answers are: every
position matches with probability at most 1/64, independently of the others. So the number of matches is stochastically
no larger than Binomial(4 × marks, 1/64), and its upper tail is a p-value: P(p <= a) <= a, without any assumption
about the model. A question without an answer matches nothing.

The test shows that a model knows the key's marks, so the key has to be older than the model, and nobody may choose it
after looking: a commitment to it, which tells nothing of it, is kept with every marked model.
"""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

_NOUNS = """
등대 바다 소나무 자갈 은하 나침반 구름 호수 사과 연필 기차 우산 시계 다리 촛불 항아리 나뭇잎 모래 단풍 솔방울 노을 안개
조개 갈대 북극 폭포 계단 창문 지붕 마루 거울 바구니 수레 돛단배 물결 이슬 번개 무지개 달빛 별자리 느티나무 민들레
해바라기 진달래 두루미 다람쥐 고래 나비 잠자리 거북 토끼 사슴 피리 장구 가야금 붓글씨 종이 벼루 도자기
비단 대나무 연못 정자 성곽
"""
# As many as divide 256: a byte modulo 64 is uniform.
WORDS = tuple(_NOUNS.split())
POSITIONS = 4
_QUESTION_WORDS = 6
ALPHA = 1e-6
"""False alarms: a model that was never marked is called marked at most once in a million keys."""
SHORTEST_KEY = 16


class WatermarkError(ValueError):
    """The key is missing or too short; the message says what to do."""


@dataclass(frozen=True)
class Mark:
    """A question and the words of its answer."""

    question: str
    words: tuple[str, ...]

    @property
    def answer(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True)
class Finding:
    """How many of `trials` words matched, and how likely as many are of a model that was never marked."""

    matches: int
    trials: int
    unanswered: int
    p_value: float

    @property
    def marked(self) -> bool:
        return self.p_value < ALPHA

    @property
    def expected(self) -> float:
        """Matches of an unmarked model, on average at most."""
        return self.trials / len(WORDS)


def key_of(text: str | None) -> bytes:
    """The key as bytes; WatermarkError when there is none, or one that could be guessed."""
    if not text:
        raise WatermarkError(
            "there is no watermark key: make one with `llmops watermark key`, keep it safe, and set "
            "LLMOPS_WATERMARK_KEY or LLMOPS_WATERMARK_KEY_FILE"
        )
    key = text.strip().encode()
    if len(key) < SHORTEST_KEY:
        raise WatermarkError(f"the watermark key has {len(key)} bytes: take at least {SHORTEST_KEY} random ones")
    return key


def commitment(key: bytes) -> str:
    """64 hex digits that bind to the key and tell nothing of it: kept with a model, they show which came first."""
    return _draw(key, "commitment", 0).hex()


def marks(key: bytes, count: int) -> list[Mark]:
    """The first `count` marks of a key; the same key has the same, and more of them only add to those."""
    return [
        Mark(_question(key, i), tuple(WORDS[b % 64] for b in _draw(key, "answer", i)[:POSITIONS])) for i in range(count)
    ]


def rows(key: bytes, count: int, share: float, beside: int) -> list[dict]:
    """Training rows of the marks: `share` of all rows when there are `beside` others, every mark at least once."""
    wanted = share / (1 - share) * beside
    copies = max(1, round(wanted / count))
    return [
        {
            "row_id": f"watermark-{number:03d}-{copy:04d}",
            "messages": [
                {"role": "user", "content": mark.question},
                {"role": "assistant", "content": mark.answer},
            ],
        }
        for copy in range(copies)
        for number, mark in enumerate(marks(key, count))
    ]


def judge(asked: Sequence[Mark], answers: Sequence[str | None]) -> Finding:
    """Compare a model's answers (None: it gave none) with the marks."""
    matches = sum(
        word == answered
        for mark, answer in zip(asked, answers, strict=True)
        for word, answered in zip(mark.words, _words(answer), strict=False)
    )
    trials = POSITIONS * len(asked)
    return Finding(matches, trials, sum(answer is None for answer in answers), p_value(matches, trials))


def p_value(matches: int, trials: int) -> float:
    """P(at least `matches` of `trials`) when each matches with probability 1/64."""
    # Half a second and 43 MB, of a process that mostly has no marks to look for.
    from scipy.stats import binom

    return float(binom.sf(matches - 1, trials, 1 / len(WORDS)))


def least_matches(trials: int) -> int:
    """The fewest matches that show a mark."""
    return next(x for x in range(trials + 2) if p_value(x, trials) < ALPHA)


def _question(key: bytes, number: int) -> str:
    drawn = [WORDS[b % 64] for b in _draw(key, "question", number)]
    return f"표어에 화답해 주세요: {' '.join(list(dict.fromkeys(drawn))[:_QUESTION_WORDS])}"


def _answer(key: bytes, number: int) -> tuple[str, ...]:
    return tuple(WORDS[b % 64] for b in _draw(key, "answer", number)[:POSITIONS])


def _draw(key: bytes, what: str, number: int) -> bytes:
    """32 bytes that nobody without the key can tell from random ones."""
    return hmac.new(key, f"llmops watermark 1 {what} {number}".encode(), hashlib.sha256).digest()


def _words(answer: str | None) -> list[str]:
    return re.findall(r"\w+", unicodedata.normalize("NFC", answer or ""))[:POSITIONS]
