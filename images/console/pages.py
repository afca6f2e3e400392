"""Lists in pages behind a cursor, and answers that are not sent again while they are the same."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse, Response

from images.console.problems import Problem

T = TypeVar("T")
Limit = Annotated[int, Query(ge=1, le=200, description="Items on one page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="`next_cursor` of the page before.")]


def page(items: Sequence[T], limit: int, cursor: str | None, key: Callable[[T], str]) -> dict[str, Any]:
    """One page of `items`: those behind the one that the cursor names, which may be gone since.

    Raises Problem 400 for a cursor that no page gave.
    """
    start = 0
    if cursor is not None:
        try:
            last, before = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            if not isinstance(last, str) or not isinstance(before, int) or isinstance(before, bool) or before < 0:
                raise ValueError(cursor)
        except (ValueError, TypeError) as error:
            raise Problem(400, "cursor: no page gave this one; leave it out to begin anew") from error
        at = next((index for index, item in enumerate(items) if key(item) == last), None)
        # What it names is gone: the page goes on where it stood.
        start = before if at is None else at + 1
    shown = items[start : start + limit]
    following = None
    if start + limit < len(items):
        state = json.dumps([key(shown[-1]), start + limit])
        following = base64.urlsafe_b64encode(state.encode()).decode()
    return {"items": list(shown), "next_cursor": following}


def tagged(request: Request, value: Any) -> Response:
    """An answer with an ETag; 304 where the caller has it already."""
    plain = jsonable_encoder(value)
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]
    tag = f'"{digest}"'
    if tag in {part.strip().removeprefix("W/") for part in request.headers.get("if-none-match", "").split(",")}:
        return Response(status_code=304, headers={"ETag": tag})
    return JSONResponse(plain, headers={"ETag": tag})
