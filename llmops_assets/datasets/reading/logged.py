"""Requests to a chat server with their answers, as gateways and tracers log them, as a prompt and its answer."""

import json
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.translation import Row, Translated, without
from llmops_assets.datasets.reading.values import kind_of

LOGGED = (("request", "response"), ("inputs", "outputs"), ("input", "output"), ("request_body", "response_body"))


def logged(row: Row) -> Translated | None:
    """A request to a chat server and its answer, as gateways and tracers log them."""
    for asked, answered in LOGGED:
        request, response = _object(row.get(asked)), row.get(answered)
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list) or response is None:
            continue
        beside = {
            f"{asked}.{name}" if name not in ("tools", "functions") else name: value
            for name, value in request.items()
            if name != "messages" and value is not None
        }
        answer, more = _answer_of(response, answered)
        rest = without(row, {asked, answered})
        found = {**rest, **beside, **more, "prompt": request["messages"], "completion": answer}
        return Translated(found, {asked, answered}, {"prompt": f"{asked}.messages", "completion": answered})
    return None


def examples(row: Row) -> Translated | None:
    """An example of a tracer (LangSmith, Langfuse, MLflow): the question in one object, its answer in another."""
    for asked, answered in (("inputs", "outputs"), ("input", "output"), ("inputs", "expectations")):
        given, expected = row.get(asked), row.get(answered)
        if not isinstance(given, dict) or not isinstance(expected, dict):
            continue
        question = [name for name in given if name in _QUESTIONS and isinstance(given[name], str)]
        answer = [name for name in expected if name in _ANSWERS and isinstance(expected[name], str)]
        if len(question) != 1 or len(answer) != 1:
            continue
        beside = {f"{asked}.{name}" if name not in _BESIDE else name: item
                  for name, item in given.items() if name != question[0]}  # fmt: skip
        beside |= {f"{answered}.{name}": item for name, item in expected.items() if name != answer[0]}
        found = without(row, {asked, answered}) | beside
        found |= {"question": given[question[0]], "answer": expected[answer[0]]}
        paths = {"question": f"{asked}.{question[0]}", "answer": f"{answered}.{answer[0]}"}
        return Translated(found, {asked, answered}, paths)
    return None


_QUESTIONS = ("question", "query", "input", "prompt", "instruction", "user", "text")
_ANSWERS = ("answer", "output", "response", "completion", "expected_answer", "expected_response", "result")
_BESIDE = ("context", "system", "chat_history", "history")
"""What belongs to the question beside it."""


def _object(value: Any) -> Any:
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _answer_of(value: Any, path: str) -> tuple[Any, Row]:
    """The message that a server answered with, and what else it said, by its path."""
    value = _object(value)
    if isinstance(value, str):
        return value, {}
    if isinstance(value, dict) and isinstance(value.get("choices"), list):
        choices = value["choices"]
        if len(choices) != 1 or not isinstance(choices[0], dict) or not isinstance(choices[0].get("message"), dict):
            raise RowFault(f"{path}.choices", f"expected one answer with a message, got {len(choices)}")
        if (reason := choices[0].get("finish_reason")) == "length":
            raise RowFault(f"{path}.choices[0].finish_reason", "the answer was cut at its longest length: leave it out")
        more = {f"{path}.{name}": item for name, item in value.items() if name != "choices" and item is not None}
        return [choices[0]["message"]], more | ({f"{path}.finish_reason": reason} if reason else {})
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        return value["messages"], {f"{path}.{name}": item for name, item in value.items() if name != "messages"}
    if isinstance(value, dict) and ("role" in value or "content" in value):
        return [{"role": "assistant", **value}], {}
    text = next((name for name in ("output", "text", "answer") if isinstance(value, dict) and name in value), None)
    if text is None:
        raise RowFault(path, f"expected the answer of a chat server (choices, or a message), got {kind_of(value)}")
    return value[text], {f"{path}.{name}": item for name, item in value.items() if name != text}
