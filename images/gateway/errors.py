"""Errors in the shape that OpenAI's API gives them, which its clients turn into exceptions."""

import msgspec
from starlette.responses import JSONResponse

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error"}
_TYPES |= {404: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error"}


_LONGEST_MESSAGE = 1000
_LONGEST_PARAM = 200


class ApiError(Exception):
    """An answer with an HTTP status of 400 or above; `code` is for programs, `message` for people.

    `retry_after` (seconds) and `extra` headers go with it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        # What a client wrote may stand in it, and be as long as it likes.
        self.message = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
        self.code = code
        self.param = param if param is None else param[:_LONGEST_PARAM]
        self.retry_after = 1 if retry_after is None and status in (429, 503) else retry_after
        self.extra = extra or {}

    @property
    def kind(self) -> str:
        """The type of the error as OpenAI names it."""
        return _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def encoded(self) -> bytes:
        """The body in JSON; what is no text in UTF-8 is replaced."""
        try:
            return msgspec.json.encode(self.body())
        except UnicodeEncodeError:
            self.message = self.message.encode("utf-8", "replace").decode()
            self.param = None if self.param is None else self.param.encode("utf-8", "replace").decode()
            return msgspec.json.encode(self.body())

    def event(self) -> bytes:
        """The error as an event of a stream, which OpenAI's clients raise."""
        return b"data: " + self.encoded() + b"\n\n"

    def headers(self) -> dict[str, str]:
        return self.extra if self.retry_after is None else {"Retry-After": str(self.retry_after), **self.extra}

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers={**self.headers(), **(headers or {})})
