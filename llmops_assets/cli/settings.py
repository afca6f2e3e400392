"""`llmops settings`: every setting, what it is now, and what it means."""

import re

from llmops_assets.cli.common import Json, print_json, show, wiring
from llmops_assets.specs.settings import Settings

_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*@")


FROM_THE_ENVIRONMENT = {
    "LLMOPS_PSEUDONYM_KEY": "Key of the pseudonyms (`datasets.pii.mode: pseudonymise`), 16 bytes or more, such as "
    "`openssl rand -hex 32` prints. Keep it: with another key the same person gets another stand-in.",
    "LLMOPS_PSEUDONYM_KEY_FILE": "File that holds the pseudonym key, instead of the variable above.",
    "LLMOPS_LLM_KEY": "Key of the model that writes rows about documents, where its address wants one. "
    "Several: `LLMOPS_LLM_KEY_…`, named by `--key-env`. Never stored.",
    "LLMOPS_CACHE": "Folder of what is counted of dictionaries once. Default: `llmops` in the user's cache folder.",
    "LLMOPS_ACTOR": "Who acts, in the audit log. Default: the name of the user of the operating system.",
    "LLMOPS_RENDEZVOUS": "host:port of the first node, for a training on several nodes.",
    "LLMOPS_NODE_RANK": "Which of the nodes this one is, from 0.",
    "LLMOPS_SIMULATED_GPUS": "How many GPUs to pretend, for tests of what waits for one.",
}
"""What is read from the environment alone, not from a `.env` file: secrets are needed where they are used and nowhere
else."""

FOR_A_SERVER = {
    "LLMOPS_DAGSTER_DATABASE_URL": "Dagster's database (`deploy/dagster.yaml`), as "
    "`postgresql+psycopg2://user@host/name`; the password is in the file that `PGPASSFILE` names.",
    "LLMOPS_BASE": "Image that the server's images are built on: Debian 12 with Python 3.11.",
    "LLMOPS_ENGINE_SOCKET": "Socket of the container engine, for `deploy/compose.docker.yaml`.",
    "LLMOPS_DATA": "Folder of all that the server keeps; `make server DATA=…` sets it.",
    "LLMOPS_EXTRAS": "Extras that the control plane's image holds: `train,serve`, or nothing where runs have images.",
    "LLMOPS_GIVEN": "Which variables of a server somebody gave, which no release changes: `make server` notes it.",
    "LLMOPS_GRAFANA_IMAGE": "Image of Grafana, for the profile `grafana`.",
    "LLMOPS_HTTPS_ADDRESS": "Address of this machine that nginx listens on.",
    "LLMOPS_HTTPS_PORT": "Port of the same.",
    "LLMOPS_IMAGES": "What the names of the server's images begin with: a registry of the house, or `localhost/`.",
    "LLMOPS_PROMETHEUS_RETENTION": "How long Prometheus keeps figures.",
    "LLMOPS_PROMETHEUS_SIZE": "How much room its figures take at most; the oldest go first.",
    "LLMOPS_OTHERS": "Part of `LLMOPS_SUBNET` for containers without a fixed address: `make server` chooses it.",
    "LLMOPS_PROXY": "Address of nginx within `LLMOPS_SUBNET`: whose word on users is taken.",
    "LLMOPS_QDRANT_IMAGE": "Image of Qdrant, for the profile `qdrant`.",
    "LLMOPS_SERVER_NAME": "Name that browsers and clients call the server by.",
    "LLMOPS_SERVICE": "Which service an image of `images/services` holds.",
    "LLMOPS_SUBNET": "Network of nginx and what it passes requests to.",
    "LLMOPS_USER": "User and group, as numbers, that every container runs as.",
    "LLMOPS_VERSION": "Version of the images; left out: the release's.",
}
"""What a server is made of: `deploy/compose.yaml`, `deploy/server.py` (`make server SET="NAME=VALUE …"`)."""

SET_BY_THE_PLATFORM = {
    "LLMOPS_STARTED_BY": "The process that a component of the platform ends with.",
    "LLMOPS_PARENT_PID": "The process that a worker ends with.",
    "LLMOPS_WORKER_PID": "The process that the processes of one training end with.",
    "LLMOPS_BACKEND": "Which model server a process is.",
    "LLMOPS_BACKEND_START": "As what that server was started, so that one of an earlier start is not taken for it.",
    "LLMOPS_SERVED_MODEL": "The folder of the model that vLLM serves: what its control tokens are is read there.",
    "LLMOPS_IMAGE_JOB_TYPE": "The job type that an image was built for.",
    "LLMOPS_IMAGE_ENGINES": "Where an image has its engines.",
    "LLMOPS_SCRATCH_DAGSTER_URL": "The copy of Dagster's storage that a rehearsed upgrade opens.",
}
"""What the platform tells its own processes."""


def rows(settings: Settings) -> list[dict[str, str]]:
    """One row a setting: its variable, its value (passwords in URLs hidden), and its meaning."""
    return [
        {
            "variable": f"LLMOPS_{name.upper()}",
            "value": _shown(getattr(settings, name)),
            "default": _shown(field.default),
            "meaning": field.description or "",
        }
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: object) -> str:
    return "" if value is None else _PASSWORD.sub(r"\1***@", str(value))


def settings(json: Json = False) -> None:
    """Show every setting: its environment variable, its value here, and what it means.

    Example: `LLMOPS_HOME=/srv/llmops llmops settings`
    """
    found = rows(wiring().settings)
    if json:
        print_json(found)
    else:
        show("", ["variable", "value", "meaning"], [[r["variable"], r["value"], r["meaning"]] for r in found])
