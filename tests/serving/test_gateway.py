"""The gateway as a real process, in front of servers that do what healthy model servers do not."""

import asyncio
import json
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import APIError, BadRequestError, InternalServerError, NotFoundError, OpenAI, RateLimitError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from images.gateway.exposures import ParsedCompletion, read_answer
from images.gateway.routes import RouteTable
from llmops_assets.experiments.assignment import assign
from llmops_assets.specs.experiment import ExperimentSpec
from resources.catalog import Catalog
from resources.gateway import GatewayError
from tests.serving.conftest import RunningGateway, Upstream, backend, deployment_spec, free_port, get, until
from tests.serving.gateway_house import Connection, House, Scripted, completion, house
from tests.serving.gateway_house import Request as Asked

SECRET = "제 번호는 010-1234-5678이고 메일은 kim@example.com입니다"


class Model:
    """Speaks the protocol of a model server: answers with its name and what it was asked, or misbehaves as asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[dict] = []
        self.open = 0
        self.cancelled = 0
        self.release = threading.Event()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.seen.append(body)
        asked = body["messages"][-1]["content"]
        request_id = request.headers["x-request-id"]
        if asked == "refuse":
            return JSONResponse({"detail": "too long for this model"}, status_code=422)
        if asked == f"fail {self.name}" or asked == "fail all":
            return JSONResponse({"error": "worker is dead"}, status_code=503)
        if asked == "wait":
            self.open += 1
            while not self.release.is_set():
                await asyncio.sleep(0.01)
        if body.get("stream"):
            return StreamingResponse(self.events(request_id, asked), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": f"{self.name}: {asked}"}}
        return JSONResponse(
            {
                "id": request_id,
                "object": "chat.completion",
                "created": 1,
                "model": f"/secret/{self.name}",
                "choices": [{**choice, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            }
        )

    async def events(self, request_id: str, asked: str):
        def event(delta: dict, **more) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": None} | more
            chunk = {"id": request_id, "object": "chat.completion.chunk", "created": 1, "choices": [choice]}
            return f"data: {json.dumps(chunk | {'model': f'/secret/{self.name}'})}\n\n".encode()

        try:
            yield event({"role": "assistant"})
            for word in [self.name, ": ", asked]:
                data = event({"content": word})
                # Cut in the middle, as a network does.
                yield data[:20]
                await asyncio.sleep(0)
                yield data[20:]
                if asked == "break":
                    raise RuntimeError("the server falls over")
                while asked == "endless":
                    await asyncio.sleep(0.01)
                    yield event({"content": "."})
            # Like `transformers serve`, without OpenAI's end mark.
            last = event({}, finish_reason="stop")
            if asked == "count":
                # It counts on the last event, whether it was asked to or not.
                usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
                last = f"data: {json.dumps(json.loads(last[6:]) | {'usage': usage})}\n\n".encode()
            yield last
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise


@pytest.fixture
def a() -> Model:
    return Model("a")


@pytest.fixture
def b() -> Model:
    return Model("b")


@pytest.fixture
def gateway(
    catalog: Catalog,
    start_gateway: Callable[[], RunningGateway],
    start_upstream: Callable[[Starlette], Upstream],
    a: Model,
    b: Model,
) -> RunningGateway:
    """The gateway with endpoint `desk`, split 75 to 25 between the models a@1 and b@1."""
    limits = {"max_concurrent_requests": 3, "max_input_tokens": 100, "max_output_tokens": 50}
    catalog.want_endpoint(deployment_spec(runtime=limits))
    for model in (a, b):
        url = start_upstream(model.app()).url
        catalog.add_backend(backend(f"desk-{model.name}", model_ref=f"{model.name}@1", url=url))
    catalog.set_routes("desk", split(75, 25))
    return start_gateway()


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Scripted]]:
    """The same with one model in this process: for what its requests alone decide."""

    async def says(request: Asked, answer: Connection) -> None:
        await answer.whole(completion("hi"))

    limits = {"max_concurrent_requests": 3, "max_input_tokens": 100, "max_output_tokens": 50}
    with house(tmp_path_factory.mktemp("strict")) as made:
        server = made.server(says)
        made.endpoint("desk", [server], engine="transformers", **limits)
        yield made, server


def split(first: float, second: float) -> list[dict]:
    return [
        {"backend_id": "desk-a", "model_ref": "a@1", "weight": first},
        {"backend_id": "desk-b", "model_ref": "b@1", "weight": second},
    ]


def client_of(gateway: RunningGateway | House) -> OpenAI:
    return OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0, timeout=20)


def say(client: OpenAI, content: str, user: str | None = None, **more) -> str:
    extra = {} if user is None else {"user": user}
    answer = client.chat.completions.create(
        model="desk", messages=[{"role": "user", "content": content}], **extra, **more
    )
    return answer.choices[0].message.content


def user_of(catalog: Catalog, model: str, weights: tuple[float, float] = (75, 25)) -> str:
    """A user that falls to `model`."""
    salt = catalog.endpoint("desk").salt
    index = "ab".index(model)
    return next(u for u in (f"user-{i}" for i in range(1000)) if assign(salt, u, weights) == index)


def user_of_split(catalog: Catalog, model: str) -> str:
    """A user that falls to `model`, also while the endpoint's entry in the catalog cannot be read."""
    with catalog.database.engine.connect() as connection:
        salt = connection.exec_driver_sql("SELECT salt FROM endpoints WHERE name = 'desk'").scalar()
    return next(u for u in (f"user-{i}" for i in range(1000)) if assign(salt, u, (75, 25)) == "ab".index(model))


