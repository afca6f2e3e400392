"""What a request to a page that has no login of its own asks for: pages of Dagster, MLflow, Prometheus and Grafana."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

_SAFE = ("GET", "HEAD", "OPTIONS")
_READS = re.compile(r".*/(search|search-datasets|get-latest-versions|metrics|calculate-filter-correlation)")
"""Requests of MLflow's page that are sent by POST, and change nothing."""
_FILES = re.compile(
    r".*(/get-artifact|/get-trace-artifact|/mlflow-artifacts/artifacts/.+|/presigned/.+|/logged-models/[^/]+/artifacts/files)"
)
_NAMES_A_FILE = ("path", "artifact_file_path")
"""Parameters by which MLflow is told which file."""
_SHOWN = {".png", ".jpg", ".jpeg", ".svg", ".gif", ".md", ".txt", ".html", ".json", ".yaml", ".yml", ".csv", ".log", ""}
"""Files that MLflow's page shows; any other is a model or data."""


@dataclass(frozen=True)
class Asked:
    """The action of the policy that a request needs; `file` is what of a model or of data it takes away."""

    action: str
    file: str | None = None


def asked_of(service: str, method: str, uri: str) -> Asked | None:
    """What a request to a page of `service` needs; None for a service that is not known."""
    path = unquote(urlsplit(uri).path)
    is_read = method in _SAFE
    if service == "dagster":
        # What goes to its GraphQL is looked into by whoever passes it on.
        return Asked("dagster.view" if is_read or path.endswith("/graphql") else "dagster.launch")
    if service == "mlflow":
        if _FILES.fullmatch(path) and is_read:
            given = parse_qs(urlsplit(uri).query)
            # Which of several counts is for MLflow to say: any of them may be the one.
            for file in [name for key in _NAMES_A_FILE for name in given.get(key, ())] or [path]:
                if PurePosixPath(file).suffix.lower() not in _SHOWN:
                    return Asked("model.download", file)
        if method == "POST" and path.endswith("/presigned-download-url"):
            return Asked("model.download", path)
        if (is_read and "/gateway-proxy" not in path) or (method == "POST" and _READS.fullmatch(path)):
            return Asked("mlflow.view")
        return Asked("mlflow.change")
    return Asked("usage.read") if service in ("prometheus", "grafana") else None
