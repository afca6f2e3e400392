"""Answers that are given again: only to the very same request of the same caller, and only whole ones."""

import asyncio
import time

import pytest
import redis
from openai import APIStatusError, omit

from images.gateway.caching.kept import Kept, is_complete
from images.gateway.caching.stores import Memory, Shared
from llmops_assets.specs.cache import Cache
from resources.encryption import Keyring, new_key
from tests.gateway.desk import Desk, running_gateway
from tests.gateway.redis_server import RedisServer
from tests.serving.conftest import until


@pytest.fixture(scope="module")
def cached(desk: Desk) -> Desk:
    desk.serve("cached", cache={"ttl_seconds": 600})
    desk.serve("sampled", cache={"sampled": True})
    desk.serve("brief", cache={"ttl_seconds": 1})
    desk.serve("few", cache={"max_entries": 2})
    desk.serve("masked", cache={}, guards={"output": {"personal_data": {}}})
    desk.serve("plain")
    return desk


def ask(desk: Desk, content: str, model: str = "cached", **more):
    """The raw response; greedy unless `more` says otherwise."""
    more = {"temperature": 0, "user": "kim", **more}
    return desk.client().chat.completions.with_raw_response.create(
        model=model, messages=[{"role": "user", "content": content}], **more
    )


def outcomes(desk: Desk, content: str, times: int = 2, **more) -> list[str | None]:
    return [ask(desk, content, **more).headers.get("x-cache") for _ in range(times)]


def test_the_same_request_is_answered_again_without_the_model(cached: Desk) -> None:
    cached.script.pieces = [["같은 답"]]
    first, second = ask(cached, "같은 질문"), ask(cached, "같은 질문")
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert len(cached.script.asked) == 1
    one, two = first.parse(), second.parse()
    assert two.choices[0].message.content == one.choices[0].message.content == "같은 답"
    assert second.headers["x-request-id"] in two.id and first.headers["x-request-id"] not in two.id
    rows = [cached.exposure(r.headers["x-request-id"]) for r in (first, second)]
    assert [row["source"] for row in rows] == ["model", "cache"]


def test_a_stream_is_replayed_as_a_stream(cached: Desk) -> None:
    cached.script.pieces = [["나", "누", "어"]]
    texts = []
    for _ in range(2):
        events = ask(cached, "흘려 줘", stream=True).parse()
        texts.append([e.choices[0].delta.content for e in events if e.choices and e.choices[0].delta.content])
    assert texts == [["나", "누", "어"]] * 2 and len(cached.script.asked) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"user": "lee"}, {"max_tokens": 5}, {"seed": 1}, {"stop": ["x"]}, {"top_p": 0.5}, {"n": 1}, {"stream": True},
        {"response_format": {"type": "json_object"}}, {"extra_body": {"top_k": 3}}, {"model": "masked"},
        {"tools": [{"type": "function", "function": {"name": "f"}}]}, {"presence_penalty": 1.0},
    ],
)  # fmt: skip
def test_whatever_alters_an_answer_alters_the_key(cached: Desk, other: dict) -> None:
    question = f"열쇠 {sorted(other)}"
    assert outcomes(cached, question) == ["miss", "hit"]
    assert outcomes(cached, question, **other) == ["miss", "hit"]
    assert outcomes(cached, question, times=1) == ["hit"]


def test_what_a_model_never_reads_is_not_part_of_it(cached: Desk) -> None:
    assert outcomes(cached, "메타데이터", times=1, metadata={"a": "1"}) == ["miss"]
    assert outcomes(cached, "메타데이터", times=1, metadata={"b": "2"}, store=True) == ["hit"]


def test_another_model_is_asked_anew(cached: Desk) -> None:
    cached.serve("moved", cache={})
    assert outcomes(cached, "누구세요", model="moved") == ["miss", "hit"]
    cached.serve("moved", model_ref="desk@2", cache={})
    assert outcomes(cached, "누구세요", model="moved") == ["miss", "hit"]


def test_errors_and_cut_answers_are_never_kept(cached: Desk) -> None:
    cached.script.finish = "length"
    assert outcomes(cached, "잘린 답") == ["miss", "miss"]
    assert outcomes(cached, "잘린 흐름", times=1, stream=True) == ["miss"]
    ask(cached, "잘린 흐름", stream=True).parse()
    assert len(cached.script.asked) == 4
    cached.script.fail = 500
    for _ in range(2):
        with pytest.raises(APIStatusError):
            ask(cached, "오류")
    cached.script.fail = None
    cached.script.finish = "stop"
    assert outcomes(cached, "오류") == ["miss", "hit"]


def test_a_stream_that_broke_off_is_not_kept(cached: Desk) -> None:
    cached.script.broken = True
    for _ in range(2):
        with pytest.raises(Exception):  # noqa: B017  the client's error depends on where it broke
            list(ask(cached, "끊긴 흐름", stream=True).parse())
    assert len(cached.script.asked) == 2


def test_a_client_that_leaves_leaves_nothing_behind(cached: Desk) -> None:
    cached.script.endless = True
    stream = ask(cached, "떠난 손님", stream=True).parse()
    next(stream)
    stream.close()
    until(lambda: cached.script.cancelled)
    cached.script.endless = False
    assert outcomes(cached, "떠난 손님", times=1, stream=True) == ["miss"]


