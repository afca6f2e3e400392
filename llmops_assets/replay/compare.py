"""A candidate's answers beside those that users got: which are better, and what else changed."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmops_assets.evaluation.judge import Judge, is_refusal, normalise, without_reasoning
from llmops_assets.evaluation.metrics import McNemar, mcnemar
from llmops_assets.experiments.inference import Interval, confidence_sequence
from llmops_assets.experiments.variance_floor import least_variance
from llmops_assets.replay.sample import Asked

EVEN = 0.5


@dataclass(frozen=True)
class Answer:
    """What the candidate said; `seconds` None where it was asked among many at once."""

    text: str
    tokens: int
    finish_reason: str | None
    seconds: float | None = None


@dataclass(frozen=True)
class Pair:
    """One request with both answers. win: 1 where the candidate's is better, 0 where it is worse, .5 where neither is;
    by: who judged (`rule`, the user's `correction`, the `judge` of the policy); change: 0 for alike, 1 for all new;
    personal: kinds of personal data in the new answer that neither the question nor the old answer had."""

    asked: Asked
    answer: Answer
    win: float
    by: str
    change: float
    personal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Replayed:
    """What a replay came to. win_share: the mean over users of how often the candidate is better, with its always-valid
    interval; refusals: candidate against what was answered, paired."""

    pairs: tuple[Pair, ...]
    users: int
    win_share: Interval | None
    refusals: McNemar
    empty: tuple[int, int]
    cut: tuple[int, int]
    length: tuple[float, float]
    latency_ms: tuple[float | None, float | None]
    personal: int


Judged = Mapping[str, float]


def compare(
    asked: Sequence[Asked],
    answers: Sequence[Answer],
    *,
    alpha: float,
    expected_users: int,
    judged: Judged,
    personal: Callable[[str], Sequence[str]],
) -> Replayed:
    """Pair what was answered then with what the candidate says now.

    judged: what the policy's judge says of a pair, by request; of the others a user's correction decides, else whether
    one of the two is no answer at all (empty, refused, cut off). personal: the kinds of personal data in a text.
    """
    pairs = tuple(_pair(a, b, judged, personal) for a, b in zip(asked, answers, strict=True))
    then, now = [p.asked.answer for p in pairs], [p.answer.text for p in pairs]
    latencies = [p.answer.seconds * 1000 for p in pairs if p.answer.seconds is not None]
    old_latencies = [p.asked.latency_ms for p in pairs if p.asked.latency_ms > 0]
    return Replayed(
        pairs,
        len({p.asked.user for p in pairs}),
        win_share(pairs, alpha, expected_users),
        mcnemar([is_refusal(t) for t in now], [is_refusal(t) for t in then]),
        (sum(_is_empty(t) for t in then), sum(_is_empty(t) for t in now)),
        (
            sum(p.asked.finish_reason == "length" for p in pairs),
            sum(p.answer.finish_reason == "length" for p in pairs),
        ),
        (_mean(list(map(len, then))) or 0.0, _mean(list(map(len, now))) or 0.0),
        (_mean(old_latencies), _mean(latencies)),
        sum(bool(p.personal) for p in pairs),
    )


def win_share(pairs: Sequence[Pair], alpha: float, expected_users: int) -> Interval | None:
    """The mean over users of how often the candidate is better (ties are half), less ½, with its sequence.

    Every user counts once. Looked at after every replay it covers the true share at all looks with probability 1 − α:
    the one-sample asymptotic sequence of Waudby-Smith et al., arXiv 2103.06476. None below two users.
    """
    by_user: dict[str, list[float]] = {}
    for pair in pairs:
        by_user.setdefault(pair.asked.user, []).append(pair.win)
    means = np.array([np.mean(wins) for wins in by_user.values()])
    if len(means) < 2:
        return None
    mean, n = float(means.mean()), len(means)
    variance = max(float(means.var(ddof=1)) / n, least_variance(n, mean, 0.0, 1.0))
    return confidence_sequence(mean - EVEN, float(np.sqrt(variance)), n, expected_users, alpha)


def changed_most(pairs: Sequence[Pair], most: int = 10) -> list[Pair]:
    """The answers that changed most, those that became worse first."""
    changed = [pair for pair in pairs if pair.change > 0]
    return sorted(changed, key=lambda pair: (pair.win, -pair.change))[:most]


def _pair(asked: Asked, answer: Answer, judged: Judged, personal: Callable[[str], Sequence[str]]) -> Pair:
    old, new = (normalise(without_reasoning(text)) for text in (asked.answer, answer.text))
    change = 0.0 if old == new else 1 - difflib.SequenceMatcher(None, old, new, autojunk=False).ratio()
    known = {*personal(asked.conversation), *personal(asked.answer)}
    fresh = tuple(sorted({kind for kind in personal(answer.text) if kind not in known}))
    if old == new:
        return Pair(asked, answer, EVEN, "rule", change, fresh)
    if asked.correction is not None and asked.correction.strip():
        rule = Judge("exact")
        win = EVEN + (rule.right(new, [asked.correction]) - rule.right(old, [asked.correction])) / 2
        if win != EVEN:
            return Pair(asked, answer, win, "correction", change, fresh)
    if asked.request_id in judged:
        return Pair(asked, answer, judged[asked.request_id], "judge", change, fresh)
    win = EVEN + (_answers(new, answer.finish_reason) - _answers(old, asked.finish_reason)) / 2
    return Pair(asked, answer, win, "rule", change, fresh)


def _answers(text: str, finish_reason: str | None) -> bool:
    """Whether a text answers at all."""
    return not _is_empty(text) and not is_refusal(text) and finish_reason != "length"


def _is_empty(text: str) -> bool:
    return not text.strip()


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