def written(catalog: Catalog, rows: int):
    until(lambda: catalog.request_count(endpoint="desk") >= rows)
    return catalog.exposures(endpoint="desk")


def post(url: str, body: dict | bytes, headers: dict | None = None) -> tuple[int, dict, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response), dict(response.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def test_users_stay_with_their_variant_and_come_in_the_shares_of_the_routes(
    gateway: RunningGateway, catalog: Catalog, a: Model, b: Model
):
    client, users = client_of(gateway), [f"user-{i}" for i in range(120)]
    salt = catalog.endpoint("desk").salt
    expected = ["ab"[assign(salt, user, [75, 25])] for user in users]
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(lambda u: say(client, "hi", u)[0], users))
        again = list(pool.map(lambda u: say(client, "hi", u)[0], users))
    assert first == again == expected
    assert 15 <= Counter(first)["b"] <= 50

    # A larger share moves users to the new model, and none away from it.
    admin = gateway.admin(catalog)
    begun = time.monotonic()
    phase = admin.set_routes("desk", split(40, 60))
    assert time.monotonic() - begun < 2
    with ThreadPoolExecutor(3) as pool:
        later = list(pool.map(lambda u: say(client, "hi", u)[0], users))
    assert {(x, y) for x, y in zip(first, later, strict=True)} == {("a", "a"), ("a", "b"), ("b", "b")}

    exposures = written(catalog, 360)
    assert exposures.height == 360
    by_phase = dict(exposures.group_by("phase").len().iter_rows())
    assert by_phase == {phase - 1: 240, phase: 120}
    row = exposures.row(0, named=True)
    assert row["model_ref"] == "ab"[row["variant"]] + "@1"
    assert (row["query"], row["status"], row["finish_reason"], row["prompt_tokens"]) == ("hi", 200, "stop", 3)
    assert row["response"] in ("a: hi", "b: hi")
    assert row["experiment"] is None
    # The model servers are told neither who asks nor which variant they are.
    assert not any("user" in body for body in a.seen + b.seen)
    assert {body["model"] for body in a.seen + b.seen} == {"model"}


