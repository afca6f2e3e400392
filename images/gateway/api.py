"""What the gateway can be asked: every path and method, and what answers it behind the layers."""

from collections.abc import Callable, Sequence

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway


class Router:
    """Finds the operation of a request; what is none is answered too, by operations of their own."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.operations = tuple(operations)
        self._exact = {(o.method, o.path): o for o in operations if "{" not in o.path}
        self._patterns = [(o.path.split("/"), o) for o in operations if "{" in o.path]
        self.unknown_path = Operation("*", "*", _unknown_path)
        self.unknown_method = Operation("*", "*", self._unknown_method)

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str] | None]:
        """The operation of a request, and what stands for the names in its path."""
        if (found := self._exact.get((method, path))) is not None:
            return found, None
        if (matched := self._match(method, path)) is not None:
            return matched
        if method == "HEAD":
            return self.find("GET", path)
        return (self.unknown_method if self._methods(path) else self.unknown_path), None

    def _match(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        for pattern, operation in self._patterns:
            if operation.method == method and (found := _parameters(pattern, path)) is not None:
                return operation, found
        return None

    def _methods(self, path: str) -> list[str]:
        exact = {method for method, known in self._exact if known == path}
        return sorted(exact | {o.method for pattern, o in self._patterns if _parameters(pattern, path) is not None})

    async def _unknown_method(self, call: Call) -> Answer:
        allowed = ", ".join(self._methods(call.scope["path"]))
        raise ApiError(
            405,
            f"{call.scope['path']} takes {allowed}, not {call.scope['method']}",
            code="method_not_allowed",
            extra={"Allow": allowed},
        )


def _parameters(pattern: list[str], path: str) -> dict[str, str] | None:
    parts = path.split("/", len(pattern) - 1)
    if len(parts) != len(pattern):
        return None
    found = {}
    for name, part in zip(pattern, parts, strict=True):
        if name.startswith("{"):
            if not part:
                return None
            found[name[1:-1]] = part
        elif name != part:
            return None
    return found


async def _unknown_path(call: Call) -> Answer:
    raise ApiError(404, f"the gateway has no {call.scope['method']} {call.scope['path']}", code="unknown_url")


def operations(gateway: Gateway) -> list[Operation]:
    """Everything that one gateway can be asked."""
    from images.gateway import feedback, pages
    from images.gateway.chat.page import chat_page

    def bound(handler: Callable) -> Proceed:
        async def answer(call: Call) -> Answer:
            return await handler(gateway, call)

        return answer

    return [
        Operation("POST", "/v1/chat/completions", _no_model, kind="chat"),
        Operation("POST", "/v1/completions", _no_model, kind="completions"),
        Operation("POST", "/v1/embeddings", _no_model, kind="embeddings"),
        *(Operation(method, "/v1/responses", _no_responses) for method in ("POST", "GET")),
        Operation("POST", "/v1/feedback", bound(feedback.rate)),
        Operation("GET", "/v1/models", bound(pages.models)),
        Operation("GET", "/v1/models/{id}", bound(pages.model)),
        Operation("GET", "/chat", bound(chat_page), is_open=True),
        Operation("GET", "/healthz", bound(pages.alive), is_open=True),
        Operation("GET", "/readyz", bound(pages.health), is_open=True),
        Operation("GET", "/health", bound(pages.health)),
    ]


async def _no_responses(call: Call) -> Answer:
    raise ApiError(
        404, "the gateway has no Responses API: post messages to /v1/chat/completions instead", code="unknown_url"
    )


async def _no_model(call: Call) -> Answer:
    raise ApiError(500, "no layer asked a model server")
