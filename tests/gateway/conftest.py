"""What tests of the gateway share: a real Redis, and a gateway's process in front of a scripted model server."""

from collections.abc import Iterator

import pytest

from resources.catalog import Catalog
from tests.gateway.desk import Desk, Script, running_gateway
from tests.gateway.model import model
from tests.gateway.redis_server import RedisServer
from tests.serving.conftest import Upstream, catalog, start_gateway, start_upstream

__all__ = ["catalog", "model", "start_gateway", "start_upstream"]


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    home = tmp_path_factory.mktemp("home")
    catalog = Catalog(f"sqlite:///{home / 'catalog.db'}")
    catalog.open()
    script = Script()
    upstream = Upstream(script.app())
    try:
        with running_gateway(home, catalog) as gateway:
            yield Desk(catalog, script, upstream, gateway)
    finally:
        upstream.stop()


@pytest.fixture(autouse=True)
def _fresh_script(request: pytest.FixtureRequest) -> None:
    if "desk" in request.fixturenames:
        request.getfixturevalue("desk").script.reset()
