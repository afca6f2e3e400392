"""Users of a desk: each asks through the gateway, knows what would have been right, and rates by it in an own way."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aiohttp

AT_ONCE = 12


@dataclass
class Asked:
    """What a group of users met: requests, those that were answered rightly, and answers that somebody corrected."""

    requests: int = 0
    right: int = 0
    failed: int = 0
    corrections: int = 0


def ask(
    url: str,
    endpoint: str,
    right: Mapping[str, str],
    users: Sequence[int],
    *,
    requests: int = 3,
    correcting: float = 0.0,
) -> Asked:
    """Let `users` ask `requests` questions each and rate every answer at once.

    right: the right answer of each question. Who got it gives four or five, who didn't one or two, and a third of the
    users is harsher than that and a third milder. correcting: the share of wrong answers whose right one users write.
    Questions, tempers and ratings follow from a user's number.
    """
    return asyncio.run(_ask(url, endpoint, right, users, requests, correcting))


async def _ask(
    url: str, endpoint: str, right: Mapping[str, str], users: Sequence[int], requests: int, correcting: float
) -> Asked:
    found, waiting = Asked(), iter(users)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as session:

        async def visits() -> None:
            for number in waiting:
                rng = random.Random(number)
                temper = rng.choice((-1, 0, 1))
                for question in rng.sample(sorted(right), requests):
                    await _one(session, question, rng, temper, f"user-{number}")

        async def _one(
            session: aiohttp.ClientSession, question: str, rng: random.Random, temper: int, user: str
        ) -> None:
            body = {"model": endpoint, "messages": [{"role": "user", "content": question}], "user": user}
            found.requests += 1
            async with session.post(f"{url}/v1/chat/completions", json=body) as response:
                answer = await response.json()
                if response.status != 200:
                    found.failed += 1
                    return
            is_right = answer["choices"][0]["message"]["content"] == right[question]
            found.right += is_right
            rating = min(5, max(1, rng.choice((4, 5) if is_right else (1, 2)) + temper))
            given = {"request_id": response.headers["x-request-id"], "rating": rating, "user": user}
            if rng.random() < correcting and not is_right:
                given["correction"] = right[question]
                found.corrections += 1
            async with session.post(f"{url}/v1/feedback", json=given) as posted:
                assert posted.status == 201, await posted.text()

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(users))):
                group.create_task(visits())
    return found
