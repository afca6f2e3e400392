"""What the tests of operations share."""

import uuid
from collections.abc import Callable

import pytest
import sqlalchemy as sa


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes an empty database on the PostgreSQL server; its URL."""

    def make() -> str:
        server = request.getfixturevalue("postgres")
        name = f"backup_{uuid.uuid4().hex}"
        engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return str(sa.make_url(server).set(database=name).render_as_string(hide_password=False))

    return make
