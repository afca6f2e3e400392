"""OpenAI's own client and curl use the whole API, and find it as OpenAI documents it."""

import base64
import json
import struct
import subprocess
from collections.abc import Iterator

import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from tests.serving.conftest import until
from tests.serving.gateway_house import Connection, House, Request, Scripted, completion, event, house

TOOL = {"type": "function", "function": {"name": "toll", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "toll", "arguments": '{"model": "x", "km": 1.50}'}}
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "t", "strict": True, "schema": {"type": "object", "properties": {"가": {"const": 1.0}}}},
}


async def able(request: Request, answer: Connection) -> None:
    """An engine that has everything."""
    body, count = request.body, request.body.get("n", 1)
    if request.path == "/v1/embeddings":
        values = [0.25, -1.0]
        data = base64.b64encode(struct.pack("<2f", *values)).decode() if body["encoding_format"] == "base64" else values
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        data = [{"object": "embedding", "index": 0, "embedding": data}]
        return await answer.whole({"object": "list", "data": data, "model": "secret", "usage": usage})
    if request.path == "/v1/completions":
        texts = [" world", "! and", " more"]
        head = {"id": "c", "object": "text_completion", "created": 1, "model": "secret"}
        if body.get("stream"):
            await answer.begin_events()
            for number, text in enumerate(texts):
                choice = {"index": 0, "text": text, "finish_reason": "length" if number == 2 else None}
                await answer.piece(f"data: {json.dumps(head | {'choices': [choice]})}\n\n".encode())
            return await answer.end()
        return await answer.whole(head | {"choices": [{"index": 0, "text": "".join(texts), "finish_reason": "stop"}]})
    if not body.get("stream"):
        message: dict = {"role": "assistant", "content": "안녕"}
        if body.get("tools"):
            message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
        scores = {"content": [{"token": "안녕", "logprob": -0.5, "bytes": [1], "top_logprobs": []}]}
        choice = {"message": message, "finish_reason": "stop", "logprobs": scores if body.get("logprobs") else None}
        return await answer.whole(completion("", choices=[{"index": i, **choice} for i in range(count)]))
    await answer.begin_events()
    if body.get("tools"):
        for piece in ('{"km"', ": 1.50}"):
            call = {"index": 0, **CALL, "function": {"name": "toll", "arguments": piece}}
            choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}
            await answer.event(choices=[choice])
        await answer.event(finish="tool_calls")
    else:
        for index in range(count):
            for text in ("안", "녕"):
                choice = {"index": index, "delta": {"content": text}, "finish_reason": None}
                await answer.event(choices=[choice])
            await answer.event(choices=[{"index": index, "delta": {}, "finish_reason": "stop"}])
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    await answer.piece(event(choices=[], usage=usage) + b"data: [DONE]\n\n")
    return await answer.end()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[House, Scripted]]:
    with house(tmp_path_factory.mktemp("house")) as made:
        scripted = made.server(able)
        made.endpoint("desk", [scripted], max_output_tokens=50)
        made.endpoint("plain", [scripted], engine="transformers")
        yield made, scripted


@pytest.fixture
def client(desk: tuple[House, Scripted]) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{desk[0].url}/v1", api_key="unused", max_retries=0, timeout=20) as opened:
        yield opened


def hello(**more) -> dict:
    return {"model": "desk", "messages": [{"role": "user", "content": "hi"}], **more}


def test_models_are_the_endpoints(client: OpenAI):
    assert {m.id for m in client.models.list()} == {"desk", "plain"}
    found = client.models.retrieve("desk")
    assert (found.id, found.object, found.owned_by) == ("desk", "model", "llmops") and found.created > 0
    for name in ("nobody", "desk/1", "%00", "../healthz"):
        with pytest.raises(NotFoundError):
            client.models.retrieve(name)


