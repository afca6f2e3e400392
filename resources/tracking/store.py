"""An MLflow store: a database that several processes may share, or a server."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from resources import files
from resources.stored_paths import StoredPaths

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOCK_DEADLINE_SECONDS = 60.0

T = TypeVar("T")


class MlflowStore:
    """One MLflow store.

    `uri` is an SQLAlchemy URL or the address of an MLflow server. `artifact_root` is where the artifacts of new
    experiments go; by default a folder `mlflow-artifacts` beside an SQLite file (MLflow itself would take `./mlruns` of
    whatever process came first), and the server's own choice otherwise. What lies under a root of `paths` is named by
    it, so that the store tells nothing of the machine; a server of MLflow elsewhere would not know how to read that.

    Several processes may share an SQLite store: creating it is serialised by a lock file, and a call that finds the
    database locked is tried again for up to a minute.
    """

    def __init__(self, uri: str, artifact_root: str | None = None, paths: StoredPaths | None = None) -> None:
        self.uri = uri
        self._file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        if artifact_root is None and self._file is not None:
            artifact_root = str(self._file.absolute().parent / "mlflow-artifacts")
        self.artifact_root = artifact_root
        self.paths = paths or StoredPaths(self._file.absolute().parent if self._file else None)

    @property
    def _own_store(self) -> bool:
        """Whether the store is a database that we open ourselves, and no server of MLflow."""
        return not self.uri.startswith(("http://", "https://"))

    @cached_property
    def _client(self) -> "MlflowClient":
        # Must be set before the import: mlflow reports its use to its makers by default.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import logging

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        from resources import mlflow_home

        # The store creates or checks its tables here; two processes doing so at once leave half of them.
        with self._exclusive():
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            if self._own_store:
                mlflow_home.announce(self.uri, self.paths)
                self._call(lambda: mlflow_home.rewrite(self.uri, self.paths))
            return client

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock file beside an SQLite store; a database server needs none."""
        if self._file is None:
            yield
            return
        with files.locked(f"{self._file}.lock"):
            yield

    def _call(self, call: Callable[[], T]) -> T:
        """Run `call`, again and again while SQLite says that another process holds the database."""
        deadline = time.monotonic() + _LOCK_DEADLINE_SECONDS
        pause = 0.05
        while True:
            try:
                return call()
            except Exception as error:
                if "database is locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 2.0)

    def prepare(self) -> None:
        """Create the store when it is new (about two seconds), so that no later call pays for it."""
        _ = self._client

    def with_client(self, call: "Callable[[MlflowClient], T]") -> T:
        """What `call` gives, asked of MLflow's own client; tried again while the store is locked."""
        return self._call(lambda: call(self._client))

    def _named(self, path: str | Path) -> str:
        """A path as the store is to name it."""
        from resources import mlflow_home

        if self._own_store:
            named = mlflow_home.uri_of(path, self.paths)
            return named if named.startswith(f"{mlflow_home.SCHEME}:") else str(path)
        return str(path)
