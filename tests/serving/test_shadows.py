"""A candidate is asked what users asked, after they have their answers; nobody hears it, and nobody waits for it."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from images.gateway import shadows
from llmops_assets.cli import app as cli
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.shadows import shadow_report
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import erasures, tables
from resources.traffic.context import context_of
from tests.resources.samples import exposure
from tests.serving.conftest import deployment_spec, until
from tests.serving.gateway_house import Connection, House, Request, completion, house
from tests.specs.builders import DEPLOYMENT, changed, faults_in

AT = datetime.now(UTC) - timedelta(hours=1)


class Candidate:
    """How the candidate's server answers."""

    def __init__(self) -> None:
        self.is_held = False
        self.status = 200
        self.text = "후보의 답"

    async def answer(self, request: Request, connection: Connection) -> None:
        while self.is_held:
            await asyncio.sleep(0.01)
        if self.status != 200:
            return await connection.whole({"error": {"message": "no"}}, self.status)
        return await connection.whole(completion(self.text))


async def live(request: Request, connection: Connection) -> None:
    if request.body.get("stream"):
        await connection.begin_events()
        await connection.event("네 ")
        await connection.event("그래요", "stop")
        await connection.piece(b"data: [DONE]\n\n")
        return await connection.end()
    return await connection.whole(completion("네 그래요"))


class Desk:
    """The endpoint `desk`, all of whose requests are copied to `next`."""

    def __init__(self, made: House) -> None:
        self.house, self.candidate = made, Candidate()
        self.server, self.next = made.server(live), made.server(self.candidate.answer)
        made.endpoint("desk", [self.server])
        made.endpoint("next", [self.next])
        self.want({"endpoint": "next", "percent": 100})

    def want(self, shadow: dict | None, **more) -> None:
        spec = deployment_spec("desk", engine="vllm", shadow=shadow, **more)
        self.house.catalog.want_endpoint(spec)
        known = self.house.app.gateway.table
        until(lambda: known.endpoints["desk"].shadow == spec.shadow and known.endpoints["desk"].guards == spec.guards)

    def ask(self, text: str = "통행료가 얼마인가요?", headers: dict | None = None, **more) -> httpx.Response:
        body = {"model": "desk", "messages": [{"role": "user", "content": text}], **more}
        return httpx.post(f"{self.house.url}/v1/chat/completions", json=body, headers=headers, timeout=20)

    def copies(self) -> list[dict]:
        return self.house.catalog.database.rows(tables.shadows.select().order_by(tables.shadows.c.at))

    def counted(self, outcome: str) -> float:
        metrics = self.house.app.gateway.metrics
        metrics.text()
        found = metrics.registry.get_sample_value(
            "llmops_gateway_shadows_total", {"endpoint": "desk", "outcome": outcome}
        )
        return found or 0.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with house(tmp_path) as made:
        yield Desk(made)


def test_the_copy_is_what_the_model_was_asked_and_its_answer_is_on_record_alone(desk: Desk):
    tools = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}]
    answer = desk.ask(temperature=0.5, tools=tools, stream=True)
    assert json.dumps("그래요") in answer.text and json.dumps("후보")[1:-1] not in answer.text
    until(lambda: len(desk.copies()) == 1)
    (live_one,), (copied,) = desk.server.asked, desk.next.asked
    assert {k: v for k, v in live_one.body.items() if k not in ("stream", "stream_options")} == copied.body
    assert copied.headers["x-request-id"] == f"shadow-{answer.headers['x-request-id']}"
    (row,) = desk.copies()
    assert (row["request_id"], row["response"], row["status"]) == (answer.headers["x-request-id"], "후보의 답", 200)
    assert (row["endpoint"], row["candidate"], row["model_ref"]) == ("desk", "next", "next0@1")
    # It is no exposure, costs nobody's budget, and cannot be rated.
    assert desk.house.logged("desk", 1)[0]["request_id"] == row["request_id"]
    assert desk.house.catalog.request_count(endpoint="next") == 0
    assert desk.house.catalog.usage.by([])[0]["requests"] == 1
    assert desk.house.catalog.missing_entries("desk", AT, datetime.now(UTC) + timedelta(hours=1)) == {}


def test_nobody_waits_for_a_candidate_that_hangs_and_what_finds_no_room_is_dropped_and_counted(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shadows, "MOST_WAITING", 3)
    desk.candidate.is_held = True
    for _ in range(12):
        assert desk.ask().status_code == 200
    until(lambda: len(desk.next.asked) == shadows.AT_ONCE)
    until(lambda: desk.counted("dropped") == 12 - shadows.AT_ONCE - 3)
    assert desk.house.app.gateway.breakers.outstanding["next-0-0"] == shadows.AT_ONCE
    desk.candidate.is_held = False
    until(lambda: len(desk.copies()) == shadows.AT_ONCE + 3)
    assert not desk.house.app.gateway.breakers.outstanding


def test_a_candidate_that_fails_or_is_none_fails_nobody_else(desk: Desk, monkeypatch: pytest.MonkeyPatch):
    for status, outcome in ((500, "failed"), (400, "refused")):
        desk.candidate.status = status
        assert desk.ask().status_code == 200
        until(lambda outcome=outcome: desk.counted(outcome) == 1)
    monkeypatch.setattr(shadows, "ANSWER_SECONDS", 0.1)
    desk.candidate.status, desk.candidate.is_held = 200, True
    assert desk.ask().status_code == 200
    until(lambda: desk.counted("failed") == 2)
    desk.candidate.is_held = False
    until(lambda: sorted(row["status"] for row in desk.copies()) == [400, 502, 504])
    assert all(row["error"] and row["response"] is None for row in desk.copies())
    desk.want({"endpoint": "nowhere", "percent": 100})
    assert desk.ask().status_code == 200
    until(lambda: desk.counted("no candidate") == 1)


