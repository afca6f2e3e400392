"""What no client of good will sends is refused by name, costs nobody else, and never the gateway itself."""

import asyncio
import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from images.gateway import body as bodies
from images.gateway import protocol
from images.gateway.fields import FIELDS
from tests.serving.conftest import until
from tests.serving.gateway_house import Connection, House, Request, Scripted, completion, event, house

GOOD = {"model": "desk", "messages": [{"role": "user", "content": "hi"}]}


async def echo(request: Request, answer: Connection) -> None:
    if request.path == "/v1/embeddings":
        return await answer.whole({"object": "list", "data": [{"embedding": [0.5]}], "model": "secret"})
    if request.path == "/v1/completions":
        return await answer.whole(completion("", choices=[{"index": 0, "text": "x", "finish_reason": "stop"}]))
    if request.body.get("stream"):
        await answer.begin_events()
        for _ in range(2000):
            await answer.event("x" * 100_000)
        await answer.piece(event(finish="stop"))
        return await answer.end()
    return await answer.whole(completion(request.said[:100]))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Scripted]]:
    with house(tmp_path_factory.mktemp("house")) as made:
        scripted = made.server(echo)
        made.endpoint("desk", [scripted])
        made.endpoint("plain", [scripted], engine="transformers")
        yield made, scripted


@pytest.fixture
def client(desk: tuple[House, Scripted]) -> Iterator[socket.socket]:
    host, port = desk[0].url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        yield opened


