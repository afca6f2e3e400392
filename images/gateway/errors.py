"""Errors in the shape that OpenAI's API gives them, which its clients turn into exceptions."""

from starlette.responses import JSONResponse

_TYPES = {400: "invalid_request_error", 403: "permission_error", 404: "invalid_request_error"}
_TYPES |= {413: "invalid_request_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An answer with an HTTP status of 400 or above; `code` is for programs, `message` for people."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param

    def body(self) -> dict:
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        extra = {"Retry-After": "1"} if self.status in (429, 503) else {}
        return JSONResponse(self.body(), status_code=self.status, headers={**extra, **(headers or {})})
