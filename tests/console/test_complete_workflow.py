"""The whole way over HTTP, as `examples/complete_workflow.py` goes it: against the platform's own processes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_assets.local.stack import REPOSITORY
from tests.console.platform import environment_of, running, write_rows

FEW = {"learning_rate": 2e-3, "batch_size": 16, "num_epochs": 40, "max_steps": 40, "max_seq_length": 128}

pytestmark = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("platform")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    return environment_of(folder)


@pytest.fixture(scope="module")
def platform(environment: dict[str, str], folder: Path) -> Iterator[Path]:
    with running(environment, folder) as log:
        yield log


@pytest.fixture(scope="module")
def by_requests(platform: Path, environment: dict[str, str], folder: Path, model: Path) -> subprocess.CompletedProcess:
    """The example, carried out: a model trained and served at the endpoint `customer-support`."""
    rows = write_rows(folder / "support.csv")
    command = [sys.executable, "examples/complete_workflow.py", "--data", str(rows), "--model", str(model)]
    command += ["--hyperparameters", json.dumps(FEW), "--hours", "0.3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY, timeout=1500)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{platform.read_text()[-3000:]}"
    return done


def test_the_whole_way_by_requests_alone(by_requests: subprocess.CompletedProcess):
    lines = by_requests.stdout.splitlines()
    assert "dataset customer-support@v1.0: support.csv is uploaded" in lines
    assert "model customer-support-base@1.0: approved" in lines
    assert any(line.startswith("model customer-support-base-customer-support@1: ") for line in lines), lines
    # What the model says after seconds of training is nothing to hold it to; that it was asked is.
    assert "endpoint customer-support" in lines and "환불은 어떻게 하나요?" in lines
