"""The nginx of a server on this machine: the configuration that is delivered, with this machine's paths and ports."""

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from llmops_assets.local.stack import REPOSITORY, free_port
from tests.debian import program

UPSTREAMS = {"gateway": 8080, "console": 8090, "webserver": 3000, "mlflow": 5000, "prometheus": 9090, "grafana": 3000}
UPSTREAMS |= {"webserver-readonly": 3000}
"""What the delivered configuration calls the servers behind it, and where each listens in its container."""


@dataclass(frozen=True)
class Door:
    """A running nginx: its address, the certificate that it shows, and the password of `admin`."""

    url: str
    certificate: Path
    password: str

    def client(self, *, logged_in: bool = False) -> httpx.Client:
        """A client that believes this certificate alone; `logged_in`: with the cookie that `Echo` takes for a login."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        cookies = {"session": "admin"} if logged_in else None
        return httpx.Client(base_url=self.url, verify=context, cookies=cookies, trust_env=False, timeout=60)

    def speaks(self, version: ssl.TLSVersion) -> bool:
        """Whether a connection of that version of TLS comes about."""
        context = ssl.create_default_context(cafile=str(self.certificate))
        # Else this side would refuse before the server could.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        port = int(self.url.rsplit(":", 1)[1])
        try:
            with (
                socket.create_connection(("127.0.0.1", port)) as plain,
                context.wrap_socket(plain, server_hostname="localhost"),
            ):
                return True
        except ssl.SSLError:
            return False


@contextmanager
def nginx(folder: Path, secrets: Path, upstreams: Mapping[str, int]) -> Iterator[Door]:
    """An nginx in front of `upstreams` (ports of loopback by name), with the secrets of a rendered server folder."""
    port, work = free_port("127.0.0.1"), folder / "nginx"
    work.mkdir()
    # Its workers are nobody where the tests are root, and have to reach what was rendered for them.
    work.chmod(0o777)
    dead = free_port("127.0.0.1")
    here = {"listen 8443": f"listen 127.0.0.1:{port}", "/run/secrets": f"{secrets}"}
    here |= dict.fromkeys(("/etc/llmops", "/tmp"), f"{work}") | dict.fromkeys(
        ("/dev/stderr", "/dev/stdout"), f"{work}/log"
    )
    for file in (REPOSITORY / "deploy" / "nginx").glob("*.conf"):
        text = file.read_text(encoding="utf-8")
        for name, inside in UPSTREAMS.items():
            text = text.replace(f"http://{name}:{inside}", f"http://127.0.0.1:{upstreams.get(name, dead)}")
        # In one go: what is put in may hold what is looked for.
        text = re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], text)
        (work / file.name).write_text(text, encoding="utf-8")
    (work / "resolver.conf").write_text("", encoding="utf-8")
    binary = program("nginx", "nginx-light")
    command = [binary, "-c", f"{work}/nginx.conf", "-g", "daemon off; user root;", "-e", f"{work}/log"]
    with open(work / "out", "wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert process.poll() is None and time.monotonic() < deadline, (work / "out").read_text()
            time.sleep(0.05)
        password = (secrets / "admin.password").read_text().strip()
        yield Door(f"https://localhost:{port}", secrets / "tls.crt", password)
    finally:
        process.terminate()
        process.wait(30)
