"""A real HTTP server that speaks the chat API and answers by a rule, or badly, or not at all."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_PASSAGE = re.compile(r"<passage>\n(.*)\n</passage>", re.DOTALL)


def rule(body: dict[str, Any], number: int) -> dict[str, Any]:
    """Every sentence of the passage is an answer; one more answer says what no passage says."""
    text = _PASSAGE.search(body["messages"][1]["content"])[1]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    sentences = [s.strip() for s in re.split(r"(?<=[.!?])\s+", " ".join(lines)) if len(s.strip()) > 12]
    pairs = [{"question": f"{s.split()[0]} {n}번 규정이 무엇인가요?", "answer": s} for n, s in enumerate(sentences[:2])]
    pairs.append(
        {"question": f"{sentences[0][:12]} 말고 다른 것은?", "answer": "화성 탐사선은 겨울마다 은빛 고래를 노래합니다."}
    )
    return {"pairs": pairs}


class Server:
    """What it was asked, and how it answers: `modes` are used in turn, the last one for ever."""

    def __init__(self, *modes: str) -> None:
        self.modes = list(modes) or ["good"]
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        self.ending = threading.Event()

    def mode(self) -> str:
        with self._lock:
            return self.modes.pop(0) if len(self.modes) > 1 else self.modes[0]

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield
        finally:
            with self._lock:
                self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: Any) -> None:
        return

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.state.counted():
            mode = self.state.mode()
            if mode == "strict" and "response_format" in body:
                self._send(400, {"error": {"message": "this endpoint's engine has no `response_format`"}})
                return
            self.state.asked.append(body)
            self.state.headers.append(dict(self.headers))
            getattr(self, f"_{mode}")(body)

    def _complete(self, text: Any, finish: str = "stop") -> None:
        text = text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
        self._send(200, {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}]})

    def _send(self, status: int, value: Any, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def _good(self, body: dict[str, Any]) -> None:
        self._complete(rule(body, len(self.state.asked)))

    _strict = _good

    def _fenced(self, body: dict[str, Any]) -> None:
        self._complete(f"```json\n{json.dumps(rule(body, 0))}\n```")

    def _prose(self, _body: dict[str, Any]) -> None:
        self._complete("Sure! Here are some questions about the text.")

    def _wrong(self, _body: dict[str, Any]) -> None:
        self._complete({"pairs": [{"question": 5, "answer": "x"}]})

    def _cut(self, _body: dict[str, Any]) -> None:
        self._complete('{"pairs": [', finish="length")

    def _bytes(self, _body: dict[str, Any]) -> None:
        self._send(200, b"\xff\xfe\x00 not json")

    def _busy(self, _body: dict[str, Any]) -> None:
        self._send(429, {"error": {"message": "busy"}}, Retry_After="0")

    def _down(self, _body: dict[str, Any]) -> None:
        self._send(503, b"<html>bad gateway</html>")

    def _refused(self, _body: dict[str, Any]) -> None:
        self._send(400, {"error": {"message": "the prompt has 745 tokens and this model takes 512"}})

    def _missing(self, _body: dict[str, Any]) -> None:
        self._send(404, {"error": {"message": "no model small"}})

    def _locked(self, _body: dict[str, Any]) -> None:
        self._send(401, {"error": {"message": "no"}})

    def _elsewhere(self, _body: dict[str, Any]) -> None:
        self._send(307, b"", Location="http://127.0.0.1:9/v1/chat/completions")

    def _slow(self, _body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        try:
            while not self.state.ending.wait(0.05):
                self.wfile.write(b" ")
        except OSError:
            self.close_connection = True

    def _endless(self, _body: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while not self.state.ending.is_set():
                self.wfile.write(b" " * (1 << 20))
        except OSError:
            pass
        self.close_connection = True


@contextmanager
def serving(*modes: str) -> Iterator[tuple[str, Server]]:
    """The base address of a server on a free port, and its state."""
    state = Server(*modes)
    handler = type("Handler", (_Handler,), {"state": state})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", state
    finally:
        state.ending.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