def test_a_stream_passes_through_and_gives_no_variant_away(gateway: RunningGateway, catalog: Catalog):
    client, user = client_of(gateway), user_of(catalog, "b")
    raw = client.chat.completions.with_raw_response.create(
        model="desk", messages=[{"role": "user", "content": SECRET}], user=user, stream=True
    )
    request_id = raw.headers["x-request-id"]
    chunks = list(raw.parse())
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == f"b: {SECRET}"
    assert {c.model for c in chunks} == {"desk"}
    assert {c.id for c in chunks} == {request_id}
    status, told, headers = post(
        f"{gateway.url}/v1/chat/completions",
        {"model": "desk", "messages": [{"role": "user", "content": "hi"}], "user": user},
    )
    assert (status, told["model"]) == (200, "desk")
    assert "secret" not in json.dumps(told) + json.dumps(headers)

    row = written(catalog, 2).row(0, named=True)
    assert (row["request_id"], row["user"], row["finish_reason"]) == (request_id, user, "stop")
    assert 0 < row["ttft_ms"] <= row["latency_ms"]
    # Personal data is masked before it is written.
    assert "010-1234-5678" not in row["query"] + row["response"]
    assert "kim@example.com" not in row["query"] + row["response"]
    assert "[전화번호]" in row["query"]
    assert "[이메일]" in row["response"]