def test_sampled_answers_are_kept_only_where_the_spec_says_so(cached: Desk) -> None:
    assert outcomes(cached, "주사위", temperature=0.7) == ["bypass", "bypass"]
    assert outcomes(cached, "주사위", temperature=0.7, seed=3) == ["miss", "hit"]
    assert outcomes(cached, "주사위", model="sampled", temperature=0.7) == ["miss", "hit"]
    assert outcomes(cached, "온도 없음", temperature=omit) == ["bypass", "bypass"], "a model's own may be any"


def test_a_client_may_ask_for_a_fresh_answer(cached: Desk) -> None:
    assert outcomes(cached, "새 답") == ["miss", "hit"]
    assert outcomes(cached, "새 답", times=1, extra_headers={"Cache-Control": "no-cache"}) == ["miss"]
    assert outcomes(cached, "비밀", extra_headers={"Cache-Control": "no-store"}) == ["bypass", "bypass"]
    assert outcomes(cached, "비밀", times=1) == ["miss"]


def test_answers_end_with_their_time(cached: Desk) -> None:
    assert outcomes(cached, "잠깐", model="brief") == ["miss", "hit"]
    until(lambda: outcomes(cached, "잠깐", times=1, model="brief") == ["miss"])


def test_the_oldest_go_where_there_are_too_many(cached: Desk) -> None:
    for question in "가나다":
        assert outcomes(cached, question, times=1, model="few") == ["miss"]
    assert outcomes(cached, "다", times=1, model="few") == ["hit"]
    assert outcomes(cached, "가", times=1, model="few") == ["miss"]


def test_an_endpoint_without_a_cache_has_none(cached: Desk) -> None:
    assert outcomes(cached, "없음", model="plain") == [None, None]
    assert len(cached.script.asked) == 2


def test_guards_look_at_what_is_kept_too(cached: Desk) -> None:
    cached.script.pieces = [["번호는 010-1234-5678"]]
    answers = [ask(cached, "번호?", model="masked").parse().choices[0].message.content for _ in range(2)]
    assert answers == ["번호는 [전화번호]"] * 2


def kept(text: str = "답", id: str = "req-" + "0" * 32) -> Kept:
    return Kept(id, text.encode(), None, "application/json", {})


def test_memory_is_bounded_in_bytes_over_all_endpoints() -> None:
    asyncio.run(_memory_is_bounded())


async def _memory_is_bounded() -> None:
    store, cache = Memory(most_bytes=1000), Cache()
    for number in range(20):
        await store.put(f"e{number % 3}", str(number), kept("x" * 100), cache)
    found = [number for number in range(20) if await store.get(f"e{number % 3}", str(number))]
    assert found == list(range(10, 20))


def test_the_shared_store_keeps_answers_sealed_and_within_its_bounds(redis_server: RedisServer) -> None:
    asyncio.run(_shared_store_is_sealed(redis_server))


async def _shared_store_is_sealed(redis_server: RedisServer) -> None:

    store = Shared(redis_server.url, Keyring.parse(new_key()))
    cache = Cache(max_entries=2, ttl_seconds=60)
    for key in ("k1", "k2", "k3"):
        await store.put("desk", key, kept("비밀스러운 답"), cache)
    assert [await store.get("desk", key) is not None for key in ("k1", "k2", "k3")] == [False, True, True]
    assert await store.get("other", "k3") is None
    client = redis.Redis.from_url(redis_server.url)
    values = [client.get(name) for name in client.keys("llmops:cache:desk:k*")]
    assert len(values) == 2 and not any("비밀".encode() in value for value in values)
    assert 0 < client.ttl("llmops:cache:desk:k3") <= 60
    await store.close()
    other = Shared(redis_server.url, Keyring.parse(new_key()))
    assert await other.get("desk", "k3") is None, "sealed with a key that this one has not"
    await other.close()


def test_two_gateways_share_answers_and_go_on_without_their_store(
    cached: Desk, redis_server: RedisServer, tmp_path
) -> None:
    settings = {"gateway_store_url": redis_server.url, "encryption_key": new_key()}
    with (
        running_gateway(tmp_path, cached.catalog, **settings) as one,
        running_gateway(tmp_path, cached.catalog, **settings) as two,
    ):
        desks = [Desk(cached.catalog, cached.script, cached.upstream, gateway) for gateway in (one, two)]
        assert outcomes(desks[0], "나눈 답", times=1) == ["miss"]
        assert outcomes(desks[1], "나눈 답", times=1) == ["hit"]
        redis_server.kill()
        try:
            begun = time.monotonic()
            assert outcomes(desks[1], "나눈 답", times=3) == ["miss"] * 3
            assert time.monotonic() - begun < 15
        finally:
            redis_server.start()


def test_only_whole_answers_are_whole() -> None:
    done = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    assert is_complete(None, [done], 1)
    assert not is_complete(None, [done], 2), "one of two choices"
    assert not is_complete(None, [done[:-14]], 1), "no end mark"
    assert not is_complete(None, [b'data: {"error":{"message":"x"}}\n\n' + done], 1)
    assert not is_complete(b'{"choices":[{"finish_reason":"content_filter"}]}', None, 1)
    assert not is_complete(b"not json", None, 1)
