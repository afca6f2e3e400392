"""What a client asked of the shape of an answer, it gets, however the model server cuts its events."""

import json

import pytest

from images.gateway.chat_request import with_usage
from images.gateway.engine_support import check_engine
from images.gateway.errors import ApiError
from images.gateway.shaping import Shaper, shaper_of


def event(content: str | None = None, finish: str | None = None, **more) -> bytes:
    delta = {} if content is None else {"content": content}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return f"data: {json.dumps(chunk | {'choices': [choice]} | more, ensure_ascii=False)}\n\n".encode()


DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def relayed(shaper: Shaper, events: list[bytes]) -> tuple[list[dict], bool]:
    """The chunks that a client gets, and whether the end mark is the last thing and came once."""
    out = b"".join(shaper.feed(e) for e in events if not shaper.is_over)
    lines = [line[6:] for line in out.decode().split("\n") if line.startswith("data: ")]
    ended = lines.count("[DONE]") == 1 and lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines if line != "[DONE]"], ended


def text_of(chunks: list[dict]) -> str:
    return "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])


def ends_of(chunks: list[dict]) -> list[str]:
    return [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("stop", "text", "expected"),
    [
        (["끝"], "첫째 줄\n둘째 끝 셋째", "첫째 줄\n둘째 "),
        (["\n\n", "질문:"], "답입니다. 질문: 다음", "답입니다. "),
        (["STOP"], "no ST OP here STO", "no ST OP here STO"),
        (["aab"], "aaaab", "aa"),
        (["x"], "x", ""),
        (["abc", "bc"], "zabc", "z"),
    ],
)
def test_a_stream_ends_before_a_stop_text_wherever_its_events_are_cut(size, stop, text, expected) -> None:
    events = [event(), *(event(text[n : n + size]) for n in range(0, len(text), size))]
    shaper = Shaper(stop, wants_usage=False)
    chunks, ended = relayed(shaper, [*events, event(finish="length", usage=USAGE), DONE])
    assert text_of(chunks) == expected and ended
    stopped = expected != text
    assert ends_of(chunks) == (["stop"] if stopped else ["length"])
    assert not any("usage" in chunk for chunk in chunks)
    # Nothing is read on once it is over, and the log knows how much came.
    assert stopped is (shaper.usage is None) and b"completion_tokens" in shaper.logged_usage


@pytest.mark.parametrize("beside", [True, False])
def test_counts_come_in_an_event_of_their_own_and_only_when_asked(beside: bool) -> None:
    last = [event(finish="stop", usage=USAGE)] if beside else [event(finish="stop")]
    own = [] if beside else [event(usage=USAGE, choices=[])]
    events = [event("a"), event("b"), *last, *own, DONE]
    asked, ended = relayed(Shaper([], wants_usage=True), events)
    assert ended and text_of(asked) == "ab"
    assert [chunk["usage"] for chunk in asked] == [None] * (len(asked) - 1) + [USAGE]
    assert asked[-1]["choices"] == [] and asked[-2]["choices"][0]["finish_reason"] == "stop"
    shaper = Shaper([], wants_usage=False)
    silent, ended = relayed(shaper, events)
    assert ended and not any("usage" in chunk for chunk in silent) and all(chunk["choices"] for chunk in silent)
    assert json.loads(shaper.logged_usage[6:]) == {"usage": USAGE}


def test_counts_that_were_asked_for_are_waited_for_behind_a_stop_text() -> None:
    events = [event("a|b"), event("c"), event(finish="stop", usage=USAGE), DONE]
    chunks, ended = relayed(Shaper(["|"], wants_usage=True), events)
    assert ended and text_of(chunks) == "a" and ends_of(chunks) == ["stop"] and chunks[-1]["usage"] == USAGE


def test_what_nobody_counted_is_not_counted_as_nothing() -> None:
    shaper = Shaper([], wants_usage=True)
    _, ended = relayed(shaper, [event("a"), event(finish="stop"), DONE])
    # Who relays estimates it: else who asks for counts would use up no budget.
    assert ended and shaper.counted is None


def test_calls_and_several_choices_pass_and_each_ends_by_itself() -> None:
    call = {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}, "finish_reason": None}
    two = [{"index": i, "delta": {"content": t}, "finish_reason": None} for i, t in ((0, "a|b"), (1, "c"))]
    later = [{"index": i, "delta": {"content": t}, "finish_reason": None} for i, t in ((0, "b"), (1, "d|"))]
    events = [event(choices=[call]), event(choices=two), event(choices=later)]
    chunks, ended = relayed(Shaper(["|"], wants_usage=False), events)
    assert chunks[0]["choices"] == [call] and ended
    pieces = [(c["index"], c["delta"].get("content", "")) for chunk in chunks for c in chunk["choices"]]
    assert ["".join(text for index, text in pieces if index == i) for i in (0, 1)] == ["a", "cd"]
    assert ends_of(chunks) == ["stop", "stop"]


def test_a_whole_answer_is_cut_too() -> None:
    choice = {"message": {"role": "assistant", "content": "가\n나"}, "finish_reason": "length"}
    body = {"choices": [choice], "usage": USAGE}
    shaped = json.loads(Shaper(["\n", "나"], wants_usage=False).whole(json.dumps(body).encode()))
    assert shaped["choices"][0]["message"]["content"] == "가" and shaped["choices"][0]["finish_reason"] == "stop"
    assert shaped["usage"] == USAGE
    assert Shaper(["x"], wants_usage=False).whole(b"no json") == b"no json"


def test_what_a_request_asks_is_read_from_it() -> None:
    assert shaper_of({"stop": "x"}).whole(b'{"choices":[{"message":{"content":"axb"}}]}').count(b'"a"') == 1
    for body in ({}, {"stop": []}, {"stop": [""]}, {"stop": "a", "include_stop_str_in_output": True}):
        assert shaper_of(body).whole(b'{"choices":[{"message":{"content":"a"}}]}').count(b'"a"') == 1


def test_tools_are_refused_by_an_engine_that_has_none() -> None:
    for body, name in (({"tools": [{"type": "function"}]}, "tools"), ({"tool_choice": "required"}, "tool_choice")):
        with pytest.raises(ApiError, match=f"no `{name}`") as error:
            check_engine("chat", body, "transformers")
        assert (error.value.status, error.value.param) == (400, name)
        check_engine("chat", body, "vllm")
    said = {"messages": [{"role": "user", "content": "hi"}]}
    check_engine("chat", {**said, "tools": [{"type": "function"}]}, "transformers", is_probe=True)
    check_engine("chat", {**said, "tools": [], "tool_choice": "none", "stop": ["x"]}, "transformers")


def test_streams_are_counted_for_the_log_whether_the_client_asks_or_not() -> None:
    assert with_usage({"stream": True}, "vllm")["stream_options"] == {"include_usage": True}
    given = {"stream": True, "stream_options": {"continuous_usage_stats": True}}
    assert with_usage(given, "vllm")["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}
    assert with_usage({"stream": True}, "transformers") == {"stream": True} and with_usage({}, "vllm") == {}
