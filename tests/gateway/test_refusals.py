"""Every request is on record: what reached a model as an exposure, and what did not with the reason for it."""

import asyncio
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from images.gateway import refusals as gateway_refusals
from images.gateway.call import Identity
from images.gateway.refusals import EACH_A_MINUTE, Refusals
from resources.catalog import Catalog
from resources.encryption import NO_KEYS
from resources.traffic.entries import Embedded, Rating, Refusal, now
from resources.traffic.shipper import Shipper
from resources.traffic.spool import Spool
from tests.gateway.desk import Script, running_gateway
from tests.gateway.model import ask
from tests.serving.conftest import Upstream, backend, deployment_spec, until
from tests.serving.test_spool import exposure

LONG = {"messages": [{"role": "user", "content": "비밀번호는 hunter2 " * 40}]}
DAY = datetime(2026, 11, 30, tzinfo=UTC)


def recorded(catalog: Catalog) -> Counter[tuple[str, str, str, int]]:
    """How many requests are on record as refused, by endpoint, key, reason and status."""
    rows = catalog.refusals.by(["endpoint", "key", "reason", "status"])
    return Counter({(r["endpoint"], r["key"], r["reason"], r["status"]): r["requests"] for r in rows})


def test_what_is_refused_is_on_record_with_its_reason_and_without_a_word(catalog: Catalog, model, start_gateway):
    guards = {"input": {"injection": {"action": "refuse"}, "length": {"max_characters": 200}}}
    catalog.want_endpoint(deployment_spec("desk", guards=guards))
    catalog.want_endpoint(deployment_spec("empty"))
    made = {
        name: catalog.api_keys.create(name, owner="lee", role="viewer", team="red", **more)
        for name, more in {
            "plain": {"requests_per_minute": 500},
            "hasty": {"requests_per_minute": 1},
            "spent": {"requests_per_minute": 500, "monthly_tokens": 1},
            "other": {"requests_per_minute": 500, "endpoints": ["other"]},
        }.items()
    }
    ids, secrets = {n: key.id for n, (key, _) in made.items()}, {n: secret for n, (_, secret) in made.items()}
    gateway = start_gateway(LLMOPS_GATEWAY_ACCESS="on")
    assert ask(gateway.url, secrets["plain"]).status_code == 200
    expected: Counter[tuple[str, str, str, int]] = Counter()
    refused_ids = set()
    for who, more, endpoint, reason, status in [
        ("plain", {"temperature": "hot"}, "desk", "invalid_request_error", 400),
        (
            "plain",
            {"messages": [{"role": "user", "content": "비밀번호는 hunter2 " * 40}]},
            "desk",
            "content_filter",
            400,
        ),
        ("plain", {"model": "nowhere-hunter2"}, "", "model_not_found", 404),
        ("plain", {"model": "empty"}, "empty", "not_ready", 503),
        ("other", {}, "desk", None, 403),
        ("spent", {}, "desk", "insufficient_quota", 429),
        ("hasty", {}, "", "rate_limit_exceeded", 429),
    ]:
        if who in ("hasty", "spent"):
            assert ask(gateway.url, secrets[who]).status_code == 200
        answer = ask(gateway.url, secrets[who], **more)
        assert answer.status_code == status, answer.text
        error = answer.json()["error"]
        assert reason in (None, error["code"], error["type"])
        expected[endpoint, ids[who], error["code"] or error["type"], status] += 1
        refused_ids.add(answer.headers["x-request-id"])
    until(lambda: sum(recorded(catalog).values()) == sum(expected.values()))
    assert recorded(catalog) == expected
    rows = catalog.refusals.all()
    assert {row["id"] for row in rows} == refused_ids
    assert "hunter2" not in json.dumps([[str(value) for value in row.values()] for row in rows])
    assert catalog.request_count(endpoint="desk") == 3
    ledger = {row["key"]: row for row in catalog.usage.by(["key"])}
    assert (ledger[ids["plain"]]["requests"], ledger[ids["plain"]]["refused"]) == (1, 4)
    assert (ledger[ids["hasty"]]["requests"], ledger[ids["hasty"]]["refused"]) == (1, 1)
    assert (ledger[ids["spent"]]["requests"], ledger[ids["spent"]]["refused"]) == (1, 1)


