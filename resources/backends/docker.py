"""Model servers as containers of the serve image: non-root, without privilege, the model read-only and nothing else."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends.completions import health_page
from resources.backends.processes import free_port
from resources.backends.protocol import EngineMissing, Health, Record, ServerError
from resources.backends.serve_command import serve_arguments, start_of
from resources.catalog import Backend
from resources.containers import ENGINE_SECONDS, SHARED_MEMORY, Mount, device_requests
from resources.gpus import DECLARED, Device

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.types import Mount as DockerMount

BACKEND_LABEL = "llmops.backend"
START_LABEL = "llmops.start"
GPUS_LABEL = "llmops.gpus"
MODEL = "/model"
"""Where a server sees its model."""
PORT = 8000
HOST = "host"
"""The network of the host itself: a server listens on `host` there."""


class DockerServers:
    """A container for each server; `docker.from_env()` says where (DOCKER_HOST).

    `owner` tells this installation's containers from those of others on the same engine. `image_of` names the image of
    a backend. A container publishes its port on `host` alone; with `network` it joins that network instead and is
    called by its name there, for a platform that runs in a container too (`host`: the network of the host itself).
    `mounts` are seen besides the model; `volume` is the named volume that holds `home`, where that is no folder of the
    engine's host: of it a container sees the model's folder alone.
    """

    def __init__(
        self,
        owner: str,
        *,
        policy: ServingPolicy,
        image_of: Callable[[Backend], str],
        host: str = "127.0.0.1",
        network: str | None = None,
        volume: str | None = None,
        home: Path = Path("/"),
        mounts: Sequence[Mount] = (),
        devices: Callable[[], list[Device]] = list,
        user: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.owner = hashlib.sha256(owner.encode()).hexdigest()[:12]
        self.policy = policy
        self.image_of = image_of
        self.host = host
        self.network = network
        self.volume = volume
        self.home = home
        self.mounts = tuple(mounts)
        self.devices = devices
        # Whoever may read the model's files; never root.
        self.user = user or os.getuid() or 65534
        self.threads = threads
        self._asked: set[str] = set()

    def start(self, backend: Backend, record: Record) -> Backend:
        """Create and start the container; one of the same image, model and limits that runs already is adopted."""
        import docker.errors

        if self.volume is None and (hidden := _hidden(Path(backend.model_path), self.user)):
            raise ServerError(
                f"{backend.id} would run as user {self.user}, who may not read {hidden}: run the platform as a user of "
                f"its own instead of root, or let others read the model: chmod -R o+rX {backend.model_path}"
            )
        with self._engine() as engine:
            image = self._image(engine, backend)
            for container in self._containers(engine, backend):
                known = replace(backend, url=self._address(container), state="starting")
                same = container.labels.get(START_LABEL) == start_of(replace(backend, url=""), image)
                if same and container.status == "running":
                    return _with_start(known, container)
                container.remove(force=True)
            port = free_port(self.host)
            name = self.name(backend.id)
            url = f"http://{name}:{PORT}" if self._is_named else f"http://{self.host}:{port}"
            starting = replace(backend, url=url, pid=None, pid_started=None, state="starting", log_path=None)
            record(starting)
            options = self._options(engine, backend, image, port)
            try:
                arguments = serve_arguments(backend, self.policy)
                if self.network == HOST:
                    arguments += ["--host", self.host, "--port", str(port)]
                container = engine.containers.create(image, arguments, **options)
            except docker.errors.APIError as error:
                raise ServerError(f"no container for {backend.id}: {error.explanation or error}") from error
            try:
                container.start()
            except docker.errors.APIError as error:
                container.remove(force=True)
                raise ServerError(f"the container of {backend.id} does not start: {error.explanation}") from error
            container.reload()
            return _with_start(starting, container)

    def observe(self, backend: Backend, timeout: float = 2.0) -> Health:
        with self._engine() as engine:
            if not any(one.status == "running" for one in self._containers(engine, backend)):
                return "gone"
        return health_page(f"{backend.url}/health", timeout)

    def stop(self, backend: Backend, *, kill: bool = False) -> list[str]:
        """SIGTERM to what runs, and what has ended is removed; with `kill` all of it at once."""
        import docker.errors

        left: list[str] = []
        with self._engine() as engine:
            for container in self._containers(engine, backend):
                try:
                    if kill or container.status != "running":
                        container.remove(force=True)
                        continue
                    if container.id not in self._asked:
                        self._asked.add(str(container.id))
                        container.kill(signal="SIGTERM")
                    left.append(f"container {container.name}")
                except docker.errors.NotFound:
                    continue
                except docker.errors.APIError as error:
                    if not _is_ending(error):
                        raise ServerError(
                            f"the container {container.name} does not end: {error.explanation}"
                        ) from error
                    left.append(f"container {container.name}")
        return left

    def logs(self, backend: Backend, lines: int = 15) -> str:
        import docker.errors

        with self._engine() as engine:
            for container in self._containers(engine, backend):
                try:
                    return container.logs(tail=lines).decode("utf-8", "replace").rstrip()
                except docker.errors.APIError:
                    return ""
        return ""

    def name(self, id: str) -> str:
        """The container of a backend; the same id always has the same, so that none is there twice."""
        return f"llmops-{self.owner}-{id}"

    @contextmanager
    def _engine(self) -> "Iterator[DockerClient]":
        import docker
        import docker.errors

        try:
            engine = docker.from_env(timeout=ENGINE_SECONDS)
        except docker.errors.DockerException as error:
            raise EngineMissing(
                f"there is no Docker engine to run model servers in ({error}): set DOCKER_HOST"
            ) from error
        with closing(engine):
            yield engine

    def _image(self, engine: "DockerClient", backend: Backend) -> str:
        """The id of a backend's image; it is pulled when it is not here."""
        import docker.errors

        name = self.image_of(backend)
        try:
            try:
                found = engine.images.get(name)
            except docker.errors.ImageNotFound:
                found = engine.images.pull(name)
        except docker.errors.APIError as error:
            raise EngineMissing(
                f"the image {name} is not here and cannot be pulled ({error.explanation or error}): build it from "
                "images/serve/Dockerfile, or correct LLMOPS_IMAGE_REGISTRY or `images` in the policy"
            ) from error
        return str(found.id)

    def _containers(self, engine: "DockerClient", backend: Backend) -> "list[Container]":
        label = f"{BACKEND_LABEL}={self.owner}:{backend.id}"
        return engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)

    @property
    def _is_named(self) -> bool:
        return self.network not in (None, HOST)

    def _address(self, container: "Container") -> str:
        if self._is_named:
            return f"http://{container.name}:{PORT}"
        return f"http://{self.host}:{container.labels.get('llmops.port', '')}"

    def _options(self, engine: "DockerClient", backend: Backend, image: str, port: int) -> dict[str, Any]:
        """The arguments of `containers.create` beside image and command: what it sees, may and gets."""
        gpus = self._gpus(engine, backend)
        environment = {
            "HOME": "/tmp",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            **({"OMP_NUM_THREADS": str(self.threads)} if self.threads else {}),
        }
        return {
            "name": self.name(backend.id),
            "mounts": [self._model(backend)],
            "volumes": [mount.bind for mount in self.mounts],
            "user": f"{self.user}:{self.user}",
            "environment": environment,
            "labels": {
                BACKEND_LABEL: f"{self.owner}:{backend.id}",
                START_LABEL: start_of(replace(backend, url=""), image),
                GPUS_LABEL: ",".join(device.id for device in gpus),
                "llmops.port": str(port),
                "llmops.model": backend.model_ref,
            },
            "device_requests": device_requests(gpus),
            # Ours to start again, with the files looked at: the engine would start it on whatever they have become.
            "restart_policy": {"Name": "no"},
            "read_only": True,
            "tmpfs": {"/tmp": ""},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "shm_size": SHARED_MEMORY,
            **self._network(port),
        }

    def _network(self, port: int) -> dict[str, Any]:
        """How a server is reached: by its name, on a port of the host's own network, or on one that is published."""
        if self.network == HOST:
            return {"network_mode": HOST}
        return {"network": self.network} if self.network else {"ports": {f"{PORT}/tcp": (self.host, port)}}

    def _model(self, backend: Backend) -> "DockerMount":
        """The folder of a model, read-only: of the host, or a part of the volume that holds the home."""
        from docker.types import Mount as DockerMount

        # A folder may be a link to where the model lies: the container is given that.
        model = Path(backend.model_path).resolve()
        if self.volume is None:
            return DockerMount(MODEL, str(model), type="bind", read_only=True)
        if not model.is_relative_to(self.home):
            raise ServerError(f"{model} lies outside of LLMOPS_HOME, which is all that the volume {self.volume} holds")
        mount = DockerMount(MODEL, self.volume, type="volume", read_only=True)
        mount["VolumeOptions"] = {"Subpath": str(model.relative_to(self.home))}
        return mount

    def _gpus(self, engine: "DockerClient", backend: Backend) -> list[Device]:
        """The GPUs that a server gets: none that another of our containers has. ServerError where too few are left."""
        if backend.runtime.get("device", "cpu") != "cuda":
            return []
        wanted = int(backend.runtime.get("gpus") or 1)
        ours = engine.containers.list(filters={"label": GPUS_LABEL}, ignore_removed=True)
        taken = {id for one in ours for id in one.labels.get(GPUS_LABEL, "").split(",")}
        here = [device for device in self.devices() if device.kind == "cuda"]
        free = here if here and here[0].id.startswith(DECLARED) else [one for one in here if one.id not in taken]
        if len(free) < wanted:
            raise ServerError(f"{backend.id} wants {wanted} GPUs, and {len(free)} of {len(here)} are free")
        return free[:wanted]


def _with_start(backend: Backend, container: "Container") -> Backend:
    """The backend with process and start of its container, which tell one start from another."""
    state = container.attrs.get("State", {})
    text = str(state.get("StartedAt") or "")
    try:
        # Nanoseconds, which Python reads to the microsecond.
        started = datetime.fromisoformat(text[:26].rstrip("Z") + "+00:00" if text.endswith("Z") else text).timestamp()
    except ValueError:
        started = None
    return replace(backend, pid=state.get("Pid") or None, pid_started=started)


def _is_ending(error: Any) -> bool:
    """Whether the engine refused because the container has ended, or is being removed, meanwhile."""
    return getattr(error, "status_code", None) in (404, 409)


def _hidden(folder: Path, user: int) -> Path | None:
    """What of a model's folder a user without any group may not read; None where all of it may be."""
    for path in (folder, *sorted(folder.rglob("*"))):
        found = path.stat()
        others, own = (0o005, 0o500) if path.is_dir() else (0o004, 0o400)
        needed = own if found.st_uid == user else others
        if found.st_mode & needed != needed:
            return path
    return None