def test_a_stream_ends_before_a_stop_text_and_the_server_is_told_to_end(gateway: RunningGateway, catalog: Catalog, b):
    client, user = client_of(gateway), user_of(catalog, "b")
    stream = client.chat.completions.create(
        model="desk",
        messages=[{"role": "user", "content": "endless"}],
        user=user,
        stream=True,
        stop=["...", "never"],
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == "b"
    assert chunks[-1].choices[0].finish_reason == "stop"
    until(lambda: b.cancelled == 1)
    whole = client.chat.completions.create(
        model="desk", messages=[{"role": "user", "content": "hi"}], user=user, stop=": "
    )
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("b", "stop")
    row = written(catalog, 2).row(0, named=True)
    assert (row["status"], row["response"], row["finish_reason"]) == (200, "b", "stop")
    assert row["completion_tokens"] > 3


def test_counts_of_a_stream_are_in_the_log_and_with_the_client_only_where_asked(gateway, catalog: Catalog):
    client, user = client_of(gateway), user_of(catalog, "b")
    asked = {"model": "desk", "messages": [{"role": "user", "content": "count"}], "user": user, "stream": True}
    plain = list(client.chat.completions.create(**asked))
    assert all(chunk.usage is None and chunk.choices for chunk in plain)
    counted = list(client.chat.completions.create(**asked, stream_options={"include_usage": True}))
    assert counted[-1].choices == [] and counted[-1].usage.prompt_tokens == 3
    assert all(chunk.usage is None and chunk.choices for chunk in counted[:-1])
    assert written(catalog, 2)["prompt_tokens"].to_list() == [3, 3]


def test_a_user_is_whom_the_request_names_else_its_session(gateway: RunningGateway, catalog: Catalog):
    url = f"{gateway.url}/v1/chat/completions"
    body = {"model": "desk", "messages": [{"role": "user", "content": "hi"}]}
    _, _, headers = post(url, body)
    cookie = headers["set-cookie"].split(";")[0]
    assert "HttpOnly" in headers["set-cookie"]
    session = cookie.partition("=")[2]
    _, _, again = post(url, body, {"Cookie": cookie})
    assert "set-cookie" not in again
    post(url, body, {"x-user-id": "lee"})
    post(url, {**body, "user": "park"}, {"x-user-id": "lee", "x-session-id": "tab-1"})
    post(url, {**body, "user": "kim@example.com"})
    rows = written(catalog, 5).sort("at").rows(named=True)
    assert [r["user"] for r in rows[:4]] == [session, session, "lee", "park"]
    assert [r["session"] for r in rows[:4]] == [session, session, None, "tab-1"]
    assert re.fullmatch("id-[0-9a-f]{16}", rows[4]["user"])


def test_what_fails_is_asked_again_elsewhere_and_the_log_says_so(gateway: RunningGateway, catalog: Catalog):
    client, user = client_of(gateway), user_of(catalog, "a")
    assert say(client, "fail a", user) == "b: fail a"
    streamed = client.chat.completions.create(
        model="desk", messages=[{"role": "user", "content": "fail a"}], user=user, stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == "b: fail a"
    with pytest.raises(InternalServerError) as failed:
        say(client, "fail all", user)
    assert failed.value.status_code == 502
    assert failed.value.body["code"] == "backend_failed"
    # What the request itself did wrong is not tried elsewhere.
    with pytest.raises(BadRequestError, match="too long for this model"):
        say(client, "refuse", user)
    # A server that breaks off in the middle: nothing is asked again, and the client is told.
    with pytest.raises(APIError, match="broke off"):
        list(
            client.chat.completions.create(
                model="desk", messages=[{"role": "user", "content": "break"}], user=user, stream=True
            )
        )
    rows = written(catalog, 5).sort("at").rows(named=True)
    # An analysis counts by the assigned variant; who answered stands beside it.
    assert {r["variant"] for r in rows} == {0}
    assert [r["model_ref"] for r in rows] == ["b@1", "b@1", "b@1", "a@1", "a@1"]
    assert [r["status"] for r in rows] == [200, 200, 502, 400, 502]
    assert "desk-a answered 503" in rows[0]["error"]
    assert "desk-b answered instead" in rows[0]["error"]
    assert "desk-b answered 503" in rows[2]["error"]
    metrics = gateway.metrics()
    assert 'llmops_gateway_retries_total{endpoint="desk"} 3.0' in metrics


def test_a_backend_that_is_gone_costs_its_users_nothing(gateway: RunningGateway, catalog: Catalog):
    client, user = client_of(gateway), user_of(catalog, "a")
    catalog.update_backend("desk-a", url=f"http://127.0.0.1:{free_port()}")
    until(lambda: say(client, "hi", user) == "b: hi", 5)
    catalog.update_backend("desk-a", url="")
    until(lambda: written(catalog, 1).filter(error="x").is_empty() and say(client, "hi", user) == "b: hi", 5)


def test_limits_are_kept(gateway: RunningGateway, catalog: Catalog, a: Model, b: Model):
    client = client_of(gateway)
    say(client, "hi", "u1", max_tokens=1000)
    say(client, "hi", "u1", max_completion_tokens=7)
    say(client, "hi", "u1")
    sent = (a.seen + b.seen)[-3:]
    assert [body.get("max_tokens", body.get("max_completion_tokens")) for body in sent] == [50, 7, 50]
    with pytest.raises(BadRequestError, match="certainly more than the 100 tokens"):
        say(client, "가" * 1000, "u1")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(say, client, "wait", "u1") for _ in range(3)]
        until(lambda: a.open + b.open == 3)
        with pytest.raises(RateLimitError) as busy:
            say(client, "hi", "u2")
        assert busy.value.response.headers["retry-after"] == "1"
        assert gateway.routes()["endpoints"]["desk"]["in_flight"] == 3
        assert gateway.admin(catalog).drain(["desk-a", "desk-b"], 0.2) == 3
        a.release.set()
        b.release.set()
        assert [w.result()[1:] for w in waiting] == [": wait"] * 3
    assert gateway.admin(catalog).drain(["desk-a", "desk-b"], 5) == 0
    assert say(client, "hi", "u2")


def test_faulty_requests_are_told_what_is_wrong_with_them(strict: tuple[House, Scripted]):
    made, _ = strict
    client, url, before = client_of(made), f"{made.url}/v1/chat/completions", made.settled("desk")
    with pytest.raises(NotFoundError, match="no endpoint 'dask'; known are: desk"):
        client.chat.completions.create(model="dask", messages=[{"role": "user", "content": "hi"}])
    good = {"model": "desk", "messages": [{"role": "user", "content": "hi"}]}
    faulty: list[tuple[dict | bytes, str]] = [
        (b"{", "not JSON"),
        (b"[]", "should be a JSON object"),
        (b'{"model": "\xff"}', "not JSON"),
        ({**good, "model": 3}, "name of an endpoint"),
        ({"model": "desk"}, "list of at least one message"),
        ({**good, "messages": ["hi"]}, "message 0"),
        ({**good, "messages": [{"role": "user", "content": 5}]}, "should be text"),
        ({**good, "max_tokens": 0}, "above 0"),
        ({**good, "max_tokens": "9"}, "above 0"),
        ({**good, "user": {}}, "`user` should be a text"),
        ({**good, "n": 2}, "has no `n`"),
        ({**good, "response_format": {"type": "json_object"}}, "has no `response_format`"),
    ]
    for body, message in faulty:
        status, told, headers = post(url, body)
        assert status == 400, body
        assert told["error"]["type"] == "invalid_request_error", body
        assert message in told["error"]["message"], body
        assert headers["x-request-id"].startswith("req-")
    # Far more than what is on its way between two programs: who sends it has to be read to the end to read the answer.
    assert post(url, b'{"model": "' + b"x" * 30_000_000)[0] == 413
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    asked = {**good, "messages": [{"role": "user", "content": parts}]}
    # A wish that the engine does not meet is not swallowed in silence; OpenAI's default is none.
    status, answer, _ = post(url, {**asked, "temperature": 0.9})
    assert (status, answer["error"]["param"], answer["error"]["code"]) == (400, "temperature", "unsupported_parameter")
    assert post(url, {**asked, "temperature": 1})[0] == 200
    assert [row["query"] for row in made.logged("desk", before + 1)][before:] == ["one two"]
    assert [m.id for m in client.models.list()] == ["desk"]


def test_whatever_json_holds_is_answered_400_with_the_field_and_never_500(strict: tuple[House, Scripted]):
    (made, server), before = strict, len(strict[1].asked)
    url = f"{made.url}/v1/chat/completions"
    start = b'{"model": "desk", "messages": [{"role": "user", "content": "hi"}], '
    deep = b'{"x": ' * 10_000 + b"1" + b"}" * 10_000
    fields: list[tuple[str, bytes]] = [
        ("tools", b"[" * 10_000 + b"]" * 10_000),
        ("metadata", deep),
        ("anything", deep),
        ("anything", b"[" * 70 + b"]" * 70),
        ("anything", b"[[1e999]]"),
        ("anything", b"123456789012345678901234567890"),
        ("temperature", b"NaN"),
        ("temperature", b"-1"),
        ("temperature", b"Infinity"),
        ("temperature", b"1e999"),
        ("temperature", b'"0.5"'),
        ("temperature", b"true"),
        ("top_p", b"2"),
        ("top_p", b"[]"),
        ("max_tokens", b"1.5"),
        ("max_completion_tokens", b"0"),
        ("max_completion_tokens", b'{"a": 1}'),
        ("n", b"0"),
        ("n", b'"two"'),
        ("seed", b"1.5"),
        ("stop", b"3"),
        ("stop", b"[3]"),
        ("stream", b'"yes"'),
        ("stream", b"1"),
        ("stream_options", b"[]"),
        ("stream_options", b'{"include_usage": 1}'),
        ("tools", b"{}"),
        ("tools", b'["x"]'),
        ("tool_choice", b"5"),
        ("response_format", b'"json"'),
        ("response_format", b"{}"),
        ("logit_bias", b"[]"),
        ("logprobs", b"5"),
        ("presence_penalty", b'"x"'),
        ("user", b'"a \\ud800"'),
    ]
    for name, value in fields:
        status, answer, _ = post(url, start + b'"%s": %s}' % (name.encode(), value))
        assert (status, answer["error"]["param"]) == (400, name), (name, value[:40], answer)
        assert f"`{name}" in answer["error"]["message"]
    status, answer, _ = post(url, start + b'"model": "other"}')
    assert (status, answer["error"]["param"]) == (400, "model") and "twice" in answer["error"]["message"]
    for message, name in [
        (b'{"role": "user", "role": "system", "content": "hi"}', "role"),
        (b'{"role": "user", "content": "hi", "name": 3}', "messages[0].name"),
        (b'{"role": "assistant", "tool_calls": "x"}', "messages[0].tool_calls"),
        (b"[" * 10_000 + b"]" * 10_000, "messages"),
    ]:
        status, answer, _ = post(url, b'{"model": "desk", "messages": [%s]}' % message)
        assert (status, answer["error"]["param"]) == (400, name), answer
    assert post(f"{made.url}/v1/feedback", b'{"request_id": ' + deep + b"}")[0] == 400
    assert len(server.asked) == before


def test_null_is_as_a_field_that_is_not_there(strict: tuple[House, Scripted]):
    made, server = strict
    url = f"{made.url}/v1/chat/completions"
    body = {"model": "desk", "messages": [{"role": "user", "content": "hi"}], "user": "u1"}
    names = (
        "temperature",
        "stop",
        "stream",
        "n",
        "tools",
        "response_format",
        "stream_options",
        "max_completion_tokens",
    )
    status, _, _ = post(url, {**body, **dict.fromkeys(names), "max_tokens": 4})
    sent = server.asked[-1].body
    assert status == 200 and sent["max_tokens"] == 4 and not set(names) & sent.keys()
    assert post(url, {**body, "max_tokens": 1000, "max_completion_tokens": 1000})[0] == 200
    sent = server.asked[-1].body
    assert sent["max_tokens"] == sent["max_completion_tokens"] == 50, "no name leads around the endpoint's limit"


def test_an_endpoint_that_cannot_be_read_keeps_its_routes_and_stops_no_other(
    gateway: RunningGateway, catalog: Catalog, b: Model
):
    client = client_of(gateway)
    catalog.want_endpoint(deployment_spec("help"))
    good = json.dumps([{"backend_id": "desk-b", "model_ref": "b@1", "weight": 1}])
    for table, column, value in [
        ("endpoints", "routes", json.dumps([{"backend_id": "desk-b"}])),
        ("endpoints", "routes", json.dumps(["desk-b"])),
        ("endpoints", "routes", json.dumps([{"backend_id": "desk-b", "model_ref": "b@1", "weight": "much"}])),
        ("endpoints", "routes", '[{"backend_id": "de'),
        ("endpoints", "spec", '{"model_ref": 3}'),
    ]:
        with catalog.database.engine.begin() as connection:
            was = connection.exec_driver_sql(f"SELECT {column} FROM {table} WHERE name = 'desk'").scalar()
        # SQLite refuses a transaction that has read and then writes, when the log was written in between.
        with catalog.database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE name = 'desk'", (value,))
            connection.exec_driver_sql(
                "UPDATE endpoints SET routes = ?, phase = phase + 1 WHERE name = 'help'", (good,)
            )
            phase = connection.exec_driver_sql("SELECT phase FROM endpoints WHERE name = 'help'").scalar()
        until(lambda: set(get(f"{gateway.url}/readyz").get("faults", {})) == {"desk"}, 10)
        until(lambda phase=phase: gateway.routes()["endpoints"]["help"]["phase"] == phase, 10)
        assert get(f"{gateway.url}/readyz")["status"] == "degraded"
        with pytest.raises(GatewayError, match="cannot read the routes of endpoint 'desk'"):
            gateway.admin(catalog).wait_for("desk", 999)
        # Counted in the same turn, a moment after the table has it.
        until(lambda: 'llmops_gateway_route_faults{endpoint="desk"} 1.0' in gateway.metrics(), 10)
        assert say(client, "hi", user_of_split(catalog, "a")) == "a: hi"
        answer = client.chat.completions.create(model="help", messages=[{"role": "user", "content": "hi"}])
        assert answer.choices[0].message.content == "b: hi"
        with catalog.database.engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE {table} SET {column} = ? WHERE name = 'desk'", (was,))
        until(lambda: get(f"{gateway.url}/readyz")["status"] == "ok", 10)
        until(lambda: "llmops_gateway_route_faults{" not in gateway.metrics(), 10)
    text = gateway.log.read_text()
    assert "endpoint desk cannot be read, its last good routes are kept" in text
    assert "model_ref of route 0 should be a text" in text
    # A gateway that starts while it stands so says why it does not serve that endpoint, and serves the others.
    with catalog.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE endpoints SET routes = '[1]' WHERE name = 'desk'")
    table = RouteTable()
    table.refresh(catalog)
    assert set(table.endpoints) == {"help"} and "route 0 should be an object" in table.faults["desk"]


class Closing:
    """A model server that keeps connections and closes them the moment the next request comes on one."""

    def __init__(self, answers_on_a_connection: int) -> None:
        self.answers = answers_on_a_connection
        self.connections = 0
        self.unanswered = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        for _ in range(self.answers):
            if not await self._request(reader):
                break
            body = json.dumps({"choices": [{"message": {"role": "assistant", "content": "ok"}}]}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
        else:
            if await self._request(reader):
                self.unanswered += 1
        writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> bool:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]))
        return True


