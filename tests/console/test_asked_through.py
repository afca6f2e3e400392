"""An endpoint that is asked by its route is asked as at the gateway: nothing that it heeds is lost between."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.callers import networks
from images.console.state import State
from images.console.works import Works
from llmops_assets.local.stack import prepare_home
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.console.conftest import USER
from tests.serving.conftest import until
from tests.serving.gateway_house import Connection, House, Request, completion, house, serve

CHAT = "/llm-ops/v1/serve/desk/chat"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    async def script(request: Request, answer: Connection) -> None:
        if request.said == "hang":
            await asyncio.sleep(3600)
        await answer.whole(completion("네"))

    with house(tmp_path_factory.mktemp("house")) as made:
        made.model = made.server(script)
        made.endpoint("desk", [made.model])
        yield made


@pytest.fixture(scope="module")
def url(desk: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home: Path = tmp_path_factory.mktemp("console") / "home"
    port = int(desk.url.rpartition(":")[2])
    wiring = Wiring(Settings(home=home, gateway_port=port, _env_file=None))
    prepare_home(wiring.settings)
    console = serve(create_app(State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None, Works(60))))
    yield console.url
    console.stop()


def ask(url: str, said: str = "안녕", *, headers: dict | None = None, timeout: float = 60, **more) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": said}], **more}
    return httpx.post(f"{url}{CHAT}", json=body, headers={**USER, **(headers or {})}, timeout=timeout)


def test_what_a_user_refuses_reaches_the_log_and_what_the_gateway_says_comes_back(desk: House, url: str) -> None:
    answer = ask(url, headers={"x-llmops-consent": "no"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "desk"
    row = desk.logged("desk", 1)[-1]
    assert row["request_id"] == answer.headers["x-request-id"] and row["consent"] is False


def test_another_model_than_the_routes_is_refused(url: str) -> None:
    assert ask(url, model="desk").status_code == 200
    refused = ask(url, model="other")
    assert refused.status_code == 422 and "`model`" in refused.text


def test_the_model_is_told_of_a_client_that_leaves_before_its_answer(desk: House, url: str) -> None:
    before = desk.model.left
    with pytest.raises(httpx.ReadTimeout):
        ask(url, "hang", timeout=1)
    until(lambda: desk.model.left == before + 1)
