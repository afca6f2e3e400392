"""Puts passages into a prompt as data, and says in an answer which they were."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

NOTHING_FOUND = {
    "ko": "등록된 문서에서 이 질문에 대한 내용을 찾지 못해 답변드리지 않습니다.",
    "en": "The documents hold nothing about this question, so it is not answered.",
}
_HANGUL = re.compile("[가-힣ㄱ-ㅎㅏ-ㅣ]")
_FINISH = re.compile(rb'"finish_reason":\s*"')
# What the tokenizers of the policy's families take for a control token. A model server that takes text as text gets a
# space more; one that does not would end the turn there, or refuse the request.
_CONTROL = re.compile(
    r"<[|｜][^<>|｜\n]{1,64}[|｜]>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|mask)>|"
    r"\[(?:AVAILABLE_TOOLS|/AVAILABLE_TOOLS|TOOL_RESULTS|/TOOL_RESULTS|TOOL_CALLS|SYSTEM_PROMPT|/SYSTEM_PROMPT)\]"
)
_TAG = re.compile(r"<(?=\s*/?\s*passage)", re.IGNORECASE)
_NUMBER = re.compile(r"^(\s*)\[(\d{1,3})\]", re.MULTILINE)
CONTEXT, PASSAGES, QUESTION = "{context}", "{passages}", "{question}"


def plain(text: str) -> str:
    """A text in which no control token of a model is left: each has a space behind its first character."""
    return _CONTROL.sub(lambda match: f"{match.group()[0]} {match.group()[1:]}", text)


def rendered(template: str, question: str, passages: Sequence[Mapping[str, Any]]) -> str:
    """The template with the question, and with the passages as data: what they hold cannot end the place they stand in.

    `{context}` numbers them as readers are trained (`training.reader`), `{passages}` puts each into a tag of its own.
    What is put in is never read as a template.
    """
    name, one = (PASSAGES, _tagged) if PASSAGES in template else (CONTEXT, _numbered)
    block = "\n\n".join(one(number, passage) for number, passage in enumerate(passages, 1))
    before, _, after = template.partition(name)
    return block.join(part.replace(QUESTION, question) for part in (before, after))


def _numbered(number: int, passage: Mapping[str, Any]) -> str:
    text = _NUMBER.sub(r"\1(\2)", plain(passage["text"].strip()))
    return f"[{number}] {text}"


def _tagged(number: int, passage: Mapping[str, Any]) -> str:
    text = _TAG.sub("< ", plain(passage["text"].strip()))
    return f'<passage id="{passage["id"]}">\n{text}\n</passage>'


def with_passages(
    messages: Sequence[Mapping[str, Any]], template: str, passages: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The conversation with the user's last message behind the passages that were found for it."""
    found = [dict(message) for message in messages]
    for message in reversed(found):
        if message.get("role") == "user":
            message["content"] = rendered(template, _text(message.get("content")), passages)
            break
    return found


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content or [] if isinstance(part, dict) and part.get("type") == "text")


def citations(passages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What an answer says of the passages that its model was given; `index` is their number in the prompt."""
    fields = ("id", "document", "page", "heading", "score", "cosine", "bm25", "rerank")
    return [
        {"index": number, **{name: passage[name] for name in fields if passage.get(name) not in (None, "")}}
        for number, passage in enumerate(passages, 1)
    ]


def cited(body: bytes, more: Mapping[str, Any]) -> bytes:
    """A whole answer with `more` beside its choices; what is no answer stays as it is."""
    try:
        answer = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body
    if not isinstance(answer, dict) or not isinstance(answer.get("choices"), list):
        return body
    return msgspec.json.encode({**answer, **more})


async def cited_events(events: AsyncIterator[bytes], more: Mapping[str, Any]) -> AsyncIterator[bytes]:
    """A stream with `more` in the last event that has a choice: the one that says why the answer ends."""
    async for lines in events:
        yield _with_citations(lines, more) if _FINISH.search(lines) else lines


def _with_citations(lines: bytes, more: Mapping[str, Any]) -> bytes:
    out = []
    for line in lines.split(b"\n"):
        data = line[5:].strip() if line.startswith(b"data:") else b""
        if not data or not _FINISH.search(data):
            out.append(line)
            continue
        out.append(b"data: " + cited(data, more))
    return b"\n".join(out)


def refusal(question: str, own: str | None) -> str:
    """What is answered where nothing was found: the endpoint's own words, or ours in the language of the question."""
    return own or NOTHING_FOUND["ko" if _HANGUL.search(question) else "en"]


def refused(request_id: str, created: int, model: str, text: str, more: Mapping[str, Any]) -> bytes:
    """A whole answer that no model gave."""
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion",
            "created": created,
            "model": model,
            "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            **more,
        }
    )


async def refused_events(
    request_id: str, created: int, model: str, text: str, more: Mapping[str, Any], wants_usage: bool
) -> AsyncIterator[bytes]:
    """The same as a stream."""
    head = {"id": f"chatcmpl-{request_id}", "object": "chat.completion.chunk", "created": created, "model": model}

    def event(choices: list[dict[str, Any]], **rest: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**head, "choices": choices, **rest}) + b"\n\n"

    yield event([{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}])
    yield event([{"index": 0, "delta": {}, "finish_reason": "stop"}], **more)
    if wants_usage:
        yield event([], usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    yield b"data: [DONE]\n\n"
