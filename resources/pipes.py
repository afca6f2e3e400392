"""The Pipes clients by which the worker of each runner speaks to the run's log."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dagster_docker import PipesDockerClient
    from dagster_k8s import PipesK8sClient


class MessageFiles(dg.PipesMessageReader):
    """Reads what a worker says from a file below `folder`, on the volume that both see; one file a session.

    Log chunks are no way: Docker splits lines at 16 KiB, and half a message is none. Dagster's own reader of files has
    one path, which two runs at a time would share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[Any]:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{uuid.uuid4().hex}.messages"
        with dg.PipesFileMessageReader(str(path), include_stdio_in_messages=True).read_messages(handler) as params:
            yield params

    def no_messages_debug_text(self) -> str:
        return f"Attempted to read messages from a file in {self.folder}."


def subprocess_client() -> dg.PipesSubprocessClient:
    """A client whose workers have time to save a checkpoint when they are asked to stop."""
    return dg.PipesSubprocessClient(termination_timeout_seconds=120)


def docker_client(messages: Path, env: Mapping[str, str] | None = None) -> "PipesDockerClient":
    """A client whose messages go through files in the folder `messages`.

    Its containers have time to save a checkpoint and are gone afterwards.
    """
    # Docker's client takes 20 MB of every process that knows the graph, and most installations have no engine.
    from dagster_docker import PipesDockerClient

    from resources.containers import ENGINE_SECONDS, Ending

    class DockerClient(PipesDockerClient):
        def _create_container(self, client: Any, *args: Any, **kwargs: Any) -> Ending:
            # It gives the engine a minute for everything.
            client.api.timeout = ENGINE_SECONDS
            return Ending(super()._create_container(client, *args, **kwargs))

    return DockerClient(env=env, message_reader=MessageFiles(messages))


def kubernetes_client(messages: Path, kubeconfig: Path | None = None, poll_seconds: float = 5.0) -> "PipesK8sClient":
    """A client whose messages go through files in the folder `messages`, which lies on the claim that both mount."""
    from dagster_k8s import PipesK8sClient

    return PipesK8sClient(
        message_reader=MessageFiles(messages),
        kubeconfig_file=str(kubeconfig) if kubeconfig else None,
        poll_interval=poll_seconds,
    )