@pytest.mark.parametrize("answers", [1, 0])
def test_a_kept_connection_that_the_server_closed_costs_no_request(
    catalog: Catalog, start_gateway: Callable[[], RunningGateway], answers: int
):
    server, ready, stop = Closing(answers), threading.Event(), asyncio.Event()
    port = free_port()

    async def serve() -> None:
        async with await asyncio.start_server(server.serve, "127.0.0.1", port):
            ready.set()
            await stop.wait()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(10)
    catalog.want_endpoint(deployment_spec())
    catalog.add_backend(backend("desk-a", model_ref="a@1", url=f"http://127.0.0.1:{port}"))
    catalog.set_routes("desk", split(1, 0)[:1])
    gateway = start_gateway()
    client = client_of(gateway)
    if answers:
        assert [say(client, f"hi {n}", "u1") for n in range(12)] == ["ok"] * 12
        assert server.unanswered >= 6, "a kept connection was in fact closed under a request"
        metrics = gateway.metrics()
        assert f'llmops_gateway_reconnects_total{{endpoint="desk"}} {float(server.unanswered)}' in metrics
    else:
        # A server that closes a fresh connection too is broken: it is not asked again and again.
        with pytest.raises(InternalServerError):
            say(client, "hi", "u1")
        assert server.unanswered == 1
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


