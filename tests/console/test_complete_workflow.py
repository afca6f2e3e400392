"""The whole way against the platform's own processes: by `requests` alone, and by a person at the pages."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.journey import person, whole_way
from tests.console.platform import environment_of, example, running
from tests.serving.conftest import make_model

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
    return example(environment, folder, model)


def test_the_whole_way_by_requests_alone(by_requests: subprocess.CompletedProcess):
    lines = by_requests.stdout.splitlines()
    assert "dataset customer-support@v1.0: support.csv is uploaded" in lines
    assert "model customer-support-base@1.0: approved" in lines
    assert any(line.startswith("model customer-support-base-customer-support@1: ") for line in lines), lines
    # What the model says after seconds of training is nothing to hold it to; that it was asked is.
    assert "endpoint customer-support" in lines and "환불은 어떻게 하나요?" in lines


@pytest.fixture(scope="module")
def base(environment: dict[str, str]) -> str:
    """Where the pages are."""
    return environment["LLM_OPS_API_BASE_URL"].removesuffix("/llm-ops/v1")


def test_the_whole_way_at_the_pages(by_requests, base: str, environment: dict[str, str], folder: Path):
    pictures = folder / "pictures"
    pictures.mkdir()
    whole_way(base, environment, folder, pictures)
    assert len(list(pictures.iterdir())) > 20


def test_a_page_s_task_is_done_by_keyboard_alone(platform: Path, base: str, folder: Path):
    # Of other weights than the example's base: the same ones are approved already.
    another = make_model(folder / "another", seed=4)
    with person(base) as one:
        one.enter_a_model_by_keyboard("by-keyboard", another)
        assert one.faults == [], "\n".join(one.faults)
