"""Runs the worker in the image of its job, in a Docker container with its own files, user and environment."""

import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.records.jobs import module_of
from resources.encryption import VARIABLE
from resources.gpus import DECLARED, Device
from resources.trainer import PipesClient, TrainerError

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container

JOB_LABEL = "llmops.job"
"""Label of every container of ours: which job file it works on."""

KEY_FILE = "/run/llmops/encryption.key"
GRACE_SECONDS = 120
"""How long a worker may take to save a checkpoint when it is asked to stop."""

ENGINE_SECONDS = 900
"""How long one call of the engine may take: pulling, or laying out, an image of many gigabytes takes minutes."""

LOOK_SECONDS = (0.1, 2.0)
"""How long after its start a container is first looked at, and the longest pause between two looks."""
_ENDED = ("exited", "dead", "stopped")

SHARED_MEMORY = "8g"
"""Of /dev/shm: the 64 MiB that Docker gives by default are too few for the processes of one training to talk."""


@dataclass(frozen=True)
class Mount:
    """What a container sees: a folder or file of the host, or a named volume, at `target`."""

    source: str
    target: str
    read_only: bool = False

    @classmethod
    def same(cls, path: Path | str, *, read_only: bool = False) -> "Mount":
        """A folder of the host at the path that it has there."""
        return cls(str(Path(path).absolute()), str(Path(path).absolute()), read_only)

    @property
    def bind(self) -> str:
        return f"{self.source}:{self.target}:{'ro' if self.read_only else 'rw'}"


WRITTEN_BY_USERS = ("spec", "config")
"""Parts of a job that may name any path, and so lead to none."""


class Docker:
    """Runs jobs in containers; `docker.from_env()` says where (DOCKER_HOST).

    `client` is a Pipes client whose containers end as `Ending` says; without a Dagster context the same container runs
    without it. `image_of` names the image of a job. `mounts` are what every container sees, at the paths where we see
    it; `volume` says that the home folder is a named volume, so that paths outside of it mean nothing to Docker. Keys
    at rest are in `key_file` where they are in a file, and in the environment where they are not. `devices` are what
    the machine has to train on.
    """

    def __init__(
        self,
        client: PipesClient | None,
        *,
        image_of: Callable[[Mapping[str, Any]], str],
        mounts: Sequence[Mount],
        volume: bool = False,
        key_file: Path | None = None,
        devices: Callable[[], list[Device]] = list,
        patience: float = 60.0,
    ) -> None:
        self.client = client
        self.image_of = image_of
        self.mounts = tuple(mounts)
        self.volume = volume
        self.key_file = key_file
        self.devices = devices
        self.patience = patience

    def image(self, job: Mapping[str, Any]) -> str:
        """The image of a job as ``name@sha256:…``, where the digest is the image's id; it is pulled when not here."""
        import docker
        import docker.errors

        name = self.image_of(job)
        with closing(docker.from_env(timeout=ENGINE_SECONDS)) as engine:
            try:
                try:
                    found = engine.images.get(name)
                except docker.errors.ImageNotFound:
                    found = engine.images.pull(name)
            except docker.errors.APIError as error:
                raise TrainerError(
                    f"the image {name} is not here and cannot be pulled ({error.explanation or error}): build it from "
                    "images/train/Dockerfile, or correct LLMOPS_IMAGE_REGISTRY or `images` in the policy"
                ) from error
        return f"{name}@{found.id}"

    def clear(self, job_file: Path) -> None:
        """Stop and remove the containers that an earlier attempt at a job left, running or ended."""
        import docker

        label = f"{JOB_LABEL}={job_name(job_file)}"
        with closing(docker.from_env(timeout=ENGINE_SECONDS)) as engine:
            for container in engine.containers.list(all=True, filters={"label": label}):
                Ending(container).stop()

    def launch(self, context: Any | None, job: Mapping[str, Any], job_file: Path, environment: dict[str, str]) -> None:
        """Run the worker on `job_file` in a container, which is gone afterwards; raises when it fails."""
        import docker

        with closing(docker.from_env(timeout=ENGINE_SECONDS)) as engine:
            image = self._planned(engine, job)
            options = container_options(
                job,
                job_file,
                mounts=self._mounts(job, job_file),
                devices=self.devices(),
                image=image,
            )
            command = ["python", "-m", module_of(job["task"]), str(job_file)]
            env = container_environment(environment, key_file=self.key_file, gpus=bool(options["device_requests"]))
            content = image.rsplit("@", 1)[-1]
            if context is not None and self.client is not None:
                self.client.run(context=context, image=content, command=command, env=env, container_kwargs=options)
                return
            container = engine.containers.create(content, command, environment=env, **options)
            ending = Ending(container)
            try:
                ending.start()
                code = ending.wait()["StatusCode"]
            finally:
                ending.stop()
            if code != 0:
                raise TrainerError(f"the container ended with code {code}")

    def _planned(self, engine: "DockerClient", job: Mapping[str, Any]) -> str:
        """The image that the job was planned with, or else that of now, as `image` gives it."""
        import docker.errors

        planned = job.get("image")
        if planned is None:
            return self.image(job)
        try:
            engine.images.get(planned.rsplit("@", 1)[-1])
        except docker.errors.ImageNotFound as error:
            raise TrainerError(
                f"the image {planned}, with which this training was planned, is not here any more: bring it back, or "
                "materialise training_plan again to train with the one of now"
            ) from error
        return planned

    def _mounts(self, job: Mapping[str, Any], job_file: Path) -> list[Mount]:
        """What the container sees: that of all, and what the job reads and writes elsewhere."""
        locks = Path(job["locks"])
        ours = [] if self.volume else [Path(mount.source) for mount in self.mounts if not mount.read_only]
        for folder in (locks, *ours):
            folder.mkdir(parents=True, exist_ok=True)
        written = [path for path in (job_file.parent, locks) if not _within(path, self.mounts)]
        mounts = [*self.mounts, *(Mount.same(path) for path in written)]
        read = [path for path in inputs(job) if not _within(path, mounts)]
        if self.volume and (written or read):
            raise TrainerError(
                f"{(written + read)[0]} lies outside of the volume that LLMOPS_VOLUME names, where a container cannot "
                "see it: keep it below LLMOPS_HOME"
            )
        return [*mounts, *(Mount.same(path, read_only=True) for path in read), *key_mounts(self.key_file)]


