"""A server that runs from a folder, as its users reach it and as its engine holds it."""

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener


class Server:
    """A server that runs from a folder, asked as its users ask; containers are killed by their main process."""

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self.engine = folder, engine
        env = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
        self.url = f"https://localhost:{env['LLMOPS_HTTPS_PORT']}"
        self.certificate = folder / "secrets" / "tls.crt"
        self.viewer: str | None = None
        self.key = (folder / "home" / "first-admin.key").read_text().strip()
        context = ssl.create_default_context(cafile=str(self.certificate))
        self.open = build_opener(ProxyHandler({}), HTTPSHandler(context=context)).open

    def ask(self, path: str, body: object = None, key: str | None = None) -> tuple[int, bytes]:
        """(status, body) of a request with a key, by default the first, which opens pages, too; 0 where nobody
        answers."""
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        try:
            with self.open(Request(self.url + path, data=data, headers=headers), timeout=30) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            return error.code, error.read()
        except (URLError, OSError):
            return 0, b""

    def container(self, service: str) -> str:
        """What the engine calls the container of a service."""
        return f"llmops_{service}_1" if "podman" in self.engine else f"llmops-{service}-1"

    def command(self, *words: str) -> str:
        """What `llmops` says inside of the server."""
        command = [self.engine, "exec", self.container("code"), "llmops", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    @contextmanager
    def own_key(self, owner: str, *words: str) -> Iterator[str]:
        """An API key that is made for a while, by the words of `llmops key create`, and revoked afterwards."""
        made = json.loads(self.command("key", "create", owner, "--expires", "12h", "--json", *words))
        try:
            yield str(made["key"])
        finally:
            self.command("key", "revoke", str(made["id"]))

    def process(self, service: str) -> int:
        """The id of a container's main process; 0 while it does not run."""
        asked = [self.engine, "inspect", "--format", "{{.State.Pid}}", self.container(service)]
        return int(subprocess.run(asked, capture_output=True, text=True, check=True).stdout)
