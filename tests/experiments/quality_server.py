"""A model server whose answers have a defined quality: it knows the answers in its model's folder, and no others.

It takes the arguments of `python -m images.serve`, and runs without the packages of the environment: it starts at once.
"""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

UNKNOWN = "그건 제가 잘못 알고 있습니다."


class Page(BaseHTTPRequestHandler):
    """The health page and chat completions."""

    protocol_version = "HTTP/1.1"
    # An answer leaves in one piece: two would wait for each other's acknowledgement.
    wbufsize = -1
    known: dict[str, str] = {}

    def do_GET(self) -> None:
        self.answer({"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = self.known.get(body["messages"][-1]["content"], UNKNOWN)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "model"}
        self.answer({**head, "choices": [choice], "usage": usage})

    def answer(self, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: a line a request is of no use to a test."""


class Server(ThreadingHTTPServer):
    """As many waiting connections as the gateway opens at once."""

    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    given = dict(zip(sys.argv[3::2], sys.argv[4::2], strict=False))
    Page.known = json.loads(Path(given["--model"], "answers.json").read_text(encoding="utf-8"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Server((given["--host"], int(given["--port"])), Page).serve_forever()


if __name__ == "__main__":
    main()