def test_ratings_join_their_answers(gateway: RunningGateway, catalog: Catalog):
    client, url = client_of(gateway), f"{gateway.url}/v1/feedback"
    raw = client.chat.completions.with_raw_response.create(
        model="desk", messages=[{"role": "user", "content": "hi"}], user="lee"
    )
    request_id = raw.headers["x-request-id"]
    assert raw.parse().id == request_id
    # At once, while the exposure is still on its way to the catalog; and as vLLM writes the id.
    assert post(url, {"request_id": request_id, "rating": 5, "comment": SECRET})[0] == 201
    written(catalog, 1)
    assert post(url, {"request_id": f"chatcmpl-{request_id}", "rating": 2, "user": "lee"})[0] == 201
    for body, status in [
        ({"request_id": "req-unknown", "rating": 3}, 404),
        ({"request_id": request_id, "rating": 6}, 400),
        ({"request_id": request_id, "rating": True}, 400),
        ({"request_id": request_id}, 400),
        ({"rating": 3}, 400),
    ]:
        assert post(url, body)[0] == status, body
    rows = catalog.feedback(endpoint="desk").rows(named=True)
    assert [(r["request_id"], r["rating"], r["user"]) for r in rows] == [(request_id, 5, None), (request_id, 2, "lee")]
    assert "010-1234-5678" not in rows[0]["comment"]


