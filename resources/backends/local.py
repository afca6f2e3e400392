"""Model servers as processes of this machine; they outlive the process that started them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from llmops_assets.specs.names import check_key
from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends import processes
from resources.backends.completions import health_page
from resources.backends.processes import MARK, START, Children, the_process
from resources.backends.protocol import RETRIEVER, EngineMissing, Health, Record, ServerError
from resources.backends.serve_command import adapter_arguments, serve_arguments, start_of
from resources.catalog import Backend
from resources.environment import engine_python, passed_on
from resources.server_guard import listens


class LocalServers:
    """A process and a folder under `state_dir` for each server.

    `engines` holds the environments of engines that have their own (``<engines>/vllm``). `threads` caps the CPU threads
    of one server; `python` runs the serve module. `retrieval` gives what a retriever finds in its environment: where
    indexes are, and the keys to them; `resolved` finds a path that is stored by its root.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        policy: ServingPolicy,
        engines: Path,
        host: str,
        threads: int | None,
        python: str,
        retrieval: Callable[[], Mapping[str, str]] = dict,
        resolved: Callable[[str], str] = str,
    ) -> None:
        self.state_dir = state_dir
        self.policy = policy
        self.engines = engines
        self.host = host
        self.threads = threads
        self.python = python
        self.retrieval = retrieval
        self.resolved = resolved
        self.children = Children()
        self._asked: set[tuple[int, float]] = set()

    def start(self, backend: Backend, record: Record) -> Backend:
        """Start the process, which has a session of its own, listens on a free port and logs to a file.

        One that was started for this very backend, by somebody who did not live to write its id down, is adopted.
        """
        folder, model = self.state_dir / check_key(backend.id), Path(backend.model_path).absolute()
        if not (model / "config.json").is_file():
            raise ServerError(f"{model} holds no config.json: it is no model folder that could be served")
        if backend.engine == "vllm":
            self.vllm_python()
        if (left := self._adopted(backend)) is not None:
            return left
        # Of another start, or without its leader: a port that nobody knows any more, and memory.
        self._end_at_once(backend)
        folder.mkdir(parents=True, exist_ok=True)
        # A name without `@` or `:`, which `transformers serve` would read as a revision and a file.
        link = folder / "model"
        link.unlink(missing_ok=True)
        link.symlink_to(model)
        url = f"http://{self.host}:{processes.free_port(self.host)}"
        log = str(folder / "server.log")
        starting = replace(backend, url=url, pid=None, pid_started=None, state="starting", log_path=log)
        record(starting)
        return self._spawn(starting, folder)

    def observe(self, backend: Backend, timeout: float = 2.0) -> Health:
        if self.process(backend) is None:
            return "gone"
        return health_page(f"{backend.url}/health", timeout)

    def stop(self, backend: Backend, *, kill: bool = False) -> list[str]:
        """SIGTERM to the leader alone, once: it ends its own helpers when what is in flight is answered."""
        leader = self.process(backend)
        left = processes.marked(self.mark(backend.id))
        family = list({one.pid: one for one in [*left, *([leader] if leader else [])]}.values())
        for one in family if kill or leader is None else [leader]:
            key = (one.pid, one.create_time())
            if kill or key not in self._asked:
                processes.send(one, signal.SIGKILL if kill else signal.SIGTERM)
                self._asked.add(key)
        if kill:
            # What is killed is gone at once, as a rule: one look then sees it.
            processes.wait_gone(family, 0.5, self.children)
        self.children.reap()
        return [f"process {one.pid}" for one in family if processes.runs(one)]

    def logs(self, backend: Backend, lines: int = 15) -> str:
        path = backend.log_path or ""
        try:
            with open(path, "rb") as log:
                log.seek(max(0, os.path.getsize(path) - 8000))
                return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-lines:])
        except OSError:
            return ""

    def process(self, backend: Backend) -> psutil.Process | None:
        """The backend's leading process; None where it is gone, also when another was given its id since."""
        self.children.reap()
        return the_process(backend.pid, backend.pid_started)

    def owns_its_port(self, backend: Backend) -> bool | None:
        """Whether it is this server that listens at its address; None where the system does not tell."""
        leader, port = self.process(backend), urlsplit(backend.url).port or 0
        if leader is not None and listens([leader], port):
            return True
        # Its helpers may have left the family. Looking through all processes takes a while.
        return listens([*([leader] if leader else []), *processes.marked(self.mark(backend.id))], port)

    def processes_of(self, id: str) -> list[psutil.Process]:
        """What runs as the backend of an id, on record or not."""
        return processes.marked(self.mark(id))

    def mark(self, id: str) -> str:
        """What the processes of a backend carry in their environment."""
        return f"{self.state_dir}:{id}"

    def vllm_python(self) -> Path:
        """The Python of vLLM's environment; EngineMissing says how to get one."""
        python = engine_python(self.engines, "vllm")
        if not python.exists():
            raise EngineMissing(
                f"the engine vllm has no environment at {python.parent.parent}: make one with `make engines`, "
                "or leave `engine: vllm` out of the spec"
            )
        return python

    def _adopted(self, backend: Backend) -> Backend | None:
        """The backend with the process that runs as it: of its mark, leading a session, and started as it was."""
        if not backend.url:
            return None
        for process in processes.marked(self.mark(backend.id)):
            try:
                same = process.environ().get(START) == start_of(backend) and os.getsid(process.pid) == process.pid
                if same:
                    return replace(backend, pid=process.pid, pid_started=process.create_time(), state="starting")
            except (psutil.Error, OSError):
                continue
        return None

    def _end_at_once(self, backend: Backend) -> None:
        """Kill what carries the backend's mark and is not the server that is wanted; ServerError when it stays."""
        left = processes.marked(self.mark(backend.id))
        for process in left:
            processes.send(process, signal.SIGKILL)
        if stuck := processes.wait_gone(left, 5.0, self.children):
            pids = ", ".join(str(process.pid) for process in stuck)
            raise ServerError(f"what ran as {backend.id} does not end, even when killed: process {pids}")

    def _spawn(self, backend: Backend, folder: Path) -> Backend:
        with open(folder / "server.log", "ab") as log:
            log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {backend.engine} {backend.model_path}\n".encode())
            log.flush()
            child = subprocess.Popen(
                self._command(backend),
                cwd=folder,
                env=self._environment(backend),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.children.add(child)
        return replace(backend, pid=child.pid, pid_started=psutil.Process(child.pid).create_time())

    def _command(self, backend: Backend) -> list[str]:
        command = [self.python, "-m", "images.serve", "--model", "model", "--host", self.host]
        command += ["--port", str(urlsplit(backend.url).port), *serve_arguments(backend, self.policy)]
        if backend.engine == "vllm":
            command += ["--vllm-python", str(self.vllm_python()), *adapter_arguments(backend, self.resolved)]
        return command

    def _environment(self, backend: Backend) -> dict[str, str]:
        environment = passed_on("VLLM_") | {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
        }
        environment[MARK], environment[START] = self.mark(backend.id), start_of(backend)
        if self.threads:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        if backend.engine == RETRIEVER:
            environment |= self.retrieval()
        if backend.engine == "vllm":
            environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            environment["VLLM_NO_USAGE_STATS"] = "1"
        return environment