def test_everything_that_an_engine_has_goes_through_as_it_is(client: OpenAI, desk: tuple[House, Scripted]):
    asked = {
        "temperature": 0.7, "top_p": 0.9, "n": 2, "logprobs": True, "top_logprobs": 2, "seed": -3, "max_tokens": 9,
        "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "toll"}}, "response_format": SCHEMA,
        "parallel_tool_calls": False, "logit_bias": {"5": -1.5}, "presence_penalty": 0.1, "frequency_penalty": -0.1,
        "reasoning_effort": "low",
    }  # fmt: skip
    messages = [
        {"role": "user", "content": "통행료?", "name": "lee"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": '{"won": 1.50e3}'},
    ]
    answer = client.chat.completions.create(
        model="desk", messages=messages, **asked, extra_body={"min_p": 0.25, "guided": {"a": [1, 2.5, None]}}
    )
    assert [choice.message.tool_calls[0].function.arguments for choice in answer.choices] == [
        '{"model": "x", "km": 1.50}'
    ] * 2
    assert answer.choices[1].logprobs.content[0].logprob == -0.5 and answer.model == "desk"
    got = desk[1].asked[-1].body
    assert {name: got[name] for name in asked} == asked and got["messages"] == messages
    assert (got["min_p"], got["guided"], got["model"]) == (0.25, {"a": [1, 2.5, None]}, "model")


def test_streams_of_texts_calls_and_several_choices(client: OpenAI):
    chunks = list(client.chat.completions.create(**hello(stream=True, n=2)))
    texts = {i: "".join(c.delta.content or "" for k in chunks for c in k.choices if c.index == i) for i in (0, 1)}
    assert texts == {0: "안녕", 1: "안녕"} and {chunk.usage for chunk in chunks} == {None}
    chunks = list(client.chat.completions.create(**hello(stream=True, tools=[TOOL])))
    calls = [c.delta.tool_calls[0].function.arguments for k in chunks for c in k.choices if c.delta.tool_calls]
    assert "".join(calls) == '{"km": 1.50}' and chunks[-1].choices[0].finish_reason == "tool_calls"
    *chunks, last = client.chat.completions.create(**hello(stream=True, stream_options={"include_usage": True}))
    assert (last.choices, last.usage.total_tokens) == ([], 5) and all(chunk.usage is None for chunk in chunks)


def test_completions_of_a_text(client: OpenAI, desk: tuple[House, Scripted]):
    whole = client.completions.create(model="desk", prompt="hello", max_tokens=5000, stop="!", user="lee")
    assert (whole.choices[0].text, whole.choices[0].finish_reason, whole.model) == (" world", "stop", "desk")
    got = desk[1].asked[-1].body
    assert (got["prompt"], got["max_tokens"], "user" in got) == ("hello", 50, False)
    chunks = list(client.completions.create(model="desk", prompt="hello", stream=True, stop=["and more"]))
    assert "".join(c.choices[0].text for c in chunks) == " world! " and chunks[-1].choices[0].finish_reason == "stop"
    # They are answers that somebody reads: exposures like any other.
    until(lambda: ("hello", " world") in [(r["query"], r["response"]) for r in desk[0].logged("desk", 1)])
    for prompt in ([], "", [1, "a"]):
        with pytest.raises(BadRequestError) as wrong:
            client.completions.create(model="desk", prompt=prompt)
        assert wrong.value.param == "prompt"


def test_embeddings_reach_an_engine_that_has_them(client: OpenAI, desk: tuple[House, Scripted]):
    before = len(desk[0].logged("desk", 0))
    found = client.embeddings.create(model="desk", input=["통행료", "환불"], dimensions=2)
    assert found.data[0].embedding == [0.25, -1.0] and found.model == "desk"
    assert "max_tokens" not in desk[1].asked[-1].body
    with pytest.raises(BadRequestError, match="has no embeddings") as wrong:
        client.embeddings.create(model="plain", input="x")
    assert wrong.value.param == "model"
    assert len(desk[0].logged("desk", before)) == before


def test_what_embeddings_use_is_in_the_ledger_though_they_are_no_exposures(
    client: OpenAI, desk: tuple[House, Scripted]
):
    desk[0].endpoint("vectors", [desk[1]], engine="vllm")
    for _ in range(3):
        client.embeddings.create(model="vectors", input="통행료")
    usage = desk[0].catalog.usage

    def used() -> list[tuple]:
        rows = [row for row in usage.by(["endpoint", "model_ref"]) if row["endpoint"] == "vectors"]
        return [(row["model_ref"], row["requests"], row["failed"], row["prompt_tokens"]) for row in rows]

    until(lambda: used() == [("vectors0@1", 3, 0, 6)])
    assert desk[0].catalog.request_count(endpoint="vectors") == 0


def test_what_the_gateway_has_not_is_told_so(client: OpenAI):
    with pytest.raises(NotFoundError, match="has no Responses API: post messages to /v1/chat/completions"):
        client.responses.create(model="desk", input="hi")
    with pytest.raises(NotFoundError) as unknown:
        client.images.generate(model="desk", prompt="a cat")
    assert (unknown.value.code, unknown.value.type) == ("unknown_url", "invalid_request_error")
    with pytest.raises(BadRequestError, match="decodes greedily") as greedy:
        client.chat.completions.create(**hello(temperature=0.7) | {"model": "plain"})
    assert (greedy.value.param, greedy.value.code) == ("temperature", "unsupported_parameter")


def test_curl_uses_all_of_it(desk: tuple[House, Scripted]):
    url = desk[0].url

    def curl(path: str, body: dict | None = None, *more: str) -> tuple[int, str]:
        data = [] if body is None else ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        command = ["curl", "-sS", "-N", "-w", "\n%{http_code}", *more, *data, f"{url}{path}"]
        out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
        text, _, status = out.rpartition("\n")
        return int(status), text

    status, text = curl("/v1/chat/completions", hello())
    answer = json.loads(text)
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "안녕")
    status, text = curl("/v1/chat/completions", hello(stream=True))
    assert status == 200 and text.rstrip().endswith("data: [DONE]") and text.count("data: {") == 3
    # A body of some size is announced first, and sent when the gateway asks for it.
    long = [{"role": "user", "content": "가" * 20_000}]
    assert curl("/v1/chat/completions", {"model": "plain", "messages": long}, "-H", "Expect: 100-continue")[0] == 200
    assert curl("/v1/completions", {"model": "desk", "prompt": "a"})[0] == 200
    assert curl("/v1/embeddings", {"model": "desk", "input": "a", "encoding_format": "float"})[0] == 200
    assert json.loads(curl("/v1/models")[1])["data"][0]["object"] == "model"
    assert json.loads(curl("/v1/models/desk")[1])["id"] == "desk"
    assert curl("/v1/responses", {"model": "desk", "input": "hi"})[0] == 404
    assert curl("/v1/chat/completions", None, "-X", "DELETE")[0] == 405
    assert curl("/v1/chat/completions", None, "-X", "OPTIONS")[0] == 405
    head = curl("/v1/chat/completions", hello(), "-i")[1].partition("\n\n")[0]
    request_id = next(line.split()[1] for line in head.splitlines() if line.lower().startswith("x-request-id"))
    status, text = curl("/v1/feedback", {"request_id": request_id, "rating": 5, "user": "lee"})
    assert (status, json.loads(text)["rating"]) == (201, 5)
    assert curl("/healthz")[0] == 200 and curl("/readyz")[0] == 200
    assert curl("/healthz", None, "-I")[0] == 200
    assert (curl("/metrics")[0], curl("/admin/routes")[0]) == (404, 404)
