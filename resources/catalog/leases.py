"""Leases: who may act, among processes and machines that share a catalog; one at a time, and none for ever."""

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction

SECONDS = 15.0
"""How long a holder may be silent before another takes its place."""


class LeaseLost(RuntimeError):
    """Another has the lease by now: what its former holder was about to write is refused."""


class Lease:
    """The lease of one name, for one who may come to hold it.

    It ends when it is given back, when its holder ended on this machine, or when nobody renewed it for `seconds`, which
    whoever waits measures on its own monotonic clock: no clock of a wall is asked, so none that is set matters. Each
    holder has a greater `token` than those before; what is written under an earlier one is refused (`verify`).
    """

    def __init__(self, database: Database, name: str, seconds: float = SECONDS) -> None:
        self.database = database
        self.name = name
        self.seconds = seconds
        self.token: int | None = None
        # A lease is of an object: two of one process are two.
        self._me = f"{_process()} {uuid.uuid4().hex[:8]}"
        self._met: tuple[int, int, float] | None = None

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the lease for the time of the block, renewed meanwhile; False when another has it."""
        if not self.acquire():
            yield False
            return
        ended = threading.Event()
        renewing = threading.Thread(target=self._keep, args=(ended,), name=f"lease {self.name}", daemon=True)
        renewing.start()
        try:
            yield True
        finally:
            ended.set()
            self.release()

    def acquire(self) -> bool:
        """Take the lease unless another has it; True when it is ours, also when it was before."""
        table = t.leases
        # Most who ask wait for another: they need not keep anybody from writing.
        known = self.database.rows(sa.select(table).where(table.c.name == self.name))
        if known and known[0]["holder"] and not self._is_ours(known[0]) and not self._is_over(known[0]):
            return False
        with self.database.write("lease") as transaction:
            free: Row = {"name": self.name, "holder": "", "token": 0, "beat": 0, "seconds": self.seconds}
            transaction.insert_missing(table, free)
            row = transaction.only(sa.select(table).where(table.c.name == self.name), lock=True)
            if self._is_ours(row):
                return True
            if row["holder"] and not self._is_over(row):
                return False
            token = row["token"] + 1
            mine = {"holder": self._me, "token": token, "beat": row["beat"] + 1, "seconds": self.seconds}
            transaction.execute(table.update().where(table.c.name == self.name).values(mine))
        self.token, self._met = token, None
        return True

    def renew(self) -> bool:
        """Say that we are still there; False when the lease is another's by now."""
        statement = t.leases.update().where(*self._mine()).values(beat=t.leases.c.beat + 1)
        with self.database.write("lease") as transaction:
            return transaction.changed(statement) == 1

    def release(self) -> None:
        """Give the lease back, if it is ours."""
        with self.database.write("lease") as transaction:
            transaction.changed(t.leases.update().where(*self._mine()).values(holder=""))
        self.token = None

    def verify(self, transaction: Transaction) -> None:
        """Raise LeaseLost unless the lease is ours, and hold it so until the transaction ends."""
        found = transaction.first(sa.select(t.leases.c.token).where(*self._mine()), lock=True)
        if found is None:
            raise LeaseLost(f"the lease {self.name!r} is another's by now")

    def check(self) -> None:
        """Raise LeaseLost unless the lease is ours at this moment."""
        if not self.database.rows(sa.select(t.leases.c.token).where(*self._mine())):
            raise LeaseLost(f"the lease {self.name!r} is another's by now")

    def holder(self) -> str | None:
        """Who has the lease: host, process namespace, process and its start; None when nobody has."""
        rows = self.database.rows(sa.select(t.leases.c.holder).where(t.leases.c.name == self.name))
        return rows[0]["holder"] or None if rows else None

    def beats(self) -> int:
        """How often the lease was taken or renewed so far, by anybody: while it grows, somebody holds it."""
        return self.database.scalar(sa.select(t.leases.c.beat).where(t.leases.c.name == self.name)) or 0

    def _mine(self) -> tuple[sa.ColumnElement[bool], ...]:
        table = t.leases
        return table.c.name == self.name, table.c.holder == self._me, table.c.token == (self.token or -1)

    def _is_ours(self, row: Row) -> bool:
        return row["holder"] == self._me and row["token"] == self.token

    def _is_over(self, row: Row) -> bool:
        if _has_ended(row["holder"]):
            return True
        current, at = (row["token"], row["beat"]), time.monotonic()
        if self._met is None or self._met[:2] != current:
            self._met = (*current, at)
        return at - self._met[2] >= row["seconds"]

    def _keep(self, ended: threading.Event) -> None:
        while not ended.wait(self.seconds / 3):
            try:
                if not self.renew():
                    return
            except Exception:  # noqa: BLE001  a database that is away is asked again until the lease is over
                continue


def _process() -> str:
    return f"{_machine()} {os.getpid()} {psutil.Process().create_time():.2f}"


def _machine() -> str:
    """This machine and its namespace of process ids: containers of one host may have its name."""
    try:
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _has_ended(holder: str) -> bool:
    """Whether the process that holds a lease was of this machine and is no more."""
    machine, pid, started, _object = holder.rsplit(" ", 3)
    if machine != _machine() or not Path("/proc/self").exists():
        return False
    try:
        process = psutil.Process(int(pid))
        return abs(process.create_time() - float(started)) > 2.0 or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