def inputs(job: Mapping[str, Any]) -> list[Path]:
    """Every file and folder that a job names at its top, as its models, and what links in such a folder lead to."""
    ours = {key: value for key, value in job.items() if key not in WRITTEN_BY_USERS}
    names = ((value.get("path") if isinstance(value, Mapping) else value) for value in ours.values())
    paths = [Path(name) for name in names if isinstance(name, str) and name.startswith("/")]
    found = [path for path in paths if path.exists()]
    # A snapshot in the cache of the Hugging Face hub is a folder of links to files beside it.
    folders = [path for path in found if path.is_dir()]
    linked = {file.resolve().parent for folder in folders for file in folder.iterdir() if file.is_symlink()}
    return sorted({*found, *linked})


def key_mounts(key_file: Path | None) -> list[Mount]:
    """The file of the keys, where there is one, at the path that the worker is told."""
    return [Mount(str(key_file.expanduser().absolute()), KEY_FILE, True)] if key_file else []


def container_environment(environment: Mapping[str, str], *, key_file: Path | None, gpus: bool) -> dict[str, str]:
    """What the worker's environment holds in a container, where a user may have no name and no home of its own."""
    env = {"HOME": "/tmp", "USER": "llmops", "LOGNAME": "llmops", **environment}
    if key_file is not None:
        # So `docker inspect` shows where the keys are, and not what they are.
        env.pop(VARIABLE, None)
        env[f"{VARIABLE}_FILE"] = KEY_FILE
    if gpus:
        env["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility"
    return env


def container_options(
    job: Mapping[str, Any], job_file: Path, *, mounts: Sequence[Mount], devices: Sequence[Device], image: str
) -> dict[str, Any]:
    """The arguments of `containers.create` for a job, beside image, command and environment.

    It sees `mounts` and nothing else of the host, has no network (rows and weights are files), and no privilege. Which
    of the GPUs it gets is decided inside, where they are leased, so it sees all that are here.
    """
    return {
        "volumes": [mount.bind for mount in mounts],
        "user": f"{os.getuid()}:{os.getgid()}",
        "labels": {JOB_LABEL: job_name(job_file), "llmops.image": image},
        "device_requests": device_requests(devices) if gpus_of(job) else [],
        "network_mode": "none",
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "shm_size": SHARED_MEMORY,
    }


def gpus_of(job: Mapping[str, Any]) -> int:
    """How many GPUs a job takes where there are any."""
    return 0 if job.get("device", "cuda") != "cuda" else int(job.get("gpus", 1))


def device_requests(devices: Sequence[Device]) -> list[dict[str, Any]]:
    """What to ask of Docker for the GPUs among `devices`: those by id, or all where only their number is known."""
    gpus = [device.id for device in devices if device.kind == "cuda" and not device.id.startswith("simulated")]
    if not gpus:
        return []
    from docker.types import DeviceRequest

    if gpus[0].startswith(DECLARED):
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])]


def _within(path: Path, mounts: Sequence[Mount]) -> bool:
    return any(path.is_relative_to(mount.target) for mount in mounts)


def job_name(job_file: Path) -> str:
    """A job in a label: 32 hex digits of the path of its file, which one attempt after another has in common."""
    return hashlib.sha256(str(job_file).encode()).hexdigest()[:32]


class Ending:
    """A container that is given time to save a checkpoint when it is stopped, and that is gone afterwards.

    Dagster's client stops containers within ten seconds and leaves them there.
    """

    def __init__(self, container: "Container", grace_seconds: int = GRACE_SECONDS) -> None:
        self.container = container
        self.grace_seconds = grace_seconds

    def start(self) -> None:
        try:
            self.container.start()
        except BaseException:
            self.container.remove(force=True)
            raise

    def wait(self) -> dict[str, Any]:
        """What the engine says of its end, once it has ended: `StatusCode`.

        It is looked at now and then. Asked to wait, podman's service looks without a pause, which keeps most of a core
        busy for as long as the training takes.
        """
        pause = LOOK_SECONDS[0]
        while self.container.status not in _ENDED:
            time.sleep(pause)
            pause = min(LOOK_SECONDS[1], pause * 1.5)
            self.container.reload()
        return self.container.wait()

    def stop(self) -> None:
        import docker.errors

        try:
            self.container.stop(timeout=self.grace_seconds)
            self.container.remove(force=True)
        except docker.errors.NotFound:
            # Somebody has removed it already, which is what was wanted.
            return
