"""Training runs with their true status."""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from resources.tracking.store import MlflowStore

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]

# Limits of one `log_batch` request (mlflow.utils.validation).
_BATCH_METRICS = 1000
_BATCH_PARAMS = 100


class OpenedBeside:
    """A run that is opened in a thread of its own, because that takes seconds: importing MLflow alone is three of CPU.

    Whoever needs its id waits for it; where opening failed it is tried once more then.
    """

    def __init__(self, open_run: Callable[[], str]) -> None:
        self._open, self._lock, self._id = open_run, threading.Lock(), ""
        threading.Thread(target=self._first, name="open-mlflow-run", daemon=True).start()

    def _first(self) -> None:
        with suppress(Exception):
            self.id()

    def id(self) -> str:
        """The run's id; raises what opening it raises."""
        with self._lock:
            self._id = self._id or self._open()
            return self._id


class Runs(MlflowStore):
    """Runs of one MLflow store."""

    def start_run(
        self,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run in `experiment` (created when it is new) and return its id."""
        experiment_id = self._experiment(experiment)
        run = self._call(lambda: self._client.create_run(experiment_id, run_name=run_name, tags=dict(tags or {})))
        if params:
            self.log_params(run.info.run_id, params)
        return run.info.run_id

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._call(lambda: self._client.get_experiment_by_name(name))
        if found is None:
            location = self._named(f"{self.artifact_root.rstrip('/')}/{name}") if self.artifact_root else None
            try:
                return self._call(lambda: self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process created it between the two calls.
            found = self._call(lambda: self._client.get_experiment_by_name(name))
        if found is None or found.lifecycle_stage == "deleted":
            raise ValueError(
                f"the MLflow experiment {name!r} is deleted: restore it, or remove it for good with `mlflow gc`"
            )
        return found.experiment_id

    def resume(self, run_id: str) -> str:
        """Set an ended run to RUNNING again and return its id; raise LookupError when there is no such run."""
        from mlflow.exceptions import MlflowException

        try:
            self._call(lambda: self._client.update_run(run_id, status="RUNNING"))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise LookupError(f"no MLflow run {run_id!r} in {self.uri}") from error
            raise
        return run_id

    @contextmanager
    def run(self, open_run: Callable[[], str]) -> Iterator[OpenedBeside]:
        """A run around a body: FINISHED after it, FAILED when it raises, KILLED when it is interrupted.

        `open_run` gives the run's id, that of a new run or of one to go on with; the body begins while it is at work.
        The body's exception is passed on in every case.
        """
        opened = OpenedBeside(lambda: self.resume(open_run()))
        try:
            yield opened
        except BaseException as error:
            # KeyboardInterrupt, SystemExit, and Dagster's own interrupt when a run is terminated are no Exception. What
            # ended the body matters more than a store that cannot be told of it.
            try:
                self.end_run(opened.id(), "FAILED" if isinstance(error, Exception) else "KILLED")
            except Exception as failure:  # noqa: BLE001  whatever the store's trouble is, the body's own error is raised
                print(f"MLflow was not told that this run ended: {failure}", file=sys.stderr)
            raise
        self.end_run(opened.id(), "FINISHED")

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; values are written with `str` and cut at MLflow's 6,000 characters."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(entries), _BATCH_PARAMS):
            batch = entries[start : start + _BATCH_PARAMS]
            self._call(lambda batch=batch: self._client.log_batch(run_id, params=batch))

    def log_metrics(self, run_id: str, metrics: Iterable[tuple[str, float, int]]) -> None:
        """Log (key, value, step) triples, up to a thousand in a request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value, step in metrics]
        for start in range(0, len(entries), _BATCH_METRICS):
            batch = entries[start : start + _BATCH_METRICS]
            self._call(lambda batch=batch: self._client.log_batch(run_id, metrics=batch))

    def log_artifact(self, run_id: str, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all that is in it, to the run's artifacts (under `folder`)."""
        if Path(path).is_dir():
            self._call(lambda: self._client.log_artifacts(run_id, str(path), folder))
        else:
            self._call(lambda: self._client.log_artifact(run_id, str(path), folder))

    def delete_artifacts(self, run_id: str, folder: str) -> None:
        """Delete a folder of a run's artifacts, where there is one; nothing happens for a run that is not there."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            run = self._call(lambda: self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
        if repository.list_artifacts(folder):
            repository.delete_artifacts(folder)

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run; a path below a root of the installation is written by that root."""
        for key, value in tags.items():
            self._call(lambda key=key, value=value: self._client.set_tag(run_id, key, self.paths.stored(value)))

    def end_run(self, run_id: str, status: RunStatus) -> None:
        self._call(lambda: self._client.set_terminated(run_id, status))

    def has_run(self, run_id: str) -> bool:
        """Whether the store still knows a run."""
        from mlflow.exceptions import MlflowException

        try:
            self._call(lambda: self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def run_status(self, run_id: str) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return self._call(lambda: self._client.get_run(run_id)).info.status

    def run_metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        return dict(self._call(lambda: self._client.get_run(run_id)).data.metrics)

    def run_url(self, run_id: str, ui: str) -> str:
        """Address of a run's page in the MLflow UI that listens at `ui`."""
        run = self._call(lambda: self._client.get_run(run_id))
        return f"{ui.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"

    def artifact_url(self, run_id: str, path: str, ui: str) -> str:
        """Address of the page that shows an artifact of a run in the MLflow UI at `ui`: HTML is rendered there."""
        return f"{self.run_url(run_id, ui)}/artifactPath/{path}"
