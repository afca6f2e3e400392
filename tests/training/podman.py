"""A container engine of the tests' own, and the train image on a base that borrows this machine's Python."""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import docker
import docker.errors

from resources.containers import Mount
from tests.debian import program

REPOSITORY = Path(__file__).parents[2]
CONTAINERS_CONF = """[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
"""
BASE = "python-of-this-machine:1"
_ROOTS = ("/usr", "/bin", "/sbin", "/lib", "/lib64")


def install() -> None:
    """Debian's podman and runc, where they are not here already; fails where they cannot be had."""
    # runc first: podman would bring another runtime where it finds none.
    for name in ("runc", "podman"):
        program(name, name)


def host_python() -> list[Mount]:
    """The libraries, the interpreter and the environment that run these tests, to be read by a container."""
    wanted = [Path(root) for root in _ROOTS if Path(root).is_dir() and not Path(root).is_symlink()]
    for prefix in (sys.base_prefix, sys.prefix):
        real = Path(prefix).resolve()
        if not any(real.is_relative_to(path) for path in wanted):
            wanted.append(real)
    return [Mount.same(path, read_only=True) for path in wanted]


def _base() -> bytes:
    """A root file system as a tar: folders to mount on, the links that Debian has at its root, and one user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var", "var/tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(entry)
        for root in map(Path, _ROOTS):
            if root.is_symlink():
                entry = tarfile.TarInfo(root.name)
                entry.type, entry.linkname = tarfile.SYMTYPE, os.readlink(root)
                tar.addfile(entry)
        users = b"root:x:0:0::/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        tar.addfile(entry, io.BytesIO(users))
    return buffer.getvalue()


class Engine:
    """A podman that keeps all of its state in `folder`, and speaks Docker's API on a socket there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder / 'podman.sock'}"
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder / "storage"}"\nrunroot = "{folder / "run"}"\n'
        )
        self.environment = {
            **os.environ,
            "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }

    def podman(self, *arguments: str, data: bytes | None = None) -> str:
        done = subprocess.run(
            ["podman", *arguments], env=self.environment, input=data, capture_output=True, timeout=300, check=False
        )
        if done.returncode:
            raise RuntimeError(f"podman {' '.join(arguments)} failed: {done.stderr.decode()[-3000:]}")
        return done.stdout.decode().strip()

    def build(self, job_type: str, name: str) -> None:
        """Build a train image from its Dockerfile; pip finds all it asks for in the borrowed environment."""
        self._build("train", name, f"JOB_TYPE={job_type}")

    def build_serve(self, name: str) -> None:
        """Build a serve image, the same way."""
        self._build("serve", name)

    def _build(self, folder: str, name: str, *more: str) -> None:
        binaries = f"{Path(sys.prefix).resolve()}/bin:/usr/bin:/bin"
        self.podman("import", "--change", f"ENV PATH={binaries}", "-", BASE, data=_base())
        volumes = [part for mount in host_python() for part in ("--volume", mount.bind)]
        dockerfile = str(REPOSITORY / "images" / folder / "Dockerfile")
        arguments = [part for one in (f"BASE={BASE}", *more) for part in ("--build-arg", one)] + ["--layers=false"]
        self.podman("build", *arguments, *volumes, "--tag", name, "--file", dockerfile, str(REPOSITORY))


@contextmanager
def engine(folder: Path) -> Iterator[Engine]:
    """A running engine; containers and images are gone with it."""
    install()
    ours = Engine(folder)
    with open(folder / "service.log", "wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", ours.socket],
            env=ours.environment,
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(ours.socket, service, folder / "service.log")
        yield ours
    finally:
        ours.podman("rm", "--all", "--force", "--time", "0")
        service.terminate()
        service.wait(30)
        # Layers of images are no files of the tests: a run keeps its last three temporary folders.
        shutil.rmtree(folder / "storage", ignore_errors=True)


def _wait_for(socket: str, service: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with closing(docker.DockerClient(base_url=socket)) as client:
                client.ping()
            return
        except (docker.errors.DockerException, OSError) as error:
            if service.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"podman does not answer: {log.read_text()[-2000:]}") from error
            time.sleep(0.1)
