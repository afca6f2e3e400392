"""Refuses a request to vLLM whose messages hold control tokens of the model: it has no way to take them as text.

It runs inside vLLM, in whose environment nothing of ours but these modules is there. `transformers serve` takes them as
text (`bounded`); here a user is told which they are, instead of a turn that he forged being answered.
"""

import json
import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from images.control_tokens import ControlTokens, control_tokens_among, held

MODEL_FOLDER = "LLMOPS_SERVED_MODEL"
"""Environment variable: the folder of the model that is served."""
_ASKED = ("/v1/chat/completions",)

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


@lru_cache(maxsize=1)
def of_folder(folder: str) -> ControlTokens:
    """The control tokens of the model in a folder, from its tokenizer's files."""
    place = Path(folder)
    core, config = (_json(place / name) for name in ("tokenizer.json", "tokenizer_config.json"))
    listed = [*core.get("added_tokens", []), *(config.get("added_tokens_decoder") or {}).values()]
    added = tuple({token["content"]: bool(token.get("special")) for token in listed}.items())
    names = (config.get(f"{name}_token") for name in ("bos", "eos", "pad", "unk", "sep", "cls", "mask"))
    special = tuple(name["content"] if isinstance(name, dict) else name for name in names if name)
    file = place / "chat_template.jinja"
    template = file.read_text(encoding="utf-8") if file.is_file() else str(config.get("chat_template") or "")
    return control_tokens_among(added, special, template)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def refusal(body: bytes, tokens: ControlTokens) -> str | None:
    """Why a chat request is not answered: the control tokens in its messages or tools; None where there are none.

    What is no request at all is for the server to refuse.
    """
    try:
        request = json.loads(body)
    except ValueError:
        return None
    messages = request.get("messages") if isinstance(request, dict) else None
    if not isinstance(messages, list):
        return None
    for number, message in enumerate(messages):
        if isinstance(message, dict) and (found := held(tokens, [message])):
            return (
                f"messages[{number}] holds {', '.join(found)}: control tokens of this model, which this server cannot "
                "take as text. Take them out, or write them with a space inside"
            )
    if request.get("tools") and (found := held(tokens, [{"role": "system", "content": request["tools"]}])):
        return f"tools hold {', '.join(found)}: control tokens of this model. Take them out"
    return None


class RefuseControlTokens:
    """ASGI middleware: status 400 for a chat request with control tokens in it, every other request as it is."""

    def __init__(self, app: Callable[[dict[str, Any], Receive, Send], Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("path") not in _ASKED:
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        reason = refusal(body, of_folder(os.environ[MODEL_FOLDER]))
        if reason is not None:
            await _answer(send, reason)
            return
        given = False

        async def again() -> dict[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)


async def _answer(send: Send, reason: str) -> None:
    error = {"error": {"message": reason, "type": "invalid_request_error", "param": "messages", "code": 400}}
    body = json.dumps(error, ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": body})
