"""What an upload takes: `python -m benchmarks.upload [MEGABYTES]`.

Starts a console of its own as a process and sends one file of 200 MB (unless given) in pieces of 8 MB, and another as
one multipart request, and prints seconds and the most memory that the console held meanwhile, beside what it held
before. The registration that follows is not counted: it is the operation's, and the same from the command.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import requests

from llmops_assets.local.stack import free_port, prepare_home
from llmops_assets.specs.settings import Settings

PIECE = 8 * 2**20
ROW = '{{"question": "하이패스 단말기 {number}번은 어떻게 등록하나요?", "answer": "{number}번 창구에서 등록합니다."}}\n'


def rows(path: Path, size: int) -> Path:
    """A JSONL file of hardly less than `size` bytes: no more than the policy takes."""
    with open(path, "wb") as file:
        for number in range(0, size, 1000):
            some = "".join(ROW.format(number=n) for n in range(number, number + 1000)).encode()
            if file.tell() + len(some) > size:
                break
            file.write(some)
    return path


def measured(process: psutil.Process, work: Callable[[], None]) -> tuple[float, float]:
    """Seconds that `work` took, and the most MB that a process had in memory meanwhile."""
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return time.perf_counter() - began, peak / 1e6


def in_pieces(api: str, file: Path) -> None:
    """Send a file as a client would that goes on where it broke off."""
    offset = 0
    with open(file, "rb") as source, requests.Session() as session:
        while piece := source.read(PIECE):
            headers = {"Upload-Offset": str(offset)}
            answer = session.put(f"{api}/files/{file.name}", data=piece, headers=headers, timeout=600)
            answer.raise_for_status()
            offset = int(answer.headers["Upload-Offset"])


def as_multipart(api: str, file: Path) -> None:
    """Send a file as curl does, as a stream; the answer waits for no registration."""
    command = ["curl", "--silent", "--show-error", "--fail-with-body", "-o", os.devnull, f"{api}/upload"]
    subprocess.run([*command, "-F", f"files=@{file}"], check=True)


def main() -> None:
    """Print a line a way."""
    size = int(sys.argv[1] if len(sys.argv) > 1 else 200) * 10**6
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port("127.0.0.1")
        prepare_home(Settings(home=folder / "home", _env_file=None))
        file = rows(folder / "rows.jsonl", size)
        environment = {**os.environ, "LLMOPS_HOME": str(folder / "home"), "LLMOPS_CONSOLE_PORT": str(port)}
        with open(folder / "console.log", "wb") as log:
            console = subprocess.Popen(
                [sys.executable, "-m", "images.console"], env=environment, stdout=log, stderr=log
            )
        root = f"http://127.0.0.1:{port}/llm-ops/v1"
        try:
            while True:
                if console.poll() is not None:
                    sys.exit((folder / "console.log").read_text())
                try:
                    if requests.get(f"{root}/health", timeout=5).ok:
                        break
                except requests.ConnectionError:
                    time.sleep(0.1)
            process = psutil.Process(console.pid)
            print(f"{file.stat().st_size / 1e6:,.0f} MB; before: {process.memory_info().rss / 1e6:,.0f} MB in memory")
            for way, send in (("in pieces of 8 MB", in_pieces), ("as one multipart request", as_multipart)):
                entered = {"name": way.split()[0] + "-" + way.split()[1], "version": "v1", "type": "sft_pair"}
                made = requests.post(f"{root}/catalog/datasets", json={**entered, "owner_team": "bench"}, timeout=60)
                made.raise_for_status()
                seconds, megabytes = measured(
                    process, lambda send=send, to=entered: send(f"{root}/catalog/datasets/{to['name']}@v1", file)
                )
                print(f"{way:26} {seconds:6.1f} s  {megabytes:6,.0f} MB at most")
        finally:
            console.terminate()
            console.wait(30)


if __name__ == "__main__":
    main()
