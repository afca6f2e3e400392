"""What was sent with a question reaches the log through the gateway, masked, and only where the user agreed."""

import httpx

from resources.catalog import Catalog
from resources.traffic.context import sent_of
from tests.gateway.model import Model
from tests.serving.conftest import RunningGateway, until

NUMBER = "010-1234-5678"
BEFORE = [
    {"role": "system", "content": "존댓말로"},
    {"role": "user", "content": [{"type": "text", "text": f"제 번호는 {NUMBER}"}]},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "find", "arguments": f'{{"tel":"{NUMBER}"}}'}}
    ]},
    {"role": "tool", "tool_call_id": "c", "content": "없는 번호"},
]  # fmt: skip
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}


def test_what_was_sent_is_in_the_log(catalog: Catalog, model: Model, start_gateway) -> None:
    gateway: RunningGateway = start_gateway()

    def ask(messages: list[dict], consent: str | None = None, **more) -> str:
        headers = {} if consent is None else {"x-llmops-consent": consent}
        body = {"model": "desk", "messages": messages, "user": "lee", **more}
        answer = httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.headers["x-request-id"]

    why = {"role": "user", "content": "왜요?"}
    alone, whole = ask([why]), ask([*BEFORE, why], tools=[TOOL])
    streamed, refused = ask([*BEFORE, why], stream=True), ask([*BEFORE, why], consent="no")
    model.words = 50_000
    long = ask([why], stream=True)
    until(lambda: catalog.exposures(endpoint="desk").height == 5)
    rows = {row["request_id"]: row for row in catalog.exposures(endpoint="desk").iter_rows(named=True)}
    assert sent_of(rows[alone]).is_lone and rows[alone]["turns"] == 1
    for request in (whole, streamed):
        sent = sent_of(rows[request])
        assert [one["role"] for one in sent.messages] == ["system", "user", "assistant", "tool", "user"]
        assert NUMBER not in rows[request]["context"] and sent.messages[-1]["content"] == "왜요?"
        assert sent.messages[2]["tool_calls"][0]["function"]["name"] == "find"
    assert (list(sent_of(rows[whole]).tools), sent_of(rows[streamed]).tools) == ([TOOL], ())
    assert [rows[refused][name] for name in ("query", "context", "origin")] == [None] * 3
    # One address, which nobody reads here.
    origins = {row["origin"] for row in rows.values() if row["request_id"] != refused}
    assert len(origins) == 1 and not any("127.0.0.1" in str(row) for row in rows.values())
    # A prefix of an answer is no answer; how it ended is known.
    assert (rows[long]["response"], rows[long]["finish_reason"], rows[long]["status"]) == (None, "stop", 200)
    assert rows[streamed]["response"] == "".join(f"w{n} " for n in range(10))
