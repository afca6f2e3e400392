"""A real Cerbos on loopback, from the package that npm has."""

import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

PACKAGE = "@cerbos/cerbos-linux-x64@0.51.0"


def program() -> Path:
    """The program, which npm has: fetched once, and kept for the next run."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "llmops-tests" / "cerbos-0.51.0"
    if not (cache / "cerbos").exists():
        cache.mkdir(parents=True, exist_ok=True)
        fetched = subprocess.run(
            ["npm", "pack", PACKAGE, "--silent"], cwd=cache, capture_output=True, text=True, timeout=300, check=False
        )
        if fetched.returncode:
            raise RuntimeError(f"these tests need npm, and `npm pack {PACKAGE}` failed:\n{fetched.stderr[-2000:]}")
        archive = next(cache.glob("*.tgz"))
        with tarfile.open(archive) as packed:
            source = packed.extractfile("package/cerbos-linux-x64")
            assert source is not None
            with open(cache / "cerbos.new", "wb") as target:
                shutil.copyfileobj(source, target)
        (cache / "cerbos.new").chmod(0o755)
        (cache / "cerbos.new").replace(cache / "cerbos")
        archive.unlink()
    return cache / "cerbos"


@contextmanager
def cerbos_at(port: int, grpc_port: int, folder: Path) -> Iterator[str]:
    """The URL of a Cerbos on `port` that has the policies in `folder / "policies"`, and looks at them for changes."""
    command = [str(program()), "server", f"--set=storage.disk.directory={folder / 'policies'}"]
    command += [f"--set=server.httpListenAddr=127.0.0.1:{port}", f"--set=server.grpcListenAddr=127.0.0.1:{grpc_port}"]
    command += ["--set=telemetry.disabled=true", "--set=storage.driver=disk"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.05)
        assert httpx.get(f"http://127.0.0.1:{port}/_cerbos/health", trust_env=False).status_code == 200
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