def read_answer(client: socket.socket) -> tuple[int, bytes]:
    """Status and body of one answer; a status of 0 where the connection ended without any."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(65536)
        if not part:
            return 0, data
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
    while len(rest) < length:
        rest += client.recv(65536)
    return int(head.split()[1]), rest


def posted(path: str, body: bytes, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def ask(desk: House, body: object, path: str = "/v1/chat/completions", *headers: str) -> tuple[int, dict]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    host, port = desk.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as opened:
        opened.sendall(posted(path, data, *headers))
        status, answer = read_answer(opened)
        return status, json.loads(answer)


def is_well(desk: House) -> bool:
    return ask(desk, GOOD)[0] == 200


WRONG = [None, True, -1, 0, 1.5, 10**30, "x", "", [], ["x"], [[]], {}, {"a": {"b": [1]}}, [{}], [{"type": 3}], "\ud800"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize("model", ["desk", "plain"])
def test_no_value_of_any_field_is_a_fault_of_the_gateway(desk: tuple[House, Scripted], path: str, model: str):
    made, _ = desk
    kind = {"/v1/chat/completions": "chat", "/v1/completions": "completions"}.get(path, "embeddings")
    base = {"chat": GOOD, "completions": {"prompt": "a"}, "embeddings": {"input": "a"}}[kind]
    host, port = made.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        for name in FIELDS[kind]:
            for value in WRONG:
                body = {**base, "model": model, name: value}
                if name == "stream" and value is True:
                    continue
                client.sendall(posted(path, json.dumps(body).encode()))
                status, answer = read_answer(client)
                assert status in (200, 400, 404), (name, value, answer)
                if status == 400 and model == "desk":
                    param = json.loads(answer)["error"]["param"]
                    assert param and param.startswith((name, "model")), (name, value, answer)
    assert is_well(made)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (5, "messages[0].content"),
        ([], "messages[0].content"),
        (["x"], "messages[0].content[0]"),
        ([{"text": "x"}], "messages[0].content[0]"),
        ([{"type": "text"}], "messages[0].content[0].text"),
        ([{"type": "text", "text": {"a": 1}}], "messages[0].content[0].text"),
        ([{"type": "image_url", "image_url": 3}], "messages[0].content[0].image_url"),
    ],
)
def test_parts_of_a_message_are_checked_each(desk: tuple[House, Scripted], content: object, where: str):
    status, answer = ask(desk[0], {**GOOD, "messages": [{"role": "user", "content": content}]})
    assert (status, answer["error"]["param"]) == (400, where)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://localhost/x", "http://169.254.169.254/latest/meta-data", "file:///etc/passwd",
        "http://10.0.0.3/a.png", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://2130706433/", "http://0x7f.1/",
        "http://127.1/", "http://0/", "gopher://example.com/", "http://user@example.com/", "http://db.internal/",
        "http://minio/", "http://kubernetes.default.svc/", "//example.com/x", "ftp://example.com/", "http://a b.com/",
        "http://example.com\\@127.0.0.1/", "http://[fe80::1%25eth0]/", "http://127.0.0.1。/",
    ],
)  # fmt: skip
def test_no_picture_leads_a_model_server_into_this_network(desk: tuple[House, Scripted], url: str):
    part = {"type": "image_url", "image_url": {"url": url}}
    status, answer = ask(desk[0], {**GOOD, "messages": [{"role": "user", "content": [part]}]})
    assert (status, answer["error"]["param"]) == (400, "messages[0].content[0].image_url"), url


def test_a_picture_reaches_an_engine_that_has_eyes_and_no_other(desk: tuple[House, Scripted]):
    made, server = desk
    data = "data:image/png;base64," + "A" * 3000
    for url in (data, "https://example.com/a.png"):
        parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        body = {**GOOD, "messages": [{"role": "user", "content": parts}]}
        assert ask(made, body)[0] == 200
        assert server.asked[-1].body["messages"] == body["messages"]
        status, answer = ask(made, {**body, "model": "plain"})
        assert (status, answer["error"]["param"]) == (400, "messages[0].content[1]")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.7), ("top_p", 0.5), ("n", 3), ("logprobs", True), ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("presence_penalty", 1), ("response_format", {"type": "json_object"}), ("tools", [{"type": "function"}]),
        ("tool_choice", "required"), ("functions", [{"name": "f"}]), ("reasoning_effort", "high"), ("audio", {"v": 1}),
        ("modalities", ["text", "audio"]), ("prediction", {"type": "content"}), ("web_search_options", {"a": 1}),
        ("generation_config", "{}"), ("top_k", 5), ("chat_template_kwargs", {"tokenize": False}), ("nothing", 1),
    ],
)  # fmt: skip
def test_what_an_engine_cannot_do_is_refused_by_name(desk: tuple[House, Scripted], name: str, value: object):
    made, server = desk
    times = len(server.asked)
    status, answer = ask(made, {**GOOD, "model": "plain", name: value})
    assert status == 400 and answer["error"]["param"].startswith(name)
    assert len(server.asked) == times
    # Another engine gets it byte for byte.
    if name not in ("chat_template_kwargs",):
        assert ask(made, {**GOOD, name: value})[0] == 200
        assert server.asked[-1].body[name] == value


def test_what_asks_for_nothing_else_is_no_reason_to_refuse(desk: tuple[House, Scripted]):
    usual = {"temperature": 1, "top_p": 1.0, "n": 1, "logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0}
    usual |= {"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "logit_bias": {}, "seed": 7}
    usual |= {"user": "lee", "metadata": {"a": "b"}, "store": True, "modalities": ["text"], "temperature": 0}
    usual |= {"parallel_tool_calls": True, "service_tier": "auto", "stop": ["x"], "max_tokens": 5, "top_logprobs": 0}
    assert ask(desk[0], {**GOOD, "model": "plain", **usual})[0] == 200


def test_bodies_that_lie_about_themselves_are_refused(desk: tuple[House, Scripted]):
    made, _ = desk
    data = json.dumps(GOOD).encode()
    for headers, body, status, param in [
        (["Content-Encoding: gzip"], gzip.compress(data), 400, "content-encoding"),
        (["Content-Encoding: gzip"], data, 400, "content-encoding"),
        (["Content-Encoding: br, identity"], data, 400, "content-encoding"),
        ([], b"\xff\xfe" + data, 400, None),
        ([], json.dumps(GOOD).encode("utf-16"), 400, None),
        ([], b"", 400, None),
        ([], data + b"x", 400, None),
        ([], data + data, 400, None),
        ([], b'{"model": "' + b"x" * 3_900_000 + b'"}', 404, "model"),
        ([], b'{"' + b"x" * 3_900_000 + b'": 1, "' + b"x" * 3_900_000 + b'": 1}', 413, None),
        ([], b'{"%s": 1, "%s": 1}' % (b"x" * 900_000, b"x" * 900_000), 400, "x" * 200),
    ]:
        got, answer = ask(made, body, "/v1/chat/completions", *headers)
        assert (got, answer["error"]["param"]) == (status, param), answer["error"]["message"][:200]
        assert len(answer["error"]["message"]) < 1100
    assert ask(made, data, "/v1/chat/completions", "Content-Encoding: identity")[0] == 200
    assert ask(made, b"\xef\xbb\xbf" + data)[0] == 200, "what some editors and shells put before a text"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /\x00 HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_as_an_error_of_openai(
    desk: tuple[House, Scripted], client: socket.socket, data: bytes
):
    client.sendall(data)
    status, answer = read_answer(client)
    assert status in (400, 405) and json.loads(answer)["error"]["type"] == "invalid_request_error"
    assert is_well(desk[0])


def test_a_header_bomb_is_cut_off(desk: tuple[House, Scripted], client: socket.socket):
    client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n")
    with pytest.raises((ConnectionError, StopIteration)):
        answer = None
        for number in range(10_000):
            client.sendall(b"X-Bomb-%d: %s\r\n" % (number, b"a" * 1000))
            if number == 200:
                answer = read_answer(client)
                raise StopIteration
    if answer is not None:
        assert answer[0] in (431, 0)
    assert is_well(desk[0])


def test_headers_and_bodies_that_come_too_slowly_are_not_waited_for(
    desk: tuple[House, Scripted], monkeypatch: pytest.MonkeyPatch
):
    made, _ = desk
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    host, port = made.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as silent:
        # Not a byte, half a header, half a body, and half a header after a good request.
        assert read_answer(silent)[0] == 408
    with socket.create_connection((host, int(port)), timeout=20) as half:
        half.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow")
        assert read_answer(half)[0] == 408
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        data = json.dumps(GOOD).encode()
        slow.sendall(posted("/v1/chat/completions", data))
        assert read_answer(slow)[0] == 200
        slow.sendall(posted("/v1/chat/completions", data)[:-5])
        status, answer = read_answer(slow)
        assert (status, "did not come within" in json.loads(answer)["error"]["message"]) == (408, True)
        assert slow.recv(1) == b"", "what still comes would be taken for the next request"
    with socket.create_connection((host, int(port)), timeout=20) as second:
        second.sendall(posted("/v1/chat/completions", data))
        assert read_answer(second)[0] == 200
        second.sendall(b"GET /v1/mod")
        assert read_answer(second)[0] == 408
    assert is_well(made)


def test_a_client_that_does_not_read_is_given_up(desk: tuple[House, Scripted], monkeypatch: pytest.MonkeyPatch):
    made, server = desk
    monkeypatch.setattr(protocol, "WRITE_SECONDS", 0.2)
    host, port = made.url.removeprefix("http://").split(":")
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((host, int(port)))
        body = json.dumps({**GOOD, "messages": [{"role": "user", "content": "endless"}], "stream": True}).encode()
        before = len(server.asked)
        deaf.sendall(posted("/v1/chat/completions", body))
        until(lambda: len(server.asked) > before)
        until(lambda: made.app.gateway.in_flight["desk"] == 0)
        assert not made.app.gateway.breakers.outstanding
    until(lambda: [row for row in made.logged("desk", 1) if row["status"] == 499])


def test_many_bad_requests_at_once_are_no_good_ones_failure(desk: tuple[House, Scripted]):
    made, _ = desk
    bad = [
        b"{", b"[" * 10_000, b'{"model": "desk", "messages": [{"role": "user", "content": "\\ud800"}]}',
        json.dumps({**GOOD, "temperature": "hot"}).encode(), json.dumps({**GOOD, "stop": [3]}).encode(),
        json.dumps({**GOOD, "messages": [{"role": "wizard", "content": "x"}]}).encode(), b"\xff" * 100,
    ]  # fmt: skip
    with ThreadPoolExecutor(16) as pool:
        wrong = [pool.submit(ask, made, bad[n % len(bad)]) for n in range(140)]
        right = [pool.submit(ask, made, GOOD) for _ in range(60)]
        assert {r.result()[0] for r in right} == {200}
        assert {w.result()[0] for w in wrong} == {400}


def test_idle_connections_by_the_thousand_hold_nobody_up(desk: tuple[House, Scripted]):
    made, _ = desk
    host, port = made.url.removeprefix("http://").split(":")

    async def crowd() -> None:
        opened = await asyncio.gather(*(asyncio.open_connection(host, int(port)) for _ in range(1500)))
        try:
            begun = time.monotonic()
            assert (await asyncio.to_thread(ask, made, GOOD))[0] == 200
            assert time.monotonic() - begun < 10
        finally:
            for _, writer in opened:
                writer.close()

    asyncio.run(crowd())
