"""What every subcommand shares: settings, output, errors and exit codes."""

import getpass
import json
import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from llmops_assets.specs.base import Spec, SpecError, faults_of

if TYPE_CHECKING:
    from llmops_assets.local.watch import Outcome
    from llmops_assets.operations.datasets import Registered
    from llmops_assets.records.datasets import KeyFate
    from llmops_assets.specs.base import SpecFault
    from llmops_assets.specs.training import TrainJobSpec
    from llmops_assets.wiring import Wiring

S = TypeVar("S", bound=Spec)

# Where nobody looks at a terminal, a table is not squeezed into 80 columns.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Force = Annotated[bool, typer.Option("--force", help="End an A/B test that runs on the endpoint, on record.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress and return when it is done.")]


class Exit(IntEnum):
    """What the exit code of `llmops` says; 2 is a wrong command line.

    INVALID: what was asked for is refused, and asking again changes nothing. WITHHELD: a gate or a missing approval.
    FAILED: it was begun and did not succeed. UNAVAILABLE: what it needs is busy or away, and may be there later.
    """

    OK = 0
    INVALID = 1
    WITHHELD = 3
    FAILED = 4
    UNAVAILABLE = 5


@cache
def wiring() -> "Wiring":
    """The resources of this home, as the environment sets it."""
    from llmops_assets.specs.settings import Settings
    from llmops_assets.wiring import Wiring

    return Wiring(Settings())


def actor() -> str:
    """Who asks, for the audit log; by an API key with its role alone, else as the owner of the machine."""
    if (secret := wiring().settings.actor_secret) is not None:
        from llmops_assets.operations.api_keys import actor_of

        return actor_of(wiring(), secret)
    return os.environ.get("LLMOPS_ACTOR") or getpass.getuser()


def fail(message: str, code: Exit = Exit.INVALID) -> NoReturn:
    """Print why the command failed and end it with that code."""
    err.print(f"[bold red]error:[/] {_escape(message)}")
    raise typer.Exit(int(code))


def _escape(text: str) -> str:
    return text.replace("[", "\\[")


def time_of(text: str) -> datetime:
    """A moment as people write it: ISO 8601; without a zone, this machine's."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is no time: write it as 2026-11-30T09:00 or 2026-11-30T09:00:00+09:00")
    return found if found.tzinfo else found.astimezone()


def say(line: str) -> None:
    """A line of progress, on stderr, so that stdout stays what was asked for."""
    err.print(_escape(line))


def hand_out(key: str, file: Path | None, variable: str | None) -> None:
    """Give a new key to whoever asked: in a file of their own, readable by them alone, or on stdout."""
    if file is None:
        with suppress(OSError, ValueError):
            # `… > FILE` makes a file that everybody may read.
            if stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode):
                os.fchmod(sys.stdout.fileno(), 0o600)
        out.print(key)
        return
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        fail(f"{file} exists; a key is never overwritten: give another name")
    with os.fdopen(handle, "w") as stream:
        stream.write(key + "\n")
    out.print(f"wrote {file}" if variable is None else f"wrote {file}; set {variable}={file}", markup=False)


def print_json(value: Any) -> None:
    """Write a value to stdout as JSON, for programs."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows as a table; cells that are None are empty."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_escape("" if cell is None else str(cell)) for cell in row))
    out.print(table)


SHOWN_KEYS = 40


def show_keys(fates: Sequence["KeyFate"]) -> None:
    """Print what became of the keys of raw rows: used, kept as metadata, or the reason for a refusal."""
    if not fates:
        return
    out.print()
    show("keys of the rows", ["key", "fate", "rows"], [[f.key, f.fate, f"{f.rows:,}"] for f in fates[:SHOWN_KEYS]])
    if len(fates) > SHOWN_KEYS:
        out.print(f"and {len(fates) - SHOWN_KEYS} more: --json has all of them")


