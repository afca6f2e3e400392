"""Limits hold exactly: in one process by its memory, in many by a real Redis, at the edge, over faults of the clock."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable

import pytest

from images.gateway.errors import ApiError
from images.gateway.limits.counted import Budget, Rate, StoreAway
from images.gateway.limits.limiter import Limiter
from images.gateway.limits.local import LocalCounter
from images.gateway.limits.shared import SharedCounter
from tests.gateway.redis_server import RedisServer

MONTH = "2026-11"


class Clock:
    def __init__(self, at: float = 1000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def with_store(server: RedisServer, work: Callable[..., Awaitable[None]], workers: int = 1, **options) -> None:
    """Run `work` with the counters of so many workers over one store."""

    async def run() -> None:
        prefix = uuid.uuid4().hex
        counters = [SharedCounter(server.url, prefix=prefix, **options) for _ in range(workers)]
        for counter in counters:
            await counter.open()
        try:
            await work(*counters)
        finally:
            for counter in counters:
                await counter.close()

    asyncio.run(run())


def budget(limit: int, *, used: int = 0, reserved: int = 1, month: str = MONTH) -> Budget:
    return Budget("key", month, limit, used, reserved)


# in one process


def test_within_any_minute_there_are_never_more_than_the_limit():
    clock = Clock(1000.4)
    counter = LocalCounter(clock)
    times = []
    while clock.at < 1240:
        if counter.counted([Rate("a", 7)])[0].allowed:
            times.append(clock.at)
        clock.at += 0.37
    assert len(times) >= 21
    for start in times:
        assert sum(start <= at < start + 60 for at in times) <= 7


def test_who_waits_as_long_as_is_said_is_let_in():
    clock = Clock(1000.9)
    counter = LocalCounter(clock)
    for _ in range(3):
        assert counter.counted([Rate("a", 3)])[0].allowed
        clock.at += 5
    refused = counter.counted([Rate("a", 3)])[0]
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert 0 < refused.retry_after <= 60 < refused.retry_after + 16
    clock.at += refused.retry_after
    assert counter.counted([Rate("a", 3)])[0].allowed


def test_what_one_rate_refuses_counts_under_no_other():
    counter = LocalCounter(Clock())
    for _ in range(2):
        counter.counted([Rate("address", 100), Rate("key", 2)])
    for _ in range(5):
        found = counter.counted([Rate("address", 100), Rate("key", 2)])
        assert [one.allowed for one in found] == [True, False]
    assert counter.counted([Rate("address", 100)])[0].remaining == 97


def test_names_that_do_not_come_again_are_forgotten():
    clock = Clock()
    counter = LocalCounter(clock)
    for number in range(1000):
        counter.counted([Rate(f"address-{number}", 5)])
    clock.at += 200
    counter.counted([Rate("one", 5)])
    assert counter._windows.keys() == {"one"}


def test_a_budget_is_passed_by_the_last_answer_at_most():
    counter = LocalCounter()
    places = [counter.entered("desk", 100, budget(1000, reserved=300)) for _ in range(6)]
    assert [p.refused for p in places] == [None] * 4 + ["budget"] * 2
    for _ in range(4):
        counter.leave("p", "desk", budget(1000, reserved=300), 100)
    assert counter.entered("desk", 100, budget(1000)).used == 400


def test_a_budget_starts_at_what_the_ledger_knows_and_anew_each_month():
    counter = LocalCounter()
    assert counter.entered("desk", 10, budget(1000, used=1000)).refused == "budget"
    assert counter.entered("desk", 10, budget(1000, month="2026-12")).refused is None
    counter.leave("p", "desk", budget(1000), 5000)
    assert counter.entered("desk", 10, budget(1000, month="2026-12")).used == 0


def test_places_are_given_back():
    counter = LocalCounter()
    assert [counter.entered("desk", 2, None).refused for _ in range(3)] == [None, None, "busy"]
    counter.leave("p", "desk", None, 0)
    assert counter.entered("desk", 2, None).refused is None
    assert counter.entered("other", 1, None).refused is None


# in many


def test_of_parallel_requests_to_several_workers_exactly_the_limit_passes(redis_server):
    async def work(*counters: SharedCounter) -> None:
        asked = [counters[n % 3].count([Rate("address", 100), Rate(f"key-{n % 2}", 60)]) for n in range(400)]
        found = await asyncio.gather(*asked)
        assert sum(all(one.allowed for one in each) for each in found) == 100
        refused = next(each for each in found if not each[0].allowed)
        assert refused[0].remaining == 0 and 0 < refused[0].retry_after <= 61
        assert (await counters[0].count([Rate("other", 5)]))[0].remaining == 4

    with_store(redis_server, work, workers=3)


def test_places_and_budgets_are_one_for_all_workers(redis_server):
    async def work(*counters: SharedCounter) -> None:
        tokens = budget(1000, used=300, reserved=100)
        entered = await asyncio.gather(*(counters[n % 2].enter(f"p{n}", "desk", 5, tokens) for n in range(12)))
        assert sorted(p.refused or "" for p in entered) == [""] * 5 + ["busy"] * 7
        given = [n for n, p in enumerate(entered) if p.refused is None]
        for n in given:
            counters[n % 2].leave(f"p{n}", "desk", tokens, 150)
        places = [await counters[n % 2].enter(f"q{n}", "desk", 50, budget(1100, used=300)) for n in range(50)]
        # 300 + 5 × 150 are used, each of these reserves one of the fifty that are left.
        assert places[0].used == 1050
        assert [p.refused for p in places] == [None] * 50
        assert (await counters[0].enter("r", "desk", 99, budget(1100))).refused == "budget"

    with_store(redis_server, work, workers=2)


def test_the_places_of_a_killed_worker_come_back_and_those_of_a_living_one_do_not(redis_server):
    async def work(dead: SharedCounter, living: SharedCounter, third: SharedCounter) -> None:
        assert (await dead.enter("p", "desk", 2, budget(1000, reserved=900))).refused is None
        assert (await living.enter("p", "desk", 2, None)).refused is None
        assert (await third.enter("p", "desk", 2, None)).refused == "busy"
        for task in dead._tasks:
            task.cancel()
        found = []
        async with asyncio.timeout(20):
            while (place := await third.enter("p", "desk", 2, budget(1000, reserved=900))).refused:
                found.append(place.refused)
                await asyncio.sleep(0.05)
        assert len(found) > 5
        assert (await third.enter("q", "desk", 2, None)).refused == "busy"

    with_store(redis_server, work, workers=3, lease=1.0)


def test_a_client_that_leaves_while_it_asks_leaves_no_place_behind(redis_server):
    async def work(counter: SharedCounter) -> None:
        asking = asyncio.create_task(counter.enter("p", "desk", 1, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (await counter.enter("q", "desk", 1, None)).refused is None

    with_store(redis_server, work)


def test_counts_of_a_clock_that_was_set_back_do_not_stay_for_ever(redis_server):
    async def work(counter: SharedCounter) -> None:
        client = counter._client
        seconds, _ = await client.time()
        await client.hset(f"{counter.prefix}rate:a", str(seconds + 86_400), 100)
        await client.zadd(f"{counter.prefix}places:desk", {"of-another-time": seconds + 86_400})
        assert (await counter.count([Rate("a", 100)]))[0].remaining == 99
        assert (await counter.enter("p", "desk", 1, None)).refused is None

    with_store(redis_server, work)


def test_a_store_that_is_gone_holds_no_request_up_and_is_used_again_when_it_is_back(tmp_path):
    server = RedisServer(tmp_path)

    async def work(counter: SharedCounter) -> None:
        limiter = Limiter(counter, on_failure="open")
        strict = Limiter(counter, on_failure="closed")
        _, leave = await limiter.enter("p", "desk", 1, None)
        assert (await limiter.count([Rate("a", 2)]))[0].remaining == 1
        server.kill()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        # By itself the worker counts again from nothing.
        found = [(await limiter.count([Rate("a", 2)]))[0].allowed for _ in range(3)]
        assert found == [True, True, False]
        assert loop.time() - begun < 2
        assert "each worker counts by itself" in limiter.fault
        with pytest.raises(ApiError) as refused:
            await strict.count([Rate("a", 2)])
        assert (refused.value.status, refused.value.code) == (503, "limits_unavailable")
        assert "requests are refused" in strict.fault
        with pytest.raises(StoreAway):
            await counter.count([Rate("a", 2)])
        away, leave_away = await limiter.enter("q", "desk", 1, None)
        assert away.refused is None
        server.start()
        async with asyncio.timeout(20):
            while limiter.fault is not None:
                await asyncio.sleep(0.05)
        # It lost its memory, and knows of the two that are in flight all the same.
        assert (await counter.enter("r", "desk", 2, None)).refused == "busy"
        leave(0)
        leave_away(0)
        assert (await counter.enter("r", "desk", 1, None)).refused is None

    try:
        with_store(server, work)
    finally:
        server.kill()


def test_a_store_that_accepts_and_never_answers_is_away_after_half_a_second():
    async def run() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        counter = SharedCounter(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        async with asyncio.timeout(10):
            await counter.open()
            assert counter.fault is not None
            with pytest.raises(StoreAway):
                await counter.count([Rate("a", 2)])
            await counter.close()
        server.close()

    asyncio.run(run())
