"""A Redis of the tests' own, on a port of its own, that can be killed and started again."""

import socket
import subprocess
import time
from pathlib import Path

from tests.debian import program


def install() -> str:
    """The program `redis-server` or `valkey-server`: Debian's, where there is none; fails where it cannot be had."""
    return program(("redis-server", "valkey-server"), "redis-server")


class RedisServer:
    """A server without a file: what it knew is gone when it ends, as it is when a machine is lost."""

    def __init__(self, folder: Path) -> None:
        self.program = install()
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        with open(self.folder / "redis.log", "ab") as log:
            self.process = subprocess.Popen([*command, "--dir", str(self.folder)], stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "redis.log").read_text()[-2000:])
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