def when(moment: datetime | None) -> str:
    """A moment in local time, to the minute; nothing for None."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else ""


def follow(
    partition: str,
    target: str,
    *,
    since: datetime,
    gate: tuple[str, str] | None = None,
    timeout: float = 24 * 3600,
    explain: Callable[[], str] | None = None,
) -> "Outcome":
    """Wait for an asset's partition with progress; without a running platform, one runs for as long as this takes.

    `explain` says what is waited for while nothing runs; left out, how far the runs are.
    """
    from llmops_assets.local.runs import tried_again
    from llmops_assets.local.stack import platform
    from llmops_assets.local.watch import Watcher

    settings = wiring().settings
    with platform(settings) as stack:
        if stack is not None:
            say("no platform is running here: this command runs one until it is done (`llmops up` keeps one)")
        return Watcher(settings, say).wait(
            partition,
            target,
            since=since,
            gate=gate,
            timeout=timeout,
            alive=stack.check if stack else lambda: None,
            explain=explain,
            tried_again=lambda run: tried_again(wiring(), run),
        )


def conclude(outcome: "Outcome") -> None:
    """Say how waiting ended, and exit accordingly."""
    if outcome.state == "done":
        out.print(f"done: asset {outcome.asset}, partition {_escape(outcome.partition)}")
        return
    if outcome.state == "withheld":
        err.print(f"[yellow]withheld:[/] {_escape(outcome.error or '')} (partition {_escape(outcome.partition)})")
        raise typer.Exit(int(Exit.WITHHELD))
    where = f"asset {outcome.asset}, " if outcome.asset else ""
    fail(f"{where}partition {outcome.partition}: {outcome.error} (run {outcome.run_id})", Exit.FAILED)


def say_there(done: "Registered", *, wait: bool) -> None:
    """Say of a version that was ingested before that nothing is to be done, or that it is blocked, which is a failure
    for whoever waits for it."""
    if done.blocked is None:
        out.print("its splits are there; nothing to do")
    elif wait:
        fail(f"its splits are there, and nothing trains on them: {done.blocked}", Exit.FAILED)
    else:
        out.print(f"its splits are there, and nothing trains on them: {_escape(done.blocked)}")


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(UTC)


def load_checked(file: Path, kind: type[S]) -> S:
    """The spec in a file, valid and within the policy; raises SpecError with every fault."""
    from llmops_assets.operations import specs

    return specs.load_checked(wiring(), file, kind)


def pinned(spec: "TrainJobSpec") -> "TrainJobSpec":
    """The spec with the version that its dataset's tag points to now; a tag that was resolved is printed."""
    from llmops_assets.operations import specs

    found = specs.pinned(wiring(), spec)
    if found.dataset_ref != spec.dataset_ref:
        say(f"{spec.dataset_ref} is {found.dataset_ref}")
    return found


def parse_spec(kind: type[S], data: dict[str, Any]) -> S:
    """A spec from values given on the command line; raises SpecError with every fault."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise SpecError(faults_of(error, kind)) from error


def guard(call: Callable[[], None]) -> int:
    """Run the command; an error that is a user's to mend is printed in one line, without a traceback."""
    try:
        call()
    except SpecError as error:
        print_faults(error.faults)
        return int(Exit.INVALID)
    except Exception as error:
        code = _code_of(error)
        if code is None:
            raise
        err.print(f"[bold red]error:[/] {_escape(str(error))}")
        return int(code)
    return int(Exit.OK)


def _code_of(error: Exception) -> Exit | None:
    """The exit code of an error that is a user's to mend; None for any other."""
    # Imported once something went wrong: commands that need no catalog start without it.
    from llmops_assets.local.stack import StackError
    from llmops_assets.operations.errors import Failed, Refused, Unavailable, Withheld
    from resources.catalog import Conflict, NotFound
    from resources.dataset_store import DatasetStoreError
    from resources.encryption import EncryptionError
    from resources.event_log import Busy
    from resources.prompts import UnknownPrompt
    from resources.tracking import UnknownModel

    refused = (Refused, Conflict, NotFound, UnknownModel, UnknownPrompt, DatasetStoreError, EncryptionError)
    refused += (FileNotFoundError,)
    codes: list[tuple[type[Exception] | tuple[type[Exception], ...], Exit]] = [
        (Withheld, Exit.WITHHELD),
        (Failed, Exit.FAILED),
        ((Unavailable, StackError, Busy), Exit.UNAVAILABLE),
        ((*refused, ValueError), Exit.INVALID),
    ]
    return next((code for kinds, code in codes if isinstance(error, kinds)), None)


def print_faults(faults: "Sequence[SpecFault]") -> None:
    """Print every fault of a spec, each with the field that it is in."""
    for fault in faults:
        err.print(f"[bold red]error:[/] {_escape(str(fault))}")
