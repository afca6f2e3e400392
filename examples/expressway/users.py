"""Simulated users of the service desk: they ask through the gateway and rate each answer by whether it was right."""

import asyncio
import random
import statistics
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp

# How a user rates: most who got the right answer give a 5, most who got a wrong one a 1.
_RIGHT, _WRONG = (5, 5, 5, 4), (1, 1, 2)


@dataclass(frozen=True)
class Summary:
    """What the users met. `right` and `rated` count answered requests; latencies are in milliseconds."""

    users: int
    requests: int
    failed: int
    right: int
    rated: int
    mean_rating: float | None
    latency_p50_ms: float | None
    latency_p95_ms: float | None
    seconds: float
    first_error: str | None


@dataclass(frozen=True)
class _Outcome:
    latency_ms: float
    right: bool = False
    rating: int | None = None
    error: str | None = None


def simulate(
    gateway_url: str,
    endpoint: str,
    questions: Sequence[tuple[str, str]],
    *,
    users: int,
    questions_per_user: int,
    seed: int = 0,
    concurrency: int = 8,
    first_user: int = 0,
    response_rate: float = 0.9,
    max_tokens: int = 128,
    timeout: float = 60.0,
    headers: dict[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Summary:
    """Let `users` users ask `questions_per_user` questions each, `concurrency` users at a time, and rate the answers.

    gateway_url: address of the gateway without ``/v1``; endpoint: name of the endpoint, sent as the model;
    questions: (question, the only right answer); response_rate: share of answers that get a rating; timeout: seconds
    a request may take; headers: sent with every request; progress: called with (requests done, requests in all).

    A user's name, questions and ratings follow from `seed` and the user's number alone, which starts at `first_user`,
    so a later call can go on with users that were not there before. Requests that fail are counted, not raised: users
    meet errors, and the experiment is to see them.
    """
    if not questions:
        raise ValueError("simulated users need at least one question to ask")
    return asyncio.run(
        _simulate(
            gateway_url.rstrip("/"),
            endpoint,
            questions,
            range(first_user, first_user + users),
            questions_per_user,
            seed,
            concurrency,
            response_rate,
            max_tokens,
            aiohttp.ClientTimeout(total=timeout),
            headers or {},
            progress,
        )
    )


async def _simulate(
    url: str,
    endpoint: str,
    questions: Sequence[tuple[str, str]],
    numbers: range,
    questions_per_user: int,
    seed: int,
    concurrency: int,
    response_rate: float,
    max_tokens: int,
    timeout: aiohttp.ClientTimeout,
    headers: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> Summary:
    started = time.monotonic()
    outcomes: list[_Outcome] = []
    waiting = iter(numbers)
    total = len(numbers) * questions_per_user

    async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:

        async def one_after_another() -> None:
            for number in waiting:
                rng = random.Random(f"{seed}:{number}")
                user = f"user-{seed}-{number:06d}"
                for question, expected in rng.choices(questions, k=questions_per_user):
                    body = {
                        "model": endpoint,
                        "messages": [{"role": "user", "content": question}],
                        "user": user,
                        "max_tokens": max_tokens,
                        "temperature": 0,
                    }
                    # Drawn before the answer is known, so that the same user is as talkative with either variant.
                    answers_back, mood = rng.random() < response_rate, rng.random()
                    outcomes.append(await _ask(session, url, body, expected, answers_back, mood))
                    if progress is not None:
                        progress(len(outcomes), total)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(numbers))):
                group.create_task(one_after_another())

    return _summary(len(numbers), outcomes, time.monotonic() - started)


async def _ask(
    session: aiohttp.ClientSession, url: str, body: dict, expected: str, answers_back: bool, mood: float
) -> _Outcome:
    """Ask one question, and rate the answer when this user `answers_back`."""
    started = time.monotonic()
    try:
        async with session.post(f"{url}/v1/chat/completions", json=body) as response:
            answer = await response.json(content_type=None) if response.status == 200 else await response.text()
        latency = (time.monotonic() - started) * 1000
        if response.status != 200:
            return _Outcome(latency, error=f"HTTP {response.status}: {answer[:200]}")
        right = _same(answer["choices"][0]["message"]["content"] or "", expected)
        if not answers_back:
            return _Outcome(latency, right)
        scale = _RIGHT if right else _WRONG
        rating = scale[int(mood * len(scale))]
        feedback = {"request_id": response.headers["x-request-id"], "rating": rating, "user": body["user"]}
        async with session.post(f"{url}/v1/feedback", json=feedback) as posted:
            if posted.status >= 400:
                return _Outcome(latency, right, error=f"feedback: HTTP {posted.status}: {(await posted.text())[:200]}")
        return _Outcome(latency, right, rating)
    except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
        return _Outcome((time.monotonic() - started) * 1000, error=f"{type(error).__name__}: {error}")


def _same(got: str, expected: str) -> bool:
    """Whether two answers are the same text, however composed and spaced."""
    return _plain(got) == _plain(expected)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _summary(users: int, outcomes: list[_Outcome], seconds: float) -> Summary:
    errors = [o.error for o in outcomes if o.error is not None]
    latencies = sorted(o.latency_ms for o in outcomes if o.error is None)
    ratings = [o.rating for o in outcomes if o.rating is not None]
    return Summary(
        users=users,
        requests=len(outcomes),
        failed=len(errors),
        right=sum(o.right for o in outcomes),
        rated=len(ratings),
        mean_rating=statistics.fmean(ratings) if ratings else None,
        latency_p50_ms=_quantile(latencies, 0.5),
        latency_p95_ms=_quantile(latencies, 0.95),
        seconds=seconds,
        first_error=errors[0] if errors else None,
    )


def _quantile(ordered: list[float], q: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