def test_strangers_who_try_by_the_thousand_take_a_row_a_minute(catalog: Catalog, model, start_gateway):
    catalog.api_keys.create("one", owner="lee", role="viewer")
    gateway = start_gateway(LLMOPS_GATEWAY_ACCESS="on")
    with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
        statuses = Counter(
            pool.map(
                lambda n: (
                    client.post(
                        f"{gateway.url}/v1/chat/completions", headers={"Authorization": f"Bearer llm-{n}"}, json={}
                    ).status_code
                ),
                range(400),
            )
        )
    assert set(statuses) <= {401, 429} and sum(statuses.values()) == 400
    until(lambda: sum(recorded(catalog).values()) == 400)
    found = recorded(catalog)
    assert {key[3] for key in found} == set(statuses) and {key[:2] for key in found} == {("", "")}
    # Two reasons, and the turn of a minute may have come between.
    assert len(catalog.refusals.all()) <= 4


def test_all_requests_are_on_record_after_a_kill(tmp_path: Path, catalog: Catalog):
    script = Script()
    upstream = Upstream(script.app())
    catalog.add_backend(backend("desk-1", endpoint="desk", model_ref="desk@1", url=upstream.url, engine="vllm"))
    catalog.want_endpoint(deployment_spec("desk", engine="vllm"))
    catalog.set_routes("desk", [{"backend_id": "desk-1", "model_ref": "desk@1", "weight": 1.0}], "tests")
    asked = 240
    try:
        with running_gateway(tmp_path, catalog) as gateway:

            def send(number: int) -> int:
                body: dict = {"model": "desk", "messages": [{"role": "user", "content": "안녕"}]}
                body |= {"temperature": "hot"} if number % 2 else {}
                return client.post(f"{gateway.url}/v1/chat/completions", json=body).status_code

            with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
                assert Counter(pool.map(send, range(asked))) == {200: asked // 2, 400: asked // 2}
            ended = time.monotonic()
            # What is counted is given on every second, and spooled a moment later.
            until(lambda: time.monotonic() > ended + gateway_refusals._SUM_SECONDS + 0.3)
            gateway.process.kill()
            gateway.process.wait()
        with running_gateway(tmp_path, catalog):
            until(lambda: catalog.request_count(endpoint="desk") + sum(recorded(catalog).values()) >= asked)
    finally:
        upstream.stop()
    assert catalog.request_count(endpoint="desk") == asked // 2
    assert recorded(catalog) == {("desk", "", "invalid_request_error", 400): asked // 2}
    assert catalog.missing_entries("desk", now() - timedelta(hours=1), now()) == {}


def call(reason: str | None, *, key: str | None = None, status: int = 429) -> SimpleNamespace:
    identity = Identity(key=key, team="red" if key else None)
    return SimpleNamespace(refusal=reason, endpoint=None, caller=identity, status=status, request_id="req-1")


@pytest.mark.parametrize(("knows_callers", "key", "each"), [(True, None, 0), (True, "k1", 60), (False, None, 60)])
def test_of_very_many_alike_the_first_are_recorded_each_unless_strangers_send_them(
    knows_callers: bool, key: str | None, each: int
):
    put: list[Refusal] = []

    async def flood() -> None:
        refusals = Refusals(put.append, knows_callers=lambda: knows_callers)
        for _ in range(1000):
            refusals.note(call("busy", key=key))
        refusals.note(call(None, key=key, status=499))
        refusals.note(call(None, key=key, status=500))
        refusals.flush()
        refusals.flush()

    asyncio.run(flood())
    assert EACH_A_MINUTE == 60
    counted: Counter[str] = Counter()
    for one in put:
        counted[one.reason] += one.requests
    assert counted == {"busy": 1000, "client_left": 1, "internal_error": 1}
    busy = [one for one in put if one.reason == "busy"]
    # A minute may have turned meanwhile.
    assert sum(not one.is_sum for one in busy) in (each, 2 * each) and sum(one.is_sum for one in busy) in (1, 2)


def refusal(number: int, *, at: datetime = DAY, **more) -> Refusal:
    values = {"endpoint": "desk", "reason": "busy", "status": 429, "key": "k1"} | more
    return Refusal(request_id=f"req-{number}", at=at, **values)


def test_what_is_shipped_twice_is_counted_once_and_a_gap_is_seen(tmp_path: Path, catalog: Catalog):
    root, at = tmp_path / "spool", DAY + timedelta(hours=1)
    spool = Spool(root, NO_KEYS)
    kept = []
    entries = [exposure(1, at=at), refusal(2), refusal(0, requests=700, is_sum=True), Rating("e", "req-1", at, 5)]
    entries += [refusal(0, requests=30, is_sum=True), refusal(3, endpoint=""), exposure(4, at=at)]
    used = Embedded(DAY, "desk", "encoder@1", "k1", "t", requests=40, failed=1, prompt_tokens=400, estimated_tokens=9)
    entries[3:3] = [used, Embedded(DAY, "desk", "encoder@1", "", "", requests=1, prompt_tokens=5)]
    entries.insert(-1, Embedded(DAY, "desk", "encoder@1", "k1", "t", requests=2, prompt_tokens=20))
    for entry in entries:
        spool.append(entry)
        assert spool.flush()
        kept.append((spool.folder / "1.log").read_bytes())
    for known in (None, "shipped"):
        if known is not None:
            (spool.folder / known).unlink()
        Shipper(root, catalog, str, NO_KEYS).ship()
        assert recorded(catalog) == {("desk", "k1", "busy", 429): 731, ("", "k1", "busy", 429): 1}
        assert [row["requests"] for row in catalog.refusals.all(endpoint="desk")] in ([730, 1], [1, 730])
        by = {row["key"]: row for row in catalog.usage.by(["key"])}
        assert (by["k1"]["refused"], by["k1"]["requests"], by[""]["requests"]) == (732, 42, 1)
        (ledger,) = [row for row in catalog.usage.by(["team", "model_ref", "day"]) if row["team"]]
        assert (ledger["model_ref"], ledger["day"]) == ("encoder@1", DAY.date().isoformat())
        assert [ledger[n] for n in ("failed", "prompt_tokens", "estimated_tokens", "completion_tokens")] == [
            1,
            420,
            9,
            0,
        ]
        assert catalog.missing_entries("desk", DAY, DAY + timedelta(days=1)) == {}
    spool.append(refusal(5))
    spool._queue.clear()
    spool.append(exposure(6, at=at))
    spool.close()
    Shipper(root, catalog, str, NO_KEYS).ship()
    assert catalog.missing_entries("desk", DAY, DAY + timedelta(days=1)) == {spool.name: 1}


def test_refusals_past_their_time_go_with_the_exposures(catalog: Catalog):
    def row(number: int, endpoint: str, at: datetime) -> dict:
        found = {"id": f"req-{number}", "at": at, "endpoint": endpoint, "key": "", "team": "", "reason": "busy"}
        return found | {"status": 429, "requests": 1, "worker": None, "sequence": None, "is_sum": False}

    old, new = DAY - timedelta(days=100), DAY
    rows = [row(1, "desk", old), row(2, "", old), row(3, "other", old), row(4, "desk", new), row(5, "", new)]
    catalog.add_traffic([], [], rows)
    catalog.expire_traffic("desk", DAY - timedelta(days=90))
    assert [one["id"] for one in catalog.refusals.all()] == ["req-3", "req-4", "req-5"]
    assert catalog.refusals.by(["reason"], endpoint="desk", since=new) == [{"reason": "busy", "requests": 1}]
    assert catalog.usage.by([])[0]["refused"] == 5
