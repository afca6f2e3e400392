"""Starts, watches and stops the processes that serve models; they outlive the run that started them."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from llmops_assets.specs.names import check_key
from llmops_assets.specs.policy import ServingPolicy
from resources.catalog import Backend, Busy, Catalog, Endpoint, NotFound
from resources.content import ContentChanged
from resources.environment import engine_python, passed_on
from resources.server_guard import is_same_server, listens, verify_model

Health = Literal["ok", "failing", "silent", "gone"]

# Below the ports that Linux gives to outgoing connections, which could take a port between choosing and binding it.
_PORTS = range(20000, 32000)
# The clock that start times are computed from may be set meanwhile.
_SAME_START_SECONDS = 2.0
_KILL_SECONDS = 5.0
_LOCK_SECONDS = 4 * 3600.0
"""As long as no rollout takes: it loads a model, waits for it, and drains another."""
_MARK = "LLMOPS_BACKEND"
_QUESTION = "안녕하세요"
_NOT_STARTED = "a model server is not started again"


class ServerError(RuntimeError):
    """A model server did not start, answer or stop; the message ends with its log where there is one."""


class ServedFilesChanged(ServerError):
    """The folder of a model is not what was registered, so no server is started on it."""


class EngineMissing(ServerError):
    """The environment of the wanted engine is not there."""


@dataclass(frozen=True)
class Answer:
    """A completion: its text, its length in tokens, and the seconds that it took.

    `prompt_ids` and `token_ids` are what the model saw and said, where that was asked for and the engine tells.
    """

    text: str
    tokens: int
    seconds: float
    finish_reason: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None


def answer_of(completion: dict[str, Any], seconds: float) -> Answer:
    """The answer in a chat completion of the OpenAI protocol; LookupError or TypeError when it is none."""
    choice = completion["choices"][0]
    prompt_ids, token_ids = completion.get("prompt_token_ids"), choice.get("token_ids")
    return Answer(
        choice["message"]["content"],
        completion["usage"]["completion_tokens"],
        seconds,
        choice.get("finish_reason"),
        None if prompt_ids is None else tuple(prompt_ids),
        None if token_ids is None else tuple(token_ids),
    )


def new_backend(
    id: str, *, endpoint: str, model_ref: str, model_path: str, engine: str, runtime: dict[str, Any]
) -> Backend:
    """A model server that is to be started: it has no process and no address yet."""
    return Backend(
        id=id,
        endpoint=endpoint,
        model_ref=model_ref,
        model_path=model_path,
        engine=engine,
        runtime=runtime,
        url="",
        pid=None,
        pid_started=None,
        state="starting",
        log_path=None,
        created_at=datetime.now(UTC),
    )


class ModelServers:
    """The model servers of this machine: a backend in the catalog, a process, and a folder under `state_dir` each.

    `engines` holds the environments of engines that have their own (``<engines>/vllm``). `threads` caps the CPU threads
    of one server. Deadlines and the size of the key-value cache come from the policy.
    """

    def __init__(
        self,
        catalog: Catalog,
        state_dir: Path | str,
        *,
        policy: ServingPolicy,
        engines: Path | str = ".engines",
        host: str = "127.0.0.1",
        threads: int | None = None,
        python: str = sys.executable,
    ) -> None:
        self.catalog = catalog
        self.state_dir = Path(state_dir).absolute()
        self.policy = policy
        self.engines = Path(engines).absolute()
        self.host = host
        self.threads = threads
        self.python = python
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @contextmanager
    def exclusively(self, endpoint: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of an endpoint's servers, against every machine that shares the catalog.

        Yields False when `wait` is off and another process holds it; raises `Busy` when it is held for hours.
        """
        with ExitStack() as stack:
            try:
                held = self.catalog.database.lock(f"endpoint {endpoint}", timeout=_LOCK_SECONDS if wait else 0.0)
                stack.enter_context(held)
            except Busy:
                if wait:
                    raise
                yield False
                return
            yield True

    # starting

    def start(self, backend: Backend) -> Backend:
        """Put `backend` on record, start its process and return at once; `wait_healthy` tells when it answers.

        Of `backend`, id, endpoint, model_ref, model_path, engine and runtime count; runtime may hold max_input_tokens,
        max_output_tokens, device (cpu) and dtype (auto). The process has a session of its own and outlives us; it
        listens on a free port and logs to a file. One that runs under this id already is kept.
        """
        folder, model_path = self.state_dir / check_key(backend.id), Path(backend.model_path).absolute()
        if not (model_path / "config.json").is_file():
            raise ServerError(f"{model_path} holds no config.json: it is no model folder that could be served")
        if backend.engine == "vllm":
            self.vllm_python()
        known = self._on_record(backend.id)
        if known is not None and self.alive(known) and is_same_server(known, backend):
            return known
        try:
            # At every start, the one after a crash too: the folder may have been written over since it was deployed.
            verify_model(backend)
        except ContentChanged as error:
            raise ServedFilesChanged(str(error)) from error
        self._end(self._marked(backend.id))
        folder.mkdir(parents=True, exist_ok=True)
        # A name without `@` or `:`, which `transformers serve` would read as a revision and a file.
        link = folder / "model"
        link.unlink(missing_ok=True)
        link.symlink_to(model_path)
        port = _free_port(self.host)
        starting = replace(
            backend,
            url=f"http://{self.host}:{port}",
            pid=None,
            pid_started=None,
            state="starting",
            log_path=str(folder / "server.log"),
        )
        # On record before it runs: what we do not live to write down would run on unknown.
        if known is None:
            self.catalog.add_backend(starting)
        else:
            self._update(starting)
        running = self._spawn(starting, folder, port)
        self._update(running)
        return running

    def _spawn(self, backend: Backend, folder: Path, port: int) -> Backend:
        with open(folder / "server.log", "ab") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {backend.engine} {backend.model_path}\n".encode())
            log.flush()
            child = subprocess.Popen(
                self._command(backend, port),
                cwd=folder,
                env=self._environment(backend),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._children[child.pid] = child
        return replace(backend, pid=child.pid, pid_started=psutil.Process(child.pid).create_time())

    def _command(self, backend: Backend, port: int) -> list[str]:
        command = [self.python, "-m", "images.serve", "--engine", backend.engine, "--model", "model"]
        command += ["--host", self.host, "--port", str(port)]
        for name in ("max_input_tokens", "max_output_tokens", "device", "dtype", "gpus"):
            if backend.runtime.get(name) is not None:
                command += [f"--{name.replace('_', '-')}", str(backend.runtime[name])]
        policy = self.policy
        command += ["--cache-blocks", str(policy.cb_num_blocks), "--cache-block-tokens", str(policy.cb_block_size)]
        command += ["--batch-tokens", str(policy.cb_max_batch_tokens)]
        command += ["--drain-seconds", str(int(policy.stop_timeout_seconds))]
        if backend.engine == "vllm":
            command += ["--vllm-python", str(self.vllm_python())]
        return command

    def vllm_python(self) -> Path:
        """The Python of vLLM's environment; EngineMissing says how to get one."""
        python = engine_python(self.engines, "vllm")
        if not python.exists():
            raise EngineMissing(
                f"the engine vllm has no environment at {python.parent.parent}: make one with `make engines`, "
                "or leave `engine: vllm` out of the spec"
            )
        return python

    def _environment(self, backend: Backend) -> dict[str, str]:
        environment = passed_on("VLLM_") | {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        environment[_MARK] = self._mark(backend.id)
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        if backend.engine == "vllm":
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            environment["VLLM_NO_USAGE_STATS"] = "1"
        return environment

    # watching

    def alive(self, backend: Backend) -> bool:
        """Whether the backend's process runs; another process that was given its id since does not count."""
        return self._process(backend) is not None

    def health(self, backend: Backend, timeout: float = 2.0) -> Health:
        """What the backend says of itself: ok, failing (it says so), silent (no answer in time), or gone."""
        if not self.alive(backend):
            return "gone"
        try:
            with urllib.request.urlopen(f"{backend.url}/health", timeout=timeout) as response:
                return "ok" if response.status == 200 else "failing"
        except urllib.error.HTTPError:
            return "failing"
        except OSError:
            return "silent"

    def wait_healthy(self, backend: Backend, deadline: float | None = None) -> Answer:
        """Wait until the backend is up and has answered a completion; note it as healthy and return that answer.

        `deadline` is in seconds, the policy's start timeout by default. Raises ServerError when the process ends, does
        not come up in time, or answers anything but a completion.
        """
        seconds = self.policy.start_timeout_seconds if deadline is None else deadline
        until = time.monotonic() + seconds
        pause = 0.05
        while (health := self.health(backend)) != "ok":
            if health == "gone":
                raise ServerError(f"the model server {backend.id} ended while it started{self._log_tail(backend)}")
            if time.monotonic() > until:
                tail = self._log_tail(backend)
                raise ServerError(f"the model server {backend.id} is not up after {seconds:.0f} s{tail}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        if listens(self._family(backend), urlsplit(backend.url).port or 0) is False:
            raise ServerError(
                f"{backend.url} is answered by another process than the model server {backend.id}: an old server was "
                f"left running there. End it, and deploy again{self._log_tail(backend)}"
            )
        question = [{"role": "user", "content": _QUESTION}]
        answer = self.complete(backend, question, timeout=max(1.0, until - time.monotonic()))
        self.catalog.update_backend(backend.id, state="healthy")
        return answer

    def complete(
        self,
        backend: Backend,
        messages: list[dict[str, Any]],
        *,
        max_tokens: int = 16,
        token_ids: bool = False,
        tools: list[dict[str, Any]] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Ask the backend itself, past the gateway, for a greedy completion; raises ServerError when it gives none."""
        body: dict[str, Any] = {"model": "model", "messages": messages, "max_tokens": max_tokens, "temperature": 0}
        if token_ids:
            body["return_token_ids"] = True
        if tools:
            body["tools"] = tools
        request = urllib.request.Request(
            f"{backend.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                answer = answer_of(json.load(response), time.monotonic() - begun)
        except urllib.error.HTTPError as error:
            reply = error.read(2000).decode("utf-8", "replace")
            raise ServerError(
                f"the model server {backend.id} answered {error.code}: {reply}{self._log_tail(backend)}"
            ) from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ServerError(
                f"the model server {backend.id} gave no completion: {error!r}{self._log_tail(backend)}"
            ) from error
        if not isinstance(answer.text, str) or not answer.tokens:
            raise ServerError(f"the model server {backend.id} generated nothing{self._log_tail(backend)}")
        return answer

    @contextmanager
    def probe_server(
        self, id: str, model_ref: str, model_path: str, engine: str, runtime: dict[str, Any]
    ) -> Iterator[Backend]:
        """A server of a model that no endpoint routes to, healthy, for as long as the body takes.

        One at a time under an id; one that was cut off is ended by the next of its id, or when the platform stops.
        """
        with self.exclusively(id):
            self.stop(id)
            probe = new_backend(
                id, endpoint=id, model_ref=model_ref, model_path=model_path, engine=engine, runtime=runtime
            )
            try:
                running = self.start(probe)
                self.wait_healthy(running)
                yield running
            finally:
                self.stop(id)

    # stopping

    def stop(self, id: str) -> None:
        """Stop a backend and all processes that it started, and take it off the record.

        SIGTERM first, so that requests in flight are answered; SIGKILL after the policy's stop timeout. Raises
        ServerError when a process is still there after that: the backend then stays on record as `stopping`, to be
        stopped again. Stopping what does not run is no error.
        """
        if self._on_record(id) is None:
            self._end(self._marked(id))
            return
        self._halt(id, state="stopping")
        self.catalog.remove_backend(id)

    def suspend(self) -> list[str]:
        """Stop all backends but keep them on record for `reconcile`; what could not be stopped, with its reason."""
        faults = []
        for backend in self.catalog.backends():
            try:
                self._halt(backend.id, state="stopped")
            except ServerError as error:
                faults.append(str(error))
        return faults

    def _halt(self, id: str, state: str) -> None:
        """End the processes of a backend and note `state`, with which it goes without an address."""
        backend = self.catalog.backend(id)
        if backend.state != "stopping":
            self.catalog.update_backend(id, state=state)
        self._end(self._marked(id), leader=self._process(backend))
        self.catalog.update_backend(id, url="", pid=None, pid_started=None)

    def _end(self, processes: list[psutil.Process], leader: psutil.Process | None = None) -> None:
        """End processes, the gentle way first; ServerError when one of them does not go.

        With a `leader` only that is asked: it ends its own helpers when what is in flight is answered.
        """
        family = list({process.pid: process for process in [*processes, *([leader] if leader else [])]}.values())
        try:
            for process in [leader] if leader else family:
                _send(process, signal.SIGTERM)
            left = self._wait_gone(family, self.policy.stop_timeout_seconds)
            for process in left:
                _send(process, signal.SIGKILL)
            left = self._wait_gone(left, _KILL_SECONDS)
        except psutil.AccessDenied as error:
            raise ServerError(f"process {error.pid} of a model server belongs to another user") from error
        if left:
            pids = ", ".join(str(process.pid) for process in left)
            raise ServerError(f"a model server does not end, even when killed: process {pids} is still there")

    def _wait_gone(self, processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
        """Wait up to `seconds` and return the processes that are still there."""
        until = time.monotonic() + seconds
        while True:
            self._reap()
            processes = [process for process in processes if _runs(process)]
            if not processes or time.monotonic() > until:
                return processes
            time.sleep(0.05)

    # keeping

    def reconcile(self, *, wait: bool = True) -> list[str]:
        """Bring processes in line with the catalog; what was done and what failed, a sentence each.

        A backend that an endpoint routes to and that is gone or failing is started again, on another port, which the
        gateway learns from the catalog. What no endpoint routes to (left by a deployment that was cut off, or by a
        stop that failed) is stopped, and an endpoint that is being deleted is forgotten once its backends are gone.
        Endpoints that a deployment is working on are left alone. With `wait` off nothing waits for a model to load:
        call again to see it healthy.
        """
        done: list[str] = []
        for endpoint in self.catalog.endpoints():
            with self.exclusively(endpoint.name, wait=False) as ours:
                if ours:
                    done += self._reconcile(endpoint.name, wait)
        return done

    def _reconcile(self, name: str, wait: bool) -> list[str]:
        try:
            endpoint = self.catalog.endpoint(name)
        except NotFound:
            # Deleted since the endpoints were listed.
            return []
        done: list[str] = []
        if endpoint.state == "deploying":
            # Whoever deploys holds the lock that we hold.
            done += self._note_cut_off(endpoint)
        routed = {route["backend_id"] for route in endpoint.routes} if endpoint.state != "deleting" else set()
        started: list[Backend] = []
        for backend in self.catalog.backends(endpoint.name):
            try:
                if backend.id not in routed:
                    self.stop(backend.id)
                    done.append(f"stopped {backend.id}, which {endpoint.name} does not route to")
                    continue
                health = self.health(backend, timeout=10.0)
                silent_again = health == "silent" and backend.state == "unhealthy"
                if health in ("gone", "failing") or silent_again or self._starts_too_long(backend, health):
                    self._end(self._marked(backend.id))
                    started.append(self._start_again(backend))
                    done.append(f"started {backend.id} of {endpoint.name} again: it was {health}")
                elif health == "silent" and backend.state == "healthy":
                    # Perhaps only busy: it is not killed for one silence.
                    self.catalog.update_backend(backend.id, state="unhealthy")
                    done.append(f"{backend.id} of {endpoint.name} does not answer its health page")
                elif health == "ok" and backend.state != "healthy":
                    self.wait_healthy(backend)
            except ServerError as error:
                self.catalog.update_backend(backend.id, state="unhealthy")
                done.append(f"{endpoint.name}: {error}")
        for backend in started if wait else []:
            try:
                self.wait_healthy(backend)
            except ServerError as error:
                self.catalog.update_backend(backend.id, state="unhealthy")
                done.append(f"{endpoint.name}: {error}")
        if endpoint.state == "deleting" and not self.catalog.backends(endpoint.name):
            self.catalog.remove_endpoint(endpoint.name, actor="reconcile")
            done.append(f"removed endpoint {endpoint.name}")
        return done

    def _start_again(self, backend: Backend) -> Backend:
        """Start a backend; where its files are not what was registered it stays down, and its endpoint says why."""
        endpoint = self.catalog.endpoint(backend.endpoint)
        known = {"expected_revision": endpoint.revision, "expected_state": endpoint.state}
        held = endpoint.message.startswith(_NOT_STARTED)
        try:
            running = self.start(backend)
        except ServedFilesChanged as error:
            if not held:
                message = f"{_NOT_STARTED}: {error}"
                self.catalog.update_endpoint(endpoint.name, state="failed", message=message, **known)
            raise
        if held and endpoint.state == "failed":
            self.catalog.update_endpoint(endpoint.name, state="live", message="", **known)
        return running

    def _note_cut_off(self, endpoint: Endpoint) -> list[str]:
        message = "its last deployment was cut off"
        state = "pending" if endpoint.revision > endpoint.observed_revision else "live"
        changed = self.catalog.update_endpoint(
            endpoint.name,
            expected_revision=endpoint.revision,
            expected_state="deploying",
            state=state,
            message=f"{message}; another run is asked for" if state == "pending" else message,
        )
        return [f"{endpoint.name}: {message}"] if changed else []

    def _starts_too_long(self, backend: Backend, health: Health) -> bool:
        age = time.time() - (backend.pid_started or time.time())
        return health == "silent" and backend.state == "starting" and age > self.policy.start_timeout_seconds

    # what lies beneath

    def _on_record(self, id: str) -> Backend | None:
        return next((backend for backend in self.catalog.backends() if backend.id == id), None)

    def _update(self, backend: Backend) -> None:
        values = {name: value for name, value in vars(backend).items() if name not in ("id", "created_at")}
        self.catalog.update_backend(backend.id, **values)

    def _process(self, backend: Backend) -> psutil.Process | None:
        self._reap()
        if backend.pid is None or backend.pid_started is None:
            return None
        try:
            process = psutil.Process(backend.pid)
            if abs(process.create_time() - backend.pid_started) > _SAME_START_SECONDS:
                return None
            return process if _runs(process) else None
        except psutil.NoSuchProcess:
            return None

    def _family(self, backend: Backend) -> list[psutil.Process]:
        """The processes of a backend: its leader and what carries its mark."""
        leader = self._process(backend)
        return [*([leader] if leader else []), *self._marked(backend.id)]

    def _reap(self) -> None:
        """Take leave of children that ended: until then they keep their process id."""
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]

    def _mark(self, id: str) -> str:
        return f"{self.state_dir}:{id}"

    def _marked(self, id: str) -> list[psutil.Process]:
        """The processes that carry the backend's mark in their environment: the server and all that it started."""
        mark = self._mark(id)
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(_MARK) == mark and _runs(process):
                    found.append(process)
            except (psutil.Error, OSError):
                # Gone since, or of another user: not ours.
                continue
        return found

    def _log_tail(self, backend: Backend, lines: int = 15) -> str:
        path = backend.log_path or ""
        try:
            with open(path, "rb") as log:
                log.seek(max(0, os.path.getsize(path) - 8000))
                tail = log.read().decode("utf-8", "replace").splitlines()[-lines:]
        except OSError:
            return ""
        return "\n".join([f"; its log {path} ends with:", *tail])


def _free_port(host: str) -> int:
    """A port that nobody listens on."""
    for port in random.sample(_PORTS, 200):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def _runs(process: psutil.Process) -> bool:
    """Whether the very process that `process` stands for still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
