"""`return_token_ids` for `transformers serve`, as vLLM has it: the ids that a model saw and said, beside its answer.

Text alone hides what goes wrong in serving: two templates can read alike, a second BOS is no character, and an answer
that another stop token ended looks whole.
"""

import json
from contextvars import ContextVar
from typing import Any

# A request is answered in one task, so what its generation leaves here is its own.
_seen: ContextVar[list[tuple[list[int], list[int]]] | None] = ContextVar("token_ids", default=None)


def note(prompt_ids: list[int], token_ids: list[int]) -> None:
    """Keep the ids of the answer under way, where its request asked for them."""
    if (kept := _seen.get()) is not None:
        kept.append((list(prompt_ids), list(token_ids)))


def handler(chat_handler: type) -> type:
    """A subclass of transformers' chat handler that answers `return_token_ids` (not for streams)."""

    class TokenIdHandler(chat_handler):
        async def handle_request(self, body: dict, request_id: str) -> Any:
            if not body.pop("return_token_ids", False) or body.get("stream"):
                return await super().handle_request(body, request_id)
            from fastapi.responses import JSONResponse

            kept: list[tuple[list[int], list[int]]] = []
            token = _seen.set(kept)
            try:
                response = await super().handle_request(body, request_id)
            finally:
                _seen.reset(token)
            answer = json.loads(response.body)
            if kept:
                answer["prompt_token_ids"], answer["choices"][0]["token_ids"] = kept[0]
            return JSONResponse(answer, status_code=response.status_code)

    return TokenIdHandler