def test_what_reached_no_model_or_may_not_be_used_is_not_copied(desk: Desk):
    guards = {"input": {"length": {"max_characters": 100}}}
    desk.want({"endpoint": "next", "percent": 100}, guards=guards)
    assert desk.ask("가" * 200).status_code == 400
    assert desk.ask(headers={"x-llmops-consent": "no"}).status_code == 200
    assert desk.ask(n=2).status_code in (200, 502)
    desk.want({"endpoint": "next", "percent": 0.01}, guards=guards)
    for _ in range(20):
        assert desk.ask().status_code == 200
    until(lambda: desk.counted("no consent") == 1)
    assert len(desk.next.asked) <= 2, "of so small a share hardly one"


def test_the_endpoint_itself_is_no_candidate():
    def faults(endpoint: str) -> list[str]:
        named = changed(DEPLOYMENT, shadow={"endpoint": endpoint})
        return [fault.field for fault in faults_in(DeploymentSpec, named) if fault.field.startswith("shadow")]

    assert faults("qwen-legal") == ["shadow.endpoint"] and faults("next") == []


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    settings = Settings(_env_file=None)
    prepare_home(settings)
    return Wiring(settings)


def copy(number: int, response: str | None, status: int = 200, **more) -> dict:
    row = {"request_id": f"req-{number}", "at": AT, "endpoint": "desk", "candidate": "next", "model_ref": "next@2"}
    row |= {"response": response, "status": status, "error": None if status == 200 else "it fell over"}
    return row | {"latency_ms": 50.0, "completion_tokens": 3, "finish_reason": "stop"} | more


def test_the_report_holds_the_candidates_answers_beside_those_of_users(wiring: Wiring):
    catalog = wiring.catalog
    catalog.want_endpoint(deployment_spec("desk"))
    with pytest.raises(Refused, match="no request of desk was copied"):
        shadow_report(wiring, "lee", "desk")
    answers = ["서울은 1,200원입니다", "죄송하지만 답변드릴 수 없습니다.", "모릅니다", "cached", "refused use"]
    rows = [
        exposure(f"req-{n}", endpoint="desk", at=AT, user=f"u{n}", experiment=None, query=f"질문 {n}", response=text,
                 latency_ms=100.0, source="cache" if n == 3 else "model", consent=False if n == 4 else None)
        for n, text in enumerate(answers)
    ]  # fmt: skip
    now = ["서울은 1,200원입니다", "서울은 1,500원입니다", "", "x", "y"]
    catalog.add_traffic(rows, [], [], [copy(n, text) for n, text in enumerate(now)] + [copy(9, None, 502)])
    found = shadow_report(wiring, "lee", "desk")
    assert (found.candidate, found.model_ref, found.copied, found.answered, found.failed) == ("next", "next@2", 6, 5, 1)
    assert found.errors == [("it fell over", 1)]
    assert (found.pairs, found.users, found.refusals, found.empty) == (3, 3, (1, 0), (0, 1))
    assert found.same == pytest.approx(1 / 3) and 0.3 < found.agreement < 0.9
    assert found.latency_ms == (100.0, 50.0)
    assert found.changed[0]["now"] == ""
    output = CliRunner().invoke(cli, ["endpoint", "shadow", "desk", "--json"])
    assert output.exit_code == 0 and json.loads(output.output)["pairs"] == 3
    shown = CliRunner().invoke(cli, ["endpoint", "shadow", "desk"])
    assert shown.exit_code == 0 and "it fell over" in shown.output
    # A person's words go from here too, and what is past its time.
    erasures.scrub_traffic(catalog, lambda text: "1,500원" in text, lambda _: "erased")
    assert erasures.count_traffic(catalog, lambda text: "1,500원" in text)["shadows"] == 0
    assert shadow_report(wiring, "lee", "desk").pairs == 2
    catalog.expire_traffic("desk", datetime.now(UTC))
    with pytest.raises(Refused):
        shadow_report(wiring, "lee", "desk")


def test_what_a_user_gave_in_an_earlier_turn_is_not_the_candidates_to_give(wiring: Wiring):
    catalog = wiring.catalog
    catalog.want_endpoint(deployment_spec("desk"))
    number = "010-1234-5678"
    before = [{"role": "user", "content": f"제 번호는 {number}입니다"}, {"role": "assistant", "content": "네."}]
    turns, context = context_of({"messages": [*before, {"role": "user", "content": "제 번호가 뭐였죠?"}]})
    kept = {"query": "제 번호가 뭐였죠?", "response": "모릅니다", "at": AT, "experiment": None, "source": "model"}
    rows = [
        exposure("req-0", user="u0", turns=turns, context=context, **kept),
        exposure("req-1", user="u1", turns=1, **kept),
    ]
    catalog.add_traffic(rows, [], [], [copy(n, f"{number}입니다") for n in range(2)])
    found = shadow_report(wiring, "lee", "desk")
    assert (found.pairs, found.personal) == (2, 1)
    assert sum(f"제 번호는 {number}" in one["question"] for one in found.changed) == 1
