"""A model server that starts at once and does as it is ordered, and a child that is gone at a given line."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import FrameType
from typing import Any

STAND_IN = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import signal

arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
orders = Path("orders").read_text() if Path("orders").exists() else ""
if "die" in orders:
    sys.exit("the model does not fit")

class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"status": "ok"})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "hi"}
        choice = {"message": message, "finish_reason": "stop"}
        self.answer(200, {"choices": [choice], "usage": {"completion_tokens": 1}})
    def answer(self, code, body):
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass

signal.signal(signal.SIGTERM, lambda *_: None if "deaf" in orders else sys.exit(0))
ThreadingHTTPServer((arguments["--host"], int(arguments["--port"])), Page).serve_forever()
"""


def in_a_process(body: Callable[[], None], line: int | None = None, *files: str) -> int:
    """The exit code of a child that runs `body`, and is gone as by kill -9 once it executed `line` lines of `files`."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    lines = 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(files):
            return None
        if event == "line":
            lines += 1
            if lines == line:
                os._exit(9)
        return trace

    try:
        if line is not None:
            sys.settrace(trace)
        body()
        os._exit(0)
    except BaseException:  # noqa: BLE001
        os._exit(1)


@contextmanager
def answering(listed: dict[str, Any], counts: int = 1 << 30) -> Iterator[str]:
    """A server that says `listed` of its model, answers every question alike, and sees `counts` letters of one."""

    class Alike(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"object": "list", "data": [listed]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen = min(counts, sum(len(message["content"]) for message in asked["messages"]))
            choice = {"message": {"role": "assistant", "content": "네."}, "finish_reason": "stop"}
            self._answer({"choices": [choice], "usage": {"prompt_tokens": seen, "completion_tokens": 2}})

        def _answer(self, value: dict[str, Any]) -> None:
            body = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads who asked."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Alike) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
