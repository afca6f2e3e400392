"""Runs MLflow's server in this process: its own command keeps a second one beside it, as large, that only waits.

`python -m llmops_assets.local.mlflow_page` takes the arguments of `mlflow server`.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from llmops_assets.with_parent import MODULE, PARENT


def main() -> None:
    """Let MLflow prepare its stores and say how its server is started, and become that server."""
    from mlflow import server
    from mlflow.cli import cli

    vars(server)["_exec_cmd"] = _become
    cli(["server", *sys.argv[1:]])


def _become(command: Sequence[str], extra_env: Mapping[str, str], **_how: Any) -> NoReturn:
    """Replace this process by a module that ends with the process that started this one, as this one would."""
    python, dash_m, *module = command
    if dash_m != "-m":
        raise RuntimeError(f"MLflow starts its server otherwise than the platform knows: {command}")
    environment = {**os.environ, **extra_env, PARENT: str(os.getppid())}
    os.execvpe(python, [python, "-m", MODULE, *module], environment)


if __name__ == "__main__":
    main()
