"""Why a credential was not taken, as HTTP says it."""

from images.gateway.errors import ApiError

REALM = 'Bearer realm="llmops"'


def unknown_caller(message: str, *, code: str = "invalid_api_key", is_missing: bool = False) -> ApiError:
    """A 401 with the challenge of RFC 6750; `is_missing` where there was no credential at all to say anything of."""
    description = message.replace('"', "'").encode("ascii", "replace").decode()
    challenge = REALM if is_missing else f'{REALM}, error="invalid_token", error_description="{description}"'
    return ApiError(401, message, code=code, extra={"WWW-Authenticate": challenge})
