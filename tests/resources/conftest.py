"""A catalog on each of the two databases."""

import uuid

import pytest
import sqlalchemy as sa

from resources.catalog import Catalog


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'catalog.db'}"
    server = request.getfixturevalue("postgres")
    name = f"catalog_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(sa.make_url(server).set(database=name).render_as_string(hide_password=False))


@pytest.fixture
def catalog(url) -> Catalog:
    return Catalog(url)
