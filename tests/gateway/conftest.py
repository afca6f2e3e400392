"""What tests of the gateway's access and limits share: a real Redis."""

from collections.abc import Iterator

import pytest

from tests.gateway.redis_server import RedisServer


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()
