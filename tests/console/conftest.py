"""What the tests of the console share: a home of its own, and the HTTP interface over it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.callers import networks
from images.console.state import State
from images.console.works import Works
from llmops_assets.local.stack import prepare_home
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.serving.conftest import make_model

HOST = "http://127.0.0.1:8090"
USER = {"X-User-Id": "kim", "X-User-Roles": "llm-ops-user"}


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    found = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    prepare_home(found.settings)
    return found


@pytest.fixture
def state(wiring: Wiring) -> State:
    # A busy machine takes its time; what is answered late has a test of its own.
    return State(wiring, callers_of(wiring, networks("127.0.0.1"), "console"), None, Works(patience=60))


@pytest.fixture
def api(state: State) -> Iterator[TestClient]:
    with TestClient(create_app(state), base_url=HOST, client=("127.0.0.1", 50000), headers=USER) as client:
        yield client


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama, as somebody has it on the disk."""
    return make_model(tmp_path_factory.mktemp("models") / "example", seed=3)
