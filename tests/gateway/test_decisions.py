"""Who may call is asked of Cerbos where one is named: kept briefly, and nobody is let in by what nobody decided."""

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web

from images.gateway.access.decisions import AWAY_SECONDS, COOL_DOWN_SECONDS, FRESH_SECONDS, Decisions
from images.gateway.call import Identity
from images.gateway.errors import ApiError
from llmops_assets.operations.access_table import cerbos_policies
from llmops_assets.specs.access import AccessPolicy
from tests.cerbos_server import cerbos_at
from tests.gateway.model import ask
from tests.gateway.test_access import key_of, models
from tests.serving.conftest import free_port, get, until

TABLE = AccessPolicy.model_validate({"roles": {"viewer": ["audit.read"], "data-scientist": ["endpoint.call"]}})
"""Not the shipped one, in which viewers may call."""
LEE = Identity(key="k-1", owner="lee", roles=frozenset({"data-scientist"}))


def written(folder: Path, table: AccessPolicy) -> Path:
    (folder / "policies").mkdir(exist_ok=True)
    for name, text in cerbos_policies(table).items():
        (folder / "policies" / name).write_text(text, encoding="utf-8")
    return folder


def test_a_gateway_lets_in_whom_cerbos_lets_in(catalog, model, start_gateway, tmp_path):
    folder = written(tmp_path, TABLE)
    port, grpc_port = free_port(), free_port()
    viewer, scientist, later = (key_of(catalog, owner=o, role=r) for o, r in
                                (("kim", "viewer"), ("lee", "data-scientist"), ("park", "data-scientist")))  # fmt: skip
    with cerbos_at(port, grpc_port, folder) as url:
        gateway = start_gateway(LLMOPS_CERBOS_URL=url, LLMOPS_GATEWAY_ACCESS="on")
        assert ask(gateway.url, scientist).status_code == 200 and models(gateway.url, scientist) == ["desk", "other"]
        refused = ask(gateway.url, viewer)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "role_forbidden")
        assert models(gateway.url, viewer) == []
    assert ask(gateway.url, scientist).status_code == 200, "the decision of before holds for a moment"
    refused = ask(gateway.url, later)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "access_unavailable")
    assert refused.headers["retry-after"]
    assert "decides who may call" in json.dumps(get(f"{gateway.url}/readyz"))
    assert ask(gateway.url, "llmops-unknown").status_code == 401
    with cerbos_at(port, grpc_port, folder):
        until(lambda: ask(gateway.url, later).status_code == 200)
        assert "decides who may call" not in json.dumps(get(f"{gateway.url}/readyz"))


class Point:
    """A decision point that answers as it is told to, and counts who asks."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: object = "EFFECT_ALLOW"
        self.go = asyncio.Event()
        self.go.set()

    async def check(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body["principal"]["id"])
        await self.go.wait()
        if isinstance(self.answer, str):
            return web.json_response(
                {"results": [{"resource": {"kind": "endpoint"}, "actions": {"call": self.answer}}]}
            )
        status, text = self.answer
        return web.Response(status=status, text=text, content_type="application/json")


async def _with_point(body) -> None:
    point, moment = Point(), [1000.0]
    app = web.Application()
    app.router.add_post("/api/check/resources", point.check)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    decisions = Decisions(f"http://127.0.0.1:{runner.addresses[0][1]}/", clock=lambda: moment[0])
    try:
        await body(point, decisions, moment)
    finally:
        await decisions.close()
        await runner.cleanup()


def test_a_decision_is_asked_once_for_many_and_anew_after_a_while():
    async def body(point, decisions, moment):
        point.go.clear()
        many = [asyncio.ensure_future(decisions.may_call(LEE)) for _ in range(20)]
        leaver = asyncio.ensure_future(decisions.may_call(LEE))
        while not point.asked:
            await asyncio.sleep(0)
        leaver.cancel()
        point.go.set()
        assert await asyncio.gather(*many) == [True] * 20 and point.asked == ["lee"]
        point.answer = "EFFECT_DENY"
        moment[0] += FRESH_SECONDS - 1
        assert await decisions.may_call(LEE) and len(point.asked) == 1
        moment[0] += 2
        assert not await decisions.may_call(LEE) and len(point.asked) == 2
        other = Identity(subject="lee2", roles=LEE.roles)
        assert not await decisions.may_call(other) and point.asked[-1] == "sub:lee2"
        assert not await decisions.may_call(Identity(key="k-2", owner="lee")), "nobody without a role is asked for"
        assert len(point.asked) == 3

    asyncio.run(_with_point(body))


@pytest.mark.parametrize(
    "broken",
    [(500, "{}"), (200, "{}"), (200, "no JSON"), (200, "[]"), (200, '{"results": [{"resource": {}}]}'), (403, "{}")],
)
def test_what_is_no_answer_lets_nobody_in(broken):
    async def body(point, decisions, moment):
        assert await decisions.may_call(LEE)
        point.answer = broken
        moment[0] += FRESH_SECONDS
        assert await decisions.may_call(LEE) and decisions.fault, "for a moment the last decision holds"
        asked = len(point.asked)
        assert await decisions.may_call(LEE) and len(point.asked) == asked, "and nobody waits for it again at once"
        moment[0] += AWAY_SECONDS
        with pytest.raises(ApiError) as refused:
            await decisions.may_call(LEE)
        assert refused.value.status == 503
        point.answer = "EFFECT_ALLOW"
        moment[0] += COOL_DOWN_SECONDS
        assert await decisions.may_call(LEE) and decisions.fault is None

    asyncio.run(_with_point(body))


def test_an_answer_to_another_question_lets_nobody_in():
    async def body(point, decisions, moment):
        point.answer = (200, '{"results": [{"resource": {"kind": "keys"}, "actions": {"call": "EFFECT_ALLOW"}}]}')
        assert not await decisions.may_call(LEE)

    asyncio.run(_with_point(body))
