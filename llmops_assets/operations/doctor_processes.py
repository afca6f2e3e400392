"""What is wrong around an installation's processes: daemon, ports, who holds the catalog, who may read its keys."""

import socket
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import psutil
import sqlalchemy as sa

from llmops_assets.wiring import Wiring
from resources.backup.walk import KEYS

BEATS_WITHIN_SECONDS = 300.0
"""A part of Dagster's daemon says every half minute that it is there; a busy machine is given time."""
LOCKED_SECONDS = 3.0
IDLE_SECONDS = 120.0

Found = Iterator[tuple[Literal["ok", "warning", "fault"], str, str]]
"""(state, what was found, what to do)."""


def daemon(wiring: Wiring) -> Found:
    """Whether Dagster's daemon beats: without it no sensor looks, and nothing that is queued begins."""
    beats = wiring.run_log.daemon_beats()
    advice = "start it again: llmops up, or on a server make server-logs SERVICE=daemon"
    if not beats:
        yield "warning", "Dagster's daemon has never run here", advice
        return
    late = {kind: time.time() - at for kind, at in beats.items() if time.time() - at > BEATS_WITHIN_SECONDS}
    if late:
        words = ", ".join(f"{kind.lower()} for {age / 60:,.0f} min" for kind, age in sorted(late.items()))
        yield "fault", f"Dagster's daemon does not beat ({words}): nothing that is wanted begins", advice
    else:
        yield "ok", f"{len(beats)} parts beat", ""


def ports(wiring: Wiring) -> Found:
    """Ports of this installation that somebody else listens on, so that it could not start."""
    settings = wiring.settings
    named = {
        "LLMOPS_GATEWAY_PORT": settings.gateway_port,
        "LLMOPS_GATEWAY_ADMIN_PORT": settings.gateway_admin_port or settings.gateway_port + 1,
        "LLMOPS_CONSOLE_PORT": settings.console_port,
        "LLMOPS_DAGSTER_PORT": settings.dagster_port,
        "LLMOPS_MLFLOW_PORT": settings.mlflow_port,
    }
    for variable, port in named.items():
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            if probe.connect_ex((settings.host, port)) != 0:
                continue
        who = _listener(port)
        what = f"port {port} is taken{f' by {who}' if who else ''}, and this platform is not running"
        yield "warning", what, f"end that, or give another port: {variable}"


def _listener(port: int) -> str | None:
    """The program that listens on a port, as far as one may see it."""
    try:
        pids = [
            one.pid
            for one in psutil.net_connections("tcp")
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr[1] == port
        ]
        pid = next((pid for pid in pids if pid), None)
        return None if pid is None else f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return None


def catalog_lock(wiring: Wiring) -> Found:
    """Whether somebody keeps all others from writing to the catalog."""
    url = sa.make_url(wiring.settings.catalog)
    if url.get_backend_name() == "sqlite":
        yield from _file_lock(Path(url.database or ""))
        return
    engine = sa.create_engine(wiring.settings.catalog, connect_args={"connect_timeout": 5})
    idle = (
        "SELECT pid, application_name, extract(epoch FROM now() - state_change) AS seconds FROM pg_stat_activity WHERE "
        "datname = current_database() AND state LIKE 'idle in transaction%' AND now() - state_change > :age"
    )
    try:
        with engine.connect() as connection:
            rows = connection.execute(sa.text(idle.replace(":age", f"interval '{IDLE_SECONDS:g} seconds'"))).all()
    finally:
        engine.dispose()
    for pid, application, seconds in rows:
        who = f"a session (process {pid} of the database, {application or 'unnamed'})"
        what = f"{who} has left a transaction open for {seconds:,.0f} s"
        yield "warning", what, f"it may hold locks that others wait for: SELECT pg_terminate_backend({pid})"


def _file_lock(file: Path) -> Found:
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=rw", uri=True, timeout=LOCKED_SECONDS)) as connection:
            connection.isolation_level = None
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if "locked" not in str(error):
            return
        holders = _openers(file)
        who = f", which {', '.join(holders)} has open" if holders else ""
        what = f"{file} has been locked for {LOCKED_SECONDS:g} s{who}: nobody else can write"
        yield "fault", what, "wait for what it does (a migration, a backup), or end that process"


def _openers(file: Path) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        try:
            if any(one.path == str(file.resolve()) for one in process.open_files()):
                found.append(f"{process.info['name']} (process {process.info['pid']})")
        except psutil.Error:
            continue
    return found


def key_files(wiring: Wiring) -> Found:
    """Files of the home with keys that others may read."""
    root = wiring.settings.root
    names = [root / "spool" / "key"] if (root / "spool" / "key").exists() else []
    names += [path for path in sorted(root.glob("*")) if path.name.endswith(KEYS) and path.is_file()]
    for path in names:
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077:
            yield "warning", f"others may read {path} (mode {mode:o})", f"chmod 600 {path}"
