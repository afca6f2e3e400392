"""The whole way, against the platform's own processes: over HTTP as `examples/complete_workflow.py` goes it, and from
the pages alone, as somebody does who never opens a terminal."""

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


def test_the_whole_way_from_the_pages_alone(by_requests, environment, folder, tmp_path):
    from tests.console.journey import Journey

    rows = write_rows(folder / "toll-desk.csv", columns=("고객 문의", "상담 내용", "category"))
    base = environment["LLM_OPS_API_BASE_URL"].removesuffix("/llm-ops/v1")
    with Journey(base, tmp_path) as journey:
        journey.upload(rows, "toll-desk")
        journey.read_the_report("toll-desk@v1")
        trained = journey.train("toll-desk@v1", "customer-support-base@1.0")
        journey.approve(trained)
        journey.deploy_beside(trained, "customer-support")
        journey.chat_and_rate("customer-support", conversations=14)
        journey.test_against("customer-support-base-customer-support@1", trained, "customer-support")
        journey.look_around()
        assert journey.faults == []
