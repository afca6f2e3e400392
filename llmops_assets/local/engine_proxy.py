"""Stands between runs and a container engine: `python -m llmops_assets.local.engine_proxy --image NAMES …`."""

import argparse
import http.client
import json
import logging
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from resources.engine_rules import NotAllowed, Rules, asked_of, container_of, is_ours, may_run

log = logging.getLogger("engine-proxy")
_MOST_BYTES = 1024 * 1024


class Engine:
    """The engine behind its socket; each call has a connection of its own, because one waits for hours."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, method: str, target: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """(status, content type, body) of the engine's answer. Raises OSError or HTTPException where it is away."""
        connection = http.client.HTTPConnection("engine")
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.connect(str(self.path))
            headers = {} if body is None else {"Content-Type": "application/json"}
            connection.request(method, target, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", "application/json"), answer.read()
        finally:
            connection.close()

    def look(self, what: str, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image or a container; None where it knows none of that name."""
        status, _, body = self.ask("GET", f"/{what}/{name}/json")
        if status == 404:
            return None
        if status != 200:
            raise OSError(f"the engine answers {status} to a question about {what[:-1]} {name}")
        found = json.loads(body)
        return found if isinstance(found, dict) else None


def answer_to(engine: Engine, rules: Rules, method: str, target: str, body: bytes) -> tuple[int, str, bytes]:
    """What a run is answered; raises NotAllowed where it may not ask for that."""
    asked = asked_of(method, target)
    sent: bytes | None = None
    if asked.kind == "create":
        wanted = container_of(body, rules)
        image = engine.look("images", wanted["Image"])
        if image is None:
            return 404, "application/json", json.dumps({"message": f"No such image: {wanted['Image']}"}).encode()
        if not may_run(image, rules):
            raise NotAllowed(f"image {wanted['Image']}: those of {', '.join(rules.images)}… alone")
        # By its content: a name may be given to another image between looking and creating.
        sent = json.dumps({**wanted, "Image": image["Id"]}).encode()
    elif asked.kind == "container":
        container = engine.look("containers", asked.subject or "")
        if container is not None and not is_ours(container):
            raise NotAllowed(f"container {asked.subject}: it is none of ours")
    elif asked.kind == "image":
        image = engine.look("images", asked.subject or "")
        if image is not None and not may_run(image, rules):
            raise NotAllowed(f"image {asked.subject}: those of {', '.join(rules.images)}… alone")
    return engine.ask(method, asked.target, sent)


def server(engine: Engine, rules: Rules, host: str, port: int) -> ThreadingHTTPServer:
    """An HTTP server that passes on what may be asked of the engine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            size = self.headers.get("Content-Length") or "0"
            if not size.isdecimal() or int(size) > _MOST_BYTES or self.headers.get("Transfer-Encoding"):
                # What was not read would be taken for the next request.
                self.close_connection = True
                self._send(413, "application/json", b'{"message": "no call is as large as this"}')
                return
            body = self.rfile.read(int(size))
            try:
                found = answer_to(engine, rules, self.command, self.path, body)
            except NotAllowed as error:
                log.warning("refused: %s", error)
                found = 403, "application/json", json.dumps({"message": f"not allowed here: {error}"}).encode()
            except (OSError, http.client.HTTPException, ValueError) as error:
                log.error("the engine at %s does not answer: %s", engine.path, error)
                found = 502, "application/json", json.dumps({"message": "the engine does not answer"}).encode()
            self._send(*found)

        do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = _answer

        def _send(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            if status not in (204, 304):
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD" and status not in (204, 304):
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing of what passes: a container's environment holds keys."""

    found = ThreadingHTTPServer((host, port), Handler)
    found.daemon_threads = True
    return found


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", type=Path, default=Path("/run/engine.sock"))
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=2375)
    parser.add_argument("--image", action="append", required=True, help="how names of images begin; again for more")
    parser.add_argument("--bind", action="append", required=True, help="HOST:CONTAINER:rw; again for more")
    parser.add_argument("--user", required=True, help="UID:GID of every container")
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    rules = Rules(tuple(a.image), a.user, frozenset(a.bind))
    serving = server(Engine(a.socket), rules, a.host, a.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=serving.shutdown).start())
    serving.serve_forever()


if __name__ == "__main__":
    main()
