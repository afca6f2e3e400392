"""The processes of the embedded platform: started together, watched, and stopped together."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import psutil

from llmops_assets.specs.settings import Settings
from llmops_assets.with_parent import ALONE, MODULE, PARENT
from resources.artifacts import Artifacts
from resources.at_rest import remove_remains
from resources.gateway_token import ensure_admin_token

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 120
STOP_SECONDS = 30
_COMPONENTS = "components.json"
"""File in the home with the process ids of the components."""
MAX_RESTARTS = 5
"""How often one component is started again before the platform gives up on it."""
# A loopback address must never be asked of a proxy that the environment names.
_open = build_opener(ProxyHandler({})).open


class StackError(RuntimeError):
    """A part of the platform did not start, or ended on its own."""


@dataclass
class Component:
    """One process: the module that it runs with its arguments, and how it is seen to be ready."""

    name: str
    module: str
    port: int | None
    health: str | None = None
    arguments: Sequence[str] = ()
    host: str | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    restarts: int = 0

    @property
    def command(self) -> list[str]:
        # Runs notice by themselves that their server is gone, and their trainers save a checkpoint before they end.
        alone = [ALONE] if self.name == "code server" else []
        return [sys.executable, "-m", MODULE, *alone, *self.module.split(), *self.arguments]

    def ready(self, host: str) -> bool:
        host = self.host or host
        if self.port is None:
            return True
        if self.health is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                return probe.connect_ex((host, self.port)) == 0
        try:
            with _open(f"http://{host}:{self.port}{self.health}", timeout=2) as response:
                return response.status == 200
        except (URLError, OSError):
            return False


def free_port(host: str) -> int:
    """A TCP port of `host` that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def prepare_home(settings: Settings) -> None:
    """Lay out the home folder and the Dagster instance in it; safe to repeat."""
    for name in ("dagster", "artifacts", "logs", "servers", "gpus", "records"):
        (settings.root / name).mkdir(parents=True, exist_ok=True)
    (settings.root).chmod(0o700)
    shutil.copyfile(REPOSITORY / "dagster.yaml", settings.dagster_home / "dagster.yaml")
    ensure_admin_token(settings)
    remove_remains(Artifacts(settings.artifacts))


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every component: the same home and settings, wherever the command was called.

    What a `.env` file says is said to them too: they run in another folder, and would not see it.
    """
    return {
        **settings.as_environment(),
        **os.environ,
        "DAGSTER_HOME": str(settings.dagster_home),
        "LLMOPS_HOME": str(settings.root),
        "PYTHONUNBUFFERED": "1",
        # Many threads that do little would each keep memory of their own.
        "MALLOC_ARENA_MAX": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # Its job runner and seven queues of 280 MB each serve features that nothing here uses.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


class Stack:
    """Code server, daemon, gateway, shipper, reconciler; with `pages` those of Dagster and MLflow and the console, too.

    One stack runs on a home folder at a time, held by a file lock that goes with the process.
    """

    def __init__(self, settings: Settings, *, pages: bool) -> None:
        self.settings = settings
        self.code_port = free_port(settings.host)
        workspace = settings.root / "workspace.yaml"
        host, gateway_host = settings.host, urlsplit(settings.gateway_url).hostname
        self.workspace = workspace
        self.components = [
            Component(
                "code server",
                f"dagster api grpc -m llmops_assets.definitions -h {host} -p {self.code_port} "
                "--location-name llmops --log-level warning",
                self.code_port,
            ),
            # Before the gateway, which ships its log itself where nobody else does.
            Component("shipper", "images.gateway.ship", None),
            Component("gateway", "images.gateway", settings.gateway_port, "/readyz", host=gateway_host),
            Component("reconciler", "llmops_assets.local.reconciler", None),
            Component("daemon", "llmops_assets.local.daemon run", None, arguments=("-w", str(workspace))),
        ]
        if pages:
            self.components += [
                Component("console", "images.console", settings.console_port, "/llm-ops/v1/health"),
                Component(
                    "dagster",
                    f"dagster_webserver -h {host} -p {settings.dagster_port} --log-level warning",
                    settings.dagster_port,
                    "/server_info",
                    arguments=("-w", str(workspace)),
                ),
                Component(
                    "mlflow",
                    f"llmops_assets.local.mlflow_page --host {host} --port {settings.mlflow_port} --workers 1",
                    settings.mlflow_port,
                    "/health",
                    arguments=("--backend-store-uri", settings.mlflow),
                ),
            ]

    def start(self) -> None:
        """Start every component and return once each is ready; raises StackError naming the one that is not."""
        settings = self.settings
        for component in self.components:
            if component.name != "code server" and component.port:
                _refuse_taken_port(component.host or settings.host, component.port, component.name)
        _refuse_taken_port(settings.gateway_address, urlsplit(settings.gateway_admin_url).port or 0, "gateway admin")
        self.workspace.write_text(
            f"load_from:\n  - grpc_server: {{host: {settings.host}, port: {self.code_port}, location_name: llmops}}\n"
        )
        code_server, *rest = self.components
        self._spawn(code_server)
        self._wait(code_server)
        for component in rest:
            self._spawn(component)
        for component in rest:
            self._wait(component)

    def _spawn(self, component: Component) -> None:
        log = self.log_path(component)
        with open(log, "ab") as output:
            component.process = subprocess.Popen(
                component.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**environment(self.settings), PARENT: str(os.getpid())},
                cwd=REPOSITORY,
                # A Ctrl-C is for this process, which then stops the others in order.
                start_new_session=True,
            )
        pids = [c.process.pid for c in self.components if c.process is not None]
        temporary = self.settings.root / f"{_COMPONENTS}.tmp"
        temporary.write_text(json.dumps(pids))
        temporary.replace(self.settings.root / _COMPONENTS)

    def log_path(self, component: Component) -> Path:
        return self.settings.root / "logs" / f"{component.name.replace(' ', '-')}.log"

    def _wait(self, component: Component) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not component.ready(self.settings.host):
            self._check_alive(component)
            if time.monotonic() > deadline:
                raise StackError(
                    f"the {component.name} was not ready within {START_SECONDS} s; see {self.log_path(component)}"
                )
            time.sleep(0.1)

    def _check_alive(self, component: Component) -> None:
        if component.process is not None and component.process.poll() is not None:
            tail = self.log_path(component).read_text(errors="replace").splitlines()[-15:]
            raise StackError(
                f"the {component.name} ended with exit code {component.process.returncode}; "
                f"the end of {self.log_path(component)}:\n" + "\n".join(tail)
            )

    def check(self) -> None:
        """Start a component again that has ended on its own; raise StackError when it keeps ending.

        The code server is the parent of every run: without it nothing goes on, and the next start puts that right.
        """
        for component in self.components:
            if component.process is None or component.process.poll() is None:
                continue
            if component.name == "code server" or component.restarts >= MAX_RESTARTS:
                self._check_alive(component)
            component.restarts += 1
            self._spawn(component)

    def stop(self) -> None:
        """Stop every component, the ones that start work first; kill what does not end in time.

        The gateway and what ships its log end after the runs, which end with the code server: a check of an endpoint
        that is still at work would find no gateway, and stay on record as failed. Cut off, it is taken up again.
        """
        of_answers = [c for name in ("gateway", "shipper") for c in self.components if c.name == name]
        daemon_first = sorted(self.components, key=lambda c: c.name not in ("daemon", "reconciler"))
        _end([c for c in daemon_first if c not in of_answers])
        _end(of_answers)


def _end(components: Sequence[Component]) -> None:
    """End components in their order, all within `STOP_SECONDS`, with what they started."""
    running = [(c.name, c.process) for c in components if c.process is not None and c.process.poll() is None]
    for _name, process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for name, process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if name != "code server":
            with suppress(ProcessLookupError):
                # What it started and left: MLflow's consumers of jobs.
                os.killpg(process.pid, signal.SIGKILL)


def _refuse_taken_port(host: str, port: int, name: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            variable = f"LLMOPS_{name.upper().replace(' ', '_')}_PORT"
            raise StackError(
                f"port {port} on {host} is taken, and the {name} needs it ({error.strerror}). "
                f"Stop what listens there, or set {variable} to another port"
            ) from error


def running(settings: Settings) -> dict[str, Any] | None:
    """What the running stack of this home says of itself, {} while it says nothing, or None when none runs."""
    lock = settings.root / "up.lock"
    if not lock.exists():
        return None
    with open(lock, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return json.loads((settings.root / "up.json").read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                # It is being written, or not there yet.
                return {}
    return None


def _settled(settings: Settings) -> dict[str, Any] | None:
    """What `running` says once a stack that is on its way up or down is there or gone."""
    deadline = time.monotonic() + START_SECONDS
    while (state := running(settings)) is not None and (not state or state.get("stopping")):
        if time.monotonic() > deadline:
            raise StackError(f"the platform on {settings.root} has been starting or stopping for {START_SECONDS} s")
        time.sleep(0.2)
    return state


@contextmanager
def hold(settings: Settings) -> Iterator[None]:
    """Be the one stack of this home; StackError when another is running."""
    settings.root.mkdir(parents=True, exist_ok=True)
    with open(settings.root / "up.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StackError(
                f"a platform is running on {settings.root} already; stop it, or use it as it is"
            ) from error
        yield


def await_remains(settings: Settings) -> None:
    """Wait until the components of an earlier stack are gone: they end by themselves when it was killed.

    Raises StackError when one does not.
    """
    path = settings.root / _COMPONENTS
    pids = json.loads(path.read_text()) if path.exists() else []
    deadline = time.monotonic() + STOP_SECONDS
    while left := [pid for pid in pids if _is_component(pid)]:
        if time.monotonic() > deadline:
            raise StackError(f"a killed platform on {settings.root} left processes that do not end: {left}; kill them")
        time.sleep(0.2)


def _is_component(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and MODULE in process.cmdline()
    except psutil.Error:
        return False


def _settle(settings: Settings) -> None:
    """Put right what an earlier stack left unfinished, in a child: Dagster would take 60 MB of this process."""
    command = [sys.executable, "-m", "llmops_assets.local.settle"]
    ended = subprocess.run(command, env=environment(settings), cwd=REPOSITORY, capture_output=True, text=True)
    if ended.returncode:
        raise StackError(f"what an earlier platform left could not be put right:\n{ended.stderr.strip()[-2000:]}")


@contextmanager
def platform(settings: Settings, *, pages: bool = False) -> Iterator[Stack | None]:
    """The platform for the time of the block: the running one (None), or one of our own that ends with the block."""
    if _settled(settings) is not None:
        yield None
        return
    from llmops_assets.wiring import Wiring

    with hold(settings):
        prepare_home(settings)
        await_remains(settings)
        _settle(settings)
        stack = Stack(settings, pages=pages)
        wiring = Wiring(settings)
        servers = wiring.servers
        state = settings.root / "up.json"
        state.unlink(missing_ok=True)
        try:
            stack.start()
            servers.reconcile()
            about = {"pid": os.getpid(), "pages": pages, "gateway": settings.gateway_url, "keys": wiring.keys.ids}
            state.write_text(json.dumps(about))
            yield stack
        finally:
            state.write_text(json.dumps({"pid": os.getpid(), "stopping": True}))
            stack.stop()
            servers.suspend()
            state.unlink(missing_ok=True)
