"""What a killed platform leaves behind ends by itself, and the next one waits for it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llmops_assets.local import stack
from llmops_assets.specs.settings import Settings
from llmops_assets.with_parent import MODULE, PARENT

SERVER = """
import json, os, subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-m", {module!r}, "http.server", "0", "--bind", "127.0.0.1"],
    env={{**os.environ, {parent!r}: str(os.getpid())}}, stdout=subprocess.PIPE, text=True, bufsize=1,
    start_new_session=True,
)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def component() -> tuple[subprocess.Popen, int]:
    """A process that started a component which serves, and the component's id."""
    script = SERVER.format(module=MODULE, parent=PARENT)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    pid = int(parent.stdout.readline())
    yield parent, pid
    parent.kill()
    parent.wait()
    if psutil.pid_exists(pid):
        psutil.Process(pid).kill()


def test_a_component_ends_with_the_process_that_started_it(
    component: tuple[subprocess.Popen, int], tmp_path: Path
) -> None:
    parent, pid = component
    assert psutil.Process(pid).cmdline()[1:4] == ["-m", MODULE, "http.server"]
    (tmp_path / "components.json").write_text(json.dumps([pid]))
    parent.kill()
    parent.wait()
    stack.await_remains(Settings(home=tmp_path, _env_file=None))
    assert not stack._is_component(pid)


def test_a_component_that_does_not_end_is_told(
    component: tuple[subprocess.Popen, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "STOP_SECONDS", 0.3)
    _, pid = component
    (tmp_path / "components.json").write_text(json.dumps([pid]))
    began = time.monotonic()
    with pytest.raises(stack.StackError, match=rf"left processes that do not end: \[{pid}\]"):
        stack.await_remains(Settings(home=tmp_path, _env_file=None))
    assert time.monotonic() - began >= 0.3


def test_another_process_of_the_same_number_is_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "components.json").write_text(json.dumps([os.getpid(), 2**22 + 1]))
    stack.await_remains(Settings(home=tmp_path, _env_file=None))


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_what_does_not_end_in_order_is_killed_with_what_it_started(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    environment = {**os.environ, "PYTHONPATH": f"{stack.REPOSITORY}:{tmp_path}"}
    script = SERVER.format(module=MODULE, parent=PARENT).replace(
        '"http.server", "0", "--bind", "127.0.0.1"', '"stubborn"'
    )
    script = script.replace("child.stdout.readline()", "print(child.stdout.readline(), end='', flush=True)")
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    left = [psutil.Process(int(parent.stdout.readline())) for _ in range(2)]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(left, timeout=60)
    assert not alive


ENDS_IN_ORDER = """
import signal, sys, time
name, last, file = sys.argv[1:]
def end(number, frame):
    # What a run that is cut off still does takes a while.
    time.sleep(float(last))
    with open(file, "a") as ended:
        ended.write(name + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    time.sleep(1)
"""


def test_the_gateway_serves_until_the_runs_have_ended(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    platform = stack.Stack(Settings(home=tmp_path, _env_file=None), pages=False)
    for component in platform.components:
        last = "0.5" if component.name == "code server" else "0"
        command = [sys.executable, "-c", ENDS_IN_ORDER, component.name, last, str(ended)]
        component.process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    for component in platform.components:
        assert component.process.stdout.readline() == b"ready\n"
    platform.stop()
    assert all(component.process.poll() == 0 for component in platform.components)
    order = ended.read_text().split("\n")
    assert order.index("code server") < min(order.index("gateway"), order.index("shipper"))


DEAF_AS_DAGSTER = """
import time
from dagster._utils.interrupts import setup_interrupt_handlers
setup_interrupt_handlers()
print("ready", flush=True)
time.sleep(600)
"""


def test_a_component_started_where_interrupts_are_ignored_still_ends_when_it_is_asked(tmp_path: Path) -> None:
    (tmp_path / "daemon_like.py").write_text(DEAF_AS_DAGSTER)
    environment = {**os.environ, "PYTHONPATH": f"{stack.REPOSITORY}:{tmp_path}"}
    # What a shell without job control does for `llmops demo &`.
    command = f"trap '' INT; exec {sys.executable} -m {MODULE} daemon_like"
    component = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert component.stdout.readline() == "ready\n"
        component.terminate()
        assert component.wait(timeout=60) is not None
    finally:
        component.kill()
        component.wait()


RUNS = """
import multiprocessing, time
from llmops_assets.with_parent import end_a_run_with_its_code_server

def run():
    end_a_run_with_its_code_server()
    time.sleep(600)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=run)
    process.start()
    print(process.pid, flush=True)
    process.join()
"""


def test_a_run_ends_with_its_code_server(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(RUNS)
    environment = {**os.environ, "PYTHONPATH": str(stack.REPOSITORY)}
    command = [sys.executable, str(tmp_path / "server.py")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    run = psutil.Process(int(server.stdout.readline()))
    server.kill()
    server.wait()
    run.wait(timeout=60)
    assert not run.is_running()
