"""What the pages and routes of an endpoint say of refused requests and of its shadow, and to whom."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from starlette.testclient import TestClient

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.callers import networks
from images.console.state import State
from images.console.works import Works
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden
from llmops_assets.operations.refused_requests import refused_requests
from llmops_assets.operations.reviews import read_item, read_queue
from llmops_assets.operations.shadows import shadow_report
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.console.conftest import HOST, USER
from tests.resources.samples import exposure

AT = datetime.now(UTC) - timedelta(hours=1)
VIEWER = {"X-User-Id": "park", "X-User-Roles": "llm-ops-user,viewer"}
SECRET = "서울 톨게이트 비밀"
API = "/llm-ops/v1/serving/endpoints/desk"


@pytest.fixture(scope="module")
def wiring(tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    found = Wiring(Settings(home=tmp_path_factory.mktemp("house") / "home", _env_file=None))
    prepare_home(found.settings)
    return found


@pytest.fixture(scope="module")
def api(wiring: Wiring) -> Iterator[TestClient]:
    state = State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None, Works(patience=60))
    with TestClient(create_app(state), base_url=HOST, client=("127.0.0.1", 50000), headers=USER) as client:
        yield client


@pytest.fixture(scope="module")
def key(wiring: Wiring) -> str:
    """An endpoint with a shadow, and what came of its requests; the id of the key that most of them are of."""
    about = {"model_ref": "desk-tuned@2", "model_family": "llama", "job_type": "SFT", "resources": {"gpus": 0}}
    more = {"environment": "dev", "serve_target": "GENERATION", "shadow": {"endpoint": "next", "percent": 10}}
    wiring.catalog.want_endpoint(DeploymentSpec(endpoint="desk", **about, **more), "kim")
    made, _ = wiring.catalog.api_keys.create("kim", owner="lee", team="desk-team", role="viewer")
    id = made.id
    rows = [
        {"id": f"r{n}", "at": AT, "endpoint": "desk", "key": whose, "team": "", "reason": reason, "status": status,
         "requests": count, "is_sum": False, "worker": None, "sequence": None, "sequences": None}
        for n, (whose, reason, status, count) in enumerate(
            [(id, "rate_limit_exceeded", 429, 1200), ("sub:choi", "content_filter", 400, 3), ("", "made_up", 418, 1)]
        )
    ]  # fmt: skip
    copies = [
        {"request_id": f"req-{n}", "at": AT, "endpoint": "desk", "candidate": "next", "model_ref": "next@2",
         "response": f"{SECRET} {n}" if n < 3 else None, "status": 200 if n < 3 else 502, "latency_ms": 50.0,
         "error": None if n < 3 else f"it fell over at {SECRET}", "completion_tokens": 3, "finish_reason": "stop"}
        for n in range(4)
    ]  # fmt: skip
    asked = [
        exposure(f"req-{n}", endpoint="desk", at=AT, user=f"u{n}", experiment=None, query=f"{SECRET}?",
                 response="1,200원입니다", latency_ms=100.0)
        for n in range(3)
    ]  # fmt: skip
    wiring.catalog.add_traffic(asked, [], rows, copies)
    return id


def test_the_page_says_why_requests_were_refused_and_whose_they_were_to_who_may_read_usage(api, key):
    shown = api.get("/serving/endpoints/desk").text
    assert "1,204 requests were refused; 3 went to a model" in shown
    assert "too many requests within a minute" in shown and "made_up" in shown
    assert f"{key}-…" in shown and "desk-team" in shown and "sub:choi" in shown and "nobody known" in shown
    korean = api.get("/serving/endpoints/desk", headers={"Accept-Language": "ko"}).text
    assert "1,204건이 거절되었고" in korean and "1분 안에 요청이 너무 많았음" in korean
    for other in (
        api.get("/serving/endpoints/desk", headers=VIEWER).text,
        api.get(f"{API}/refused", headers=VIEWER).text,
    ):
        assert "rate_limit_exceeded" in other and key not in other and "choi" not in other
    found = api.get(f"{API}/refused", headers=USER).json()
    assert (found["requests"], found["answered"], found["reasons"][0]["reason"]) == (1204, 3, "rate_limit_exceeded")
    assert found["callers"][0] | {"caller": ""} == {
        "caller": "", "owner": "lee", "team": "desk-team", "reason": "rate_limit_exceeded", "requests": 1200
    }  # fmt: skip


def test_the_shadow_is_shown_in_figures_to_all_and_in_words_to_who_may_read_what_users_write(api, key):
    assert 'hx-get="/serving/endpoints/desk/shadow"' in api.get("/serving/endpoints/desk").text
    for headers, reads in ((USER, True), (VIEWER, False)):
        page = api.get("/serving/endpoints/desk/shadow", headers=headers).text
        part = api.get("/serving/endpoints/desk/shadow", headers={**headers, "HX-Request": "true"}).text
        answer = api.get(f"{API}/shadow", headers=headers)
        assert (SECRET in page, SECRET in part, SECRET in answer.text) == (reads, reads, reads)
        assert "next@2" in page and "3, 0, 1" in page and "<html" in page and "<html" not in part
        assert (answer.json()["copied"], answer.json()["pairs"], answer.json()["has_texts"]) == (4, 3, reads)
    assert "후보 모델이라면" in api.get("/serving/endpoints/desk/shadow", headers={"Accept-Language": "ko"}).text


def test_operations_ask_who_wants_to_read(wiring, key):
    viewer, reader = Actor("park", ["viewer"]), Actor("yoon", ["approver"])
    assert refused_requests(wiring, viewer, "desk").callers is None
    assert len(refused_requests(wiring, reader, "desk").callers) == 3
    assert SECRET not in repr(shadow_report(wiring, viewer, "desk"))
    assert SECRET in repr(shadow_report(wiring, reader, "desk"))
    for reads in (lambda who: read_queue(wiring, who), lambda who: read_item(wiring, who, "req-1")):
        with pytest.raises(Forbidden, match=r"review\.decide"):
            reads(viewer)
    assert read_queue(wiring, reader).items == []


def test_who_may_not_read_what_users_write_sees_no_reviews(api, key):
    for path in ("/reviews", "/llm-ops/v1/reviews"):
        assert api.get(path, headers=VIEWER).status_code == 403
        assert api.get(path, headers=USER).status_code == 200


def test_without_a_copy_the_page_says_what_there_would_be(api, key, wiring):
    wiring.catalog.expire_traffic("desk", datetime.now(UTC))
    shown = api.get("/serving/endpoints/desk/shadow").text
    assert "10 % of the requests are copied to next; none was in the last days" in shown
    assert api.get(f"{API}/shadow", headers=USER).status_code == 422