def test_a_rating_given_before_its_exposure_is_written_is_the_same_users(gateway: RunningGateway, catalog: Catalog):
    url, user = f"{gateway.url}/v1/feedback", "kim@example.com"
    create = client_of(gateway).chat.completions.with_raw_response.create
    # The answer goes on for ever, so its exposure is not even queued when the first rating comes.
    endless = create(model="desk", messages=[{"role": "user", "content": "endless"}], stream=True, user=user)
    request_id = endless.headers["x-request-id"]
    assert post(url, {"request_id": request_id, "rating": 5, "user": user})[0] == 201
    assert post(url, {"request_id": request_id, "rating": 1, "user": "lee@example.com"})[0] == 201
    endless.parse().close()
    asker = written(catalog, 1).row(0, named=True)["user"]
    assert post(url, {"request_id": request_id, "rating": 4, "user": user})[0] == 201
    raters = {r["rating"]: r["user"] for r in catalog.feedback(endpoint="desk").rows(named=True)}
    assert asker.startswith("id-") and raters[5] == raters[4] == asker != raters[1]


def test_exposures_name_the_experiment_once_both_models_are_routed(gateway: RunningGateway, catalog: Catalog):
    client, admin = client_of(gateway), gateway.admin(catalog)
    admin.set_routes("desk", split(75, 25)[:1])
    catalog.create_experiment(
        ExperimentSpec.model_validate(
            {"name": "a-or-b", "endpoint": "desk", "control": "a@1", "treatment": "b@1", "duration_hours": 1}
        )
    )
    until(lambda: gateway.routes()["endpoints"]["desk"]["experiment"] is None)
    say(client, "hi", "u1")
    admin.set_routes("desk", split(50, 50))
    until(lambda: gateway.routes()["endpoints"]["desk"]["experiment"] == "a-or-b")
    say(client, "hi", "u1")
    assert written(catalog, 2).sort("at")["experiment"].to_list() == [None, "a-or-b"]


