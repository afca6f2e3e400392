"""Whatever a model server does in the middle of an answer, its client gets whole events, a clear end and no silence."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from images.serve.leaving import EndWithClient
from tests.serving.conftest import until
from tests.serving.gateway_house import Connection, House, Request, Scripted, completion, event, house, serve

DONE = "[DONE]"
MEGABYTE = "가" * 350_000


WHOLES = {
    "no choices": [],
    "no message": [{"index": 0, "message": None, "finish_reason": "stop"}],
    "no utf-8 whole": b'{"choices": [{"message": {"content": "\xff"}, "finish_reason": "stop"}]}',
}


SOON = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True).encode()
BUSY = {
    "busy": (b"Retry-After: 17", (17, 17)),
    "busy for milliseconds": (b"retry-after-ms: 1500", (2, 2)),
    "busy until a date": (b"Retry-After: " + SOON, (1, 3600)),
    "busy for whatever": (b"Retry-After: soon", (1, 1)),
}
REFUSALS = {
    "an error of its own": {"object": "error", "message": "8 tokens at most", "param": "max_tokens", "code": 400},
    "a bare message": {"message": "8 tokens at most"},
    "a problem": {"type": "about:blank", "title": "8 tokens at most", "status": 400},
    "a text": {"detail": "8 tokens at most"},
    "a list of faults": {"detail": [{"loc": ["body", "top_k"], "msg": "8 tokens at most", "type": "x"}, {"loc": 1}]},
    "nothing": {"detail": [1]},
}


async def misbehave(request: Request, answer: Connection) -> bool | None:
    said = request.said
    if said == "hang":
        await asyncio.sleep(3600)
    if said in REFUSALS:
        return await answer.whole(REFUSALS[said], 422 if "detail" in REFUSALS[said] else 400)
    if said == "garbage whole":
        return await answer.whole(b"<html>oops</html>")
    if said in BUSY:
        await answer.raw(
            b"HTTP/1.1 429 X\r\n%b\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n" % BUSY[said][0]
        )
        return None
    if said == "error whole":
        return await answer.whole({"error": {"message": "8 tokens at most", "type": "BadRequestError", "code": 400}})
    if said.startswith("does not stream"):
        call = {"id": "a", "type": "function", "function": {"name": "pay", "arguments": "{}"}}
        message = {"role": "assistant", "content": "one two", "tool_calls": [call]}
        finish = None if said.endswith("end") else "tool_calls"
        choice = {"index": 0, "message": message, "finish_reason": finish}
        return await answer.whole(completion("", choices=[choice]))
    if said in WHOLES:
        body = WHOLES[said]
        return await answer.whole(body if isinstance(body, bytes) else completion("", choices=body))
    if said == "list whole":
        return await answer.whole([1])
    if said == "deep whole":
        return await answer.whole(b"[" * 100_000)
    if said == "cut whole":
        await answer.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{")
        return False
    if said == "redirect":
        await answer.raw(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        return None
    if said == "no http":
        await answer.raw(b"SSH-2.0-OpenSSH_9.2\r\n")
        return False
    if said == "hang whole":
        await answer.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{")
        await asyncio.sleep(3600)
    if not request.body.get("stream"):
        return await answer.whole(completion(f"ok {said}"))
    await answer.begin_events()
    if said == "hang after headers":
        await asyncio.sleep(3600)
    if said == "empty":
        await answer.end()
        return None
    if said == "byte order mark":
        await answer.piece(b"\xef")
        await answer.piece(b"\xbb\xbf")
    if not said.startswith("first "):
        await answer.event("one ")
    if said == "hang in the middle":
        await asyncio.sleep(3600)
    if said == "break":
        await answer.piece(event("half")[:20])
        return False
    endings = {
        "no finish": b"",
        "done without finish": b"data: [DONE]\n\n",
        "half a line": b'data: {"choi',
        "garbage": b"data: {not json}\n\n",
        "first garbage": b"data: <html>\n\n",
        "wrong type": b'data: {"choices": {"index": 0}}\n\n',
        "error": b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\ndata: [DONE]\n\n',
        "error text": b'data: {"error": "worker died"}\n\n',
        "first too long": b'data: {"error": {"message": "8 tokens at most", "code": 400}}\r\n\r\n',
        "first not valid": b'data: {"error": "top_p is not valid", "error_type": "validation"}\n\n',
        "first out of memory": b'data: {"error": {"message": "CUDA out of memory", "code": 500}}\n\n',
        "finish is empty": event("two", ""),
        "no utf-8": event("two").replace(b"two", b"\xff") + event(finish="stop") + b"data: [DONE]\n\n",
        "error behind text": event("two") + event("three") + b'data: {"error": "worker died"}\n\ndata: [DONE]\n\n',
        "endless event": b'data: {"x": "' + b"a" * (9 * 2**20),
    }
    if said in endings:
        await answer.piece(endings[said] or b": nothing\n\n")
    elif said == "megabyte":
        await answer.event(MEGABYTE)
        await answer.event(finish="stop")
    elif said == "crlf":
        data = (event("two") + b": a comment\n\n" + event(finish="stop") + b"data: [DONE]\n\n").replace(b"\n", b"\r\n")
        for at in range(len(data)):
            await answer.piece(data[at : at + 1])
    elif said == "several lines":
        first, second = event("two", "stop")[6:].strip().split(b", ", 1)
        await answer.piece(b"event: message\nid: 3\ndata: " + first + b",\ndata: " + second + b"\n\n")
    elif said in ("empty data", "byte order mark"):
        await answer.piece(b"data:\n\ndata: \n\n" + event("two") + b"data:\ndata:\n\n" + event(finish="stop"))
        await answer.piece(b"retry: 3000\n\ndata: [DONE] \n\n")
    elif said == "two choices":
        for index in (0, 1):
            choice = {"index": index, "delta": {"content": "x"}, "finish_reason": "stop" if not index else None}
            await answer.event(choices=[choice])
    elif said == "ends of lines":
        await answer.piece(event("two", "stop").replace(b"two", "two\u2028\u2029\x85".encode()))
    elif said == "silence":
        await asyncio.sleep(0.5)
        await answer.event("two", "stop")
    elif said == "endless":
        while True:
            await answer.event(".")
            await asyncio.sleep(0.01)
    await answer.end()
    return None


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Scripted]]:
    """Endpoint `odd`, whose server misbehaves as it is asked, and which has no other server to turn to."""
    changes = {"read_seconds": 1.0, "stall_seconds": 0.6, "ping_seconds": 0.15}
    with house(tmp_path_factory.mktemp("house"), **changes) as made:
        scripted = made.server(misbehave)
        made.endpoint("odd", [scripted])
        yield made, scripted


def asked(url: str, said: str, *, stream: bool, model: str = "odd", **more) -> tuple[int, str]:
    """Status and body of the answer to a chat request."""

    async def ask() -> tuple[int, str]:
        body = {"model": model, "messages": [{"role": "user", "content": said}], "stream": stream, **more}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/chat/completions", json=body) as got:
            return got.status, await got.text()

    return asyncio.run(ask())


def events_of(text: str) -> list[str]:
    """The data of the events of a stream, of which none may be cut."""
    assert text.endswith("\n\n")
    # A comment has a line to itself, and no blank one: that would be an event without data to some readers.
    parts = [part.split(": ping\n")[-1] for part in text.split("\n\n")[:-1]]
    assert all(part.startswith("data: ") and "\n" not in part for part in parts), parts
    return [part.removeprefix("data: ") for part in parts]


def closes(house: House) -> None:
    """One good answer, so that the failures of a test do not add up."""
    house.app.gateway.breakers.succeeded(next(iter(house.app.gateway.table.endpoints["odd"].routes[0].urls)))


BROKEN = {
    "no finish": "without a finish_reason",
    "done without finish": "without a finish_reason",
    "half a line": "no event of a completion",
    "garbage": "no event of a completion",
    "first garbage": "no event of a completion",
    "wrong type": "no event of a completion",
    "finish is empty": "without a finish_reason",
    "error": "CUDA out of memory",
    "error text": "worker died",
    "error behind text": "worker died",
    "no utf-8": "no event of a completion",
    "endless event": "more than",
    "break": "broke off",
    "hang in the middle": "sent nothing for 0.6 s",
}


@pytest.mark.parametrize("said", BROKEN)
def test_a_stream_that_is_not_whole_ends_in_an_error_and_is_logged_as_failed(desk: tuple[House, Scripted], said: str):
    made, _ = desk
    before = made.settled("odd")
    status, text = asked(made.url, said, stream=True)
    events = events_of(text)
    assert status == 200 and DONE not in events
    chunks = [json.loads(data) for data in events[:-1]]
    if said == "error behind text":
        assert "".join(c["choices"][0]["delta"]["content"] for c in chunks) == "one twothree", "what came is passed on"
    error = json.loads(events[-1])["error"]
    assert (error["code"], error["type"]) == ("backend_failed", "server_error")
    assert all("error" not in json.loads(data) for data in events[:-1])
    row = made.logged("odd", before + 1)[-1]
    assert row["status"] == 502 and BROKEN[said] in row["error"], row
    closes(made)


@pytest.mark.parametrize(
    ("said", "status", "code", "reason"),
    [
        ("garbage whole", 502, "backend_failed", "no answer: <html>"),
        ("list whole", 502, "backend_failed", "no answer: [1]"),
        ("no choices", 502, "backend_failed", "no answer: {"),
        ("no message", 502, "backend_failed", "no answer: {"),
        ("no utf-8 whole", 502, "backend_failed", "no answer: {"),
        ("deep whole", 502, "backend_failed", "no answer: [["),
        ("cut whole", 502, "backend_failed", "did not answer"),
        ("redirect", 502, "backend_failed", "answered 302"),
        ("no http", 502, "backend_failed", "did not answer"),
        ("hang", 504, "backend_timeout", "in time"),
        ("hang whole", 504, "backend_timeout", "in time"),
    ],
)
def test_what_is_no_whole_answer_is_none(desk: tuple[House, Scripted], said: str, status: int, code: str, reason: str):
    made, server = desk
    before, times = made.settled("odd"), len(server.asked)
    got, text = asked(made.url, said, stream=False)
    assert (got, json.loads(text)["error"]["code"]) == (status, code)
    row = made.logged("odd", before + 1)[-1]
    assert row["status"] == status and reason in row["error"], row
    assert len(server.asked) == times + 1, "asked once: nobody knows what came of it"
    closes(made)


@pytest.mark.parametrize("said", REFUSALS)
def test_why_a_server_refuses_a_request_reaches_the_client_in_whatever_shape_it_says_so(
    desk: tuple[House, Scripted], said: str
):
    status, text = asked(desk[0].url, said, stream=False)
    error = json.loads(text)["error"]
    expected = {
        "a list of faults": "body.top_k: 8 tokens at most",
        "nothing": "the model server refused the request (422)",
    }
    assert (status, error["message"]) == (400, expected.get(said, "8 tokens at most"))
    assert error["param"] == ("max_tokens" if said == "an error of its own" else None)


@pytest.mark.parametrize("said", BUSY)
def test_when_a_server_has_room_again_reaches_the_client(desk: tuple[House, Scripted], said: str):
    body = {"model": "odd", "messages": [{"role": "user", "content": said}]}
    answer = httpx.post(f"{desk[0].url}/v1/chat/completions", json=body, timeout=20)
    least, most = BUSY[said][1]
    assert answer.status_code == 429 and least <= int(answer.headers["retry-after"]) <= most


@pytest.mark.parametrize("usage", [True, False])
def test_a_server_that_does_not_stream_gives_a_stream_all_the_same(desk: tuple[House, Scripted], usage: bool):
    made, _ = desk
    more = {"stream_options": {"include_usage": True}} if usage else {}
    status, text = asked(made.url, "does not stream", stream=True, **more)
    *events, last = events_of(text)
    assert (status, last) == (200, DONE)
    chunks = [json.loads(data) for data in events]
    choice = chunks[0]["choices"][0]
    assert (choice["delta"]["content"], choice["finish_reason"]) == ("one two", "tool_calls")
    assert choice["delta"]["tool_calls"][0]["index"] == 0 and chunks[0]["object"] == "chat.completion.chunk"
    assert [chunk.get("usage") is not None for chunk in chunks] == ([False, True] if usage else [False])
    status, text = asked(made.url, "does not stream to its end", stream=True)
    assert json.loads(events_of(text)[-1])["error"]["code"] == "backend_failed"
    closes(made)


@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("error whole", 400, "8 tokens at most"),
        ("first too long", 400, "8 tokens at most"),
        ("first not valid", 400, "top_p is not valid"),
        ("first out of memory", 502, "does not answer"),
    ],
)
def test_a_stream_that_begins_with_an_error_is_one_with_its_status(
    desk: tuple[House, Scripted], said: str, status: int, words: str
):
    made, _ = desk
    before = made.settled("odd")
    got, text = asked(made.url, said, stream=True)
    assert got == status and words in json.loads(text)["error"]["message"], text
    assert made.logged("odd", before + 1)[-1]["status"] == status
    closes(made)


@pytest.mark.parametrize(("said", "status"), [("hang after headers", 504), ("empty", 502)])
def test_a_stream_that_never_begins_is_an_error_with_a_status(desk: tuple[House, Scripted], said: str, status: int):
    made, _ = desk
    got, text = asked(made.url, said, stream=True)
    if got == 200:
        # It took so long that the client was kept company: then the error is an event.
        assert text.startswith(": ping") and json.loads(events_of(text)[-1])["error"]["type"] == "server_error"
    else:
        assert got == status
    closes(made)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("megabyte", f"one {MEGABYTE}"),
        ("ends of lines", "one two\u2028\u2029\x85"),
        *((said, "one two") for said in ("crlf", "several lines", "silence", "empty data", "byte order mark")),
    ],
)
def test_however_events_are_cut_the_client_gets_whole_ones(desk: tuple[House, Scripted], said: str, expected: str):
    made, _ = desk
    status, text = asked(made.url, said, stream=True)
    events = events_of(text)
    assert status == 200 and events[-1] == DONE
    chunks = [json.loads(data) for data in events[:-1]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == expected
    assert {chunk["model"] for chunk in chunks} == {"odd"}
    # Readers of lines that know Unicode's ends of lines would cut an event there.
    assert text.splitlines() == text.split("\n")[:-1]
    # Silence is filled, and nothing else is.
    assert text.count(": ping\n") >= 2 and ": ping\n\n" not in text if said == "silence" else "comment" not in text


def test_every_choice_that_was_asked_for_has_to_finish(desk: tuple[House, Scripted]):
    made, _ = desk
    _, text = asked(made.url, "two choices", stream=True, n=2)
    assert DONE not in events_of(text) and "error" in json.loads(events_of(text)[-1])
    closes(made)


class Tokens:
    """A model server that makes a token after another for a whole answer, as long as its task lives."""

    def __init__(self) -> None:
        self.made = 0
        self.ended = False

    def app(self) -> EndWithClient:
        return EndWithClient(Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])]))

    async def chat(self, request: StarletteRequest) -> JSONResponse:
        await request.json()
        try:
            while True:
                self.made += 1
                await asyncio.sleep(0.005)
        finally:
            self.ended = True


@pytest.mark.parametrize("stream", [False, True])
def test_the_server_ends_when_the_client_leaves_before_anything_came(desk: tuple[House, Scripted], stream: bool):
    made, _ = desk
    tokens = Tokens()
    served = serve(tokens.app(), lifespan="off")
    name = f"tokens-{stream}".lower()
    scripted = Scripted(misbehave, url=served.url)
    made.endpoint(name, [scripted])
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": "x"}], "stream": stream}).encode()
    host, port = made.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: tokens.made > 3)
        assert not tokens.ended and made.app.gateway.in_flight[name] == 1
    until(lambda: tokens.ended)
    row = made.logged(name, 1)[0]
    assert (row["status"], row["error"]) == (499, "the client went away")
    until(lambda: made.app.gateway.in_flight[name] == 0 and not made.app.gateway.breakers.outstanding)
    served.stop()


def test_a_client_that_leaves_in_the_middle_ends_the_stream(desk: tuple[House, Scripted]):
    made, server = desk
    left = server.left

    async def leave() -> None:
        body = {"model": "odd", "messages": [{"role": "user", "content": "endless"}], "stream": True}
        async with aiohttp.ClientSession() as session:
            got = await session.post(f"{made.url}/v1/chat/completions", json=body)
            await got.content.readany()
            got.close()

    asyncio.run(leave())
    until(lambda: server.left == left + 1)
    until(lambda: not made.app.gateway.breakers.outstanding)


def test_replicas_share_the_load_and_none_is_waited_for(desk: tuple[House, Scripted]):
    made, _ = desk
    gate = threading.Event()

    async def slow(request: Request, answer: Connection) -> None:
        while request.said == "wait" and not gate.is_set():
            await asyncio.sleep(0.01)
        await answer.whole(completion("slow"))

    async def quick(request: Request, answer: Connection) -> None:
        await answer.whole(completion("quick"))

    first, second = made.server(slow), made.server(quick)
    made.endpoint("twins", [first, second])
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(asked, made.url, "wait", stream=False, model="twins", user="u") for _ in range(2)]
        until(lambda: len(first.asked) >= 1)
        # The one that is busy holds nobody else up, though it is the same user.
        others = [asked(made.url, "hi", stream=False, model="twins", user="u") for _ in range(6)]
        assert {json.loads(text)["choices"][0]["message"]["content"] for _, text in others} == {"quick"}
        gate.set()
        assert all(w.result()[0] == 200 for w in waiting)
    rows = made.logged("twins", 8)
    assert {row["backend"] for row in rows} == {"twins-0-0", "twins-0-1"} and {row["variant"] for row in rows} == {0}


def test_a_failing_server_costs_no_request_and_comes_back_by_a_probe(desk: tuple[House, Scripted]):
    made, _ = desk
    is_broken = True

    async def moody(request: Request, answer: Connection) -> None:
        await answer.whole(*(({"error": "dead"}, 500) if is_broken else (completion("moody"),)))

    async def good(request: Request, answer: Connection) -> None:
        await answer.whole(completion("good"))

    first, second = made.server(moody), made.server(good)
    first.is_healthy = False
    made.endpoint("moody", [first], [second])
    answers = [asked(made.url, f"{n}", stream=False, model="moody") for n in range(30)]
    assert {status for status, _ in answers} == {200}
    assert made.app.gateway.breakers.open_ones() == [first.url]
    # It opened by its own failures, and nothing goes there while its health page says no.
    tried = len(first.asked)
    assert tried == 5
    assert all(asked(made.url, "x", stream=False, model="moody")[0] == 200 for _ in range(5))
    assert len(first.asked) == tried
    is_broken, first.is_healthy = False, True
    until(lambda: '"content": "moody"' in asked(made.url, "x", stream=False, model="moody")[1], 30)
    assert made.app.gateway.breakers.open_ones() == []
    until(lambda: made.logged("moody", 36)[-1]["source"] == "model")
    rows = made.logged("moody", 36)
    assert (rows[0]["source"], rows[-1]["source"]) == ("fallback", "model")
    assert "failed too often" in rows[10]["error"] and rows[-1]["error"] is None


def test_an_answer_of_another_model_says_so_and_its_variant_stays(desk: tuple[House, Scripted]):
    made, _ = desk

    async def dead(request: Request, answer: Connection) -> bool:
        return False

    async def other(request: Request, answer: Connection) -> None:
        await answer.whole(completion("other"))

    made.endpoint("pair", [made.server(dead)], [made.server(other)])
    assert "other" in asked(made.url, "hi", stream=False, model="pair")[1]
    (row,) = made.logged("pair", 1)
    assert (row["variant"], row["model_ref"], row["source"]) == (0, "pair1@1", "fallback")
    assert "pair-1-0 answered instead" in row["error"]


def test_no_request_is_sent_again_after_waiting_in_vain(desk: tuple[House, Scripted]):
    made, _ = desk
    first, second = made.server(misbehave), made.server(misbehave)
    made.endpoint("slow", [first], [second])
    assert asked(made.url, "hang", stream=False, model="slow")[0] == 504
    assert (len(first.asked), len(second.asked)) == (1, 0)


def test_a_server_of_somebody_elses_is_asked_by_its_own_name_and_key(
    desk: tuple[House, Scripted], monkeypatch: pytest.MonkeyPatch
):
    made, _ = desk
    monkeypatch.setenv("THEIR_KEY", "secret-key")

    async def theirs(request: Request, answer: Connection) -> None:
        await answer.whole(completion("hi"), 200 if request.headers.get("authorization") else 401)

    server = made.server(theirs)
    made.endpoint("theirs", [server], of_backend={"model": "qwen/3", "api_key_variable": "THEIR_KEY"})
    status, text = asked(made.url, "hi", stream=False, model="theirs")
    assert (status, json.loads(text)["model"]) == (200, "theirs")
    assert (server.asked[-1].body["model"], server.asked[-1].headers["authorization"]) == (
        "qwen/3",
        "Bearer secret-key",
    )
    # A key that is missing or wrong is the platform's fault: no user is told that he may not.
    for value in ("", "x"):
        monkeypatch.setenv("THEIR_KEY", value)
        monkeypatch.setattr(server, "script", lambda request, answer: answer.whole({}, 401))
        status, text = asked(made.url, "hi", stream=False, model="theirs")
        assert (status, json.loads(text)["error"]["code"]) == (502, "backend_failed")
    rows = made.logged("theirs", 3)
    assert "set the variable THEIR_KEY" in rows[1]["error"] and "refuses the gateway (401)" in rows[2]["error"]
    assert "secret-key" not in str(rows)
