"""The exit code of `llmops` says what kind of error it was: a program can tell «never» from «later»."""

from collections.abc import Callable

import pytest

from llmops_assets.cli.common import Exit, err, guard
from llmops_assets.local.stack import StackError
from llmops_assets.operations.errors import Failed, Forbidden, Refused, Unavailable, Withheld
from resources.catalog import Conflict, NotFound
from resources.event_log import Busy


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("no"), Exit.INVALID),
        (Forbidden("no"), Exit.INVALID),
        (Conflict("no"), Exit.INVALID),
        (NotFound("no"), Exit.INVALID),
        (ValueError("no"), Exit.INVALID),
        (Withheld("no"), Exit.WITHHELD),
        (Failed("no"), Exit.FAILED),
        (Unavailable("no"), Exit.UNAVAILABLE),
        (StackError("no"), Exit.UNAVAILABLE),
        (Busy("runs work on what is to be erased"), Exit.UNAVAILABLE),
    ],
)
def test_an_error_of_a_kind_has_its_code_and_one_line(error: Exception, code: Exit) -> None:
    with err.capture() as printed:
        assert guard(raising(error)) == code
    assert printed.get() == f"error: {error}\n"


def test_what_nobody_foresaw_is_no_exit_code() -> None:
    with pytest.raises(ZeroDivisionError):
        guard(raising(ZeroDivisionError("x")))