def test_a_client_that_leaves_ends_the_generation(gateway: RunningGateway, catalog: Catalog, a: Model, b: Model):
    stream = client_of(gateway).chat.completions.create(
        model="desk", messages=[{"role": "user", "content": "endless"}], stream=True, user="u1"
    )
    for _ in zip(range(4), stream, strict=False):
        pass
    stream.close()
    until(lambda: a.cancelled + b.cancelled == 1)
    row = written(catalog, 1).row(0, named=True)
    assert (row["status"], row["error"]) == (499, "the client went away")
    assert row["response"].startswith(("a", "b"))
    assert gateway.routes()["in_flight"] == {}


def test_a_probe_is_no_exposure(gateway: RunningGateway, catalog: Catalog):
    admin = gateway.admin(catalog)
    assert admin.probe("desk", [{"role": "user", "content": "hi"}]) in ("a: hi", "b: hi")
    with pytest.raises(GatewayError, match="answers 502"):
        admin.probe("desk", [{"role": "user", "content": "fail all"}])
    say(client_of(gateway), "hi", "u1")
    assert written(catalog, 1).height == 1


def test_going_down_finishes_answers_and_writes_the_log(gateway: RunningGateway, catalog: Catalog, a: Model, b: Model):
    client = client_of(gateway)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(say, client, "wait", "u1")
        until(lambda: a.open + b.open == 1)
        gateway.process.terminate()
        until(lambda: not _listens(gateway.url))
        assert not waiting.done()
        a.release.set()
        b.release.set()
        assert waiting.result()[1:] == ": wait"
    assert gateway.process.wait(20) in (0, -signal.SIGTERM)
    assert catalog.exposures(endpoint="desk")["query"].to_list() == ["wait"]
    # With no gateway there is nothing to wait for.
    admin = gateway.admin(catalog)
    assert admin.set_routes("desk", split(1, 99)) == 2
    assert (admin.state(), admin.drain(["desk-a"], 1), admin.probe("desk", [])) == (None, 0, None)


def _listens(url: str) -> bool:
    try:
        get(f"{url}/readyz")
        return True
    except OSError:
        return False


def test_an_answer_is_read_from_its_bytes():
    body = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {broken\n\n'
    body += b'data: {"choices":[{"delta":{},"finish_reason":"length"}],"usage":{"prompt_tokens":4}}\n\ndata: [DONE]\n\n'
    told = read_answer(body, streamed=True)
    assert (told.text, told.finish_reason, told.prompt_tokens, told.error) == ("a", "length", 4, None)
    two = {"choices": [{"index": 1, "message": {"content": "nein"}}, {"index": 0, "message": {"content": "ja"}}]}
    assert read_answer(json.dumps(two).encode(), streamed=False).text == "ja"
    assert read_answer(b"", streamed=False).text is None
    # Whatever a model server writes, its exposure is not lost.
    for strange in (
        b'{"choices": 5, "usage": []}',
        b'{"choices": [null, "x", {"message": "hi", "finish_reason": 3}], "usage": {"prompt_tokens": "many"}}',
        b'{"choices": {"message": {"content": "hi"}}}',
        b"[" * 10_000,
    ):
        assert read_answer(strange, streamed=False) == ParsedCompletion(None)
    assert read_answer(b'data: {"error": {"message": "no"}}\n\n', streamed=True).error == "no"
