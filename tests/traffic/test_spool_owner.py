"""A home has one catalog: what was logged for it goes to no other, and who has another one is told."""

import asyncio
import json
from pathlib import Path

import pytest

from images.gateway.app import create_app
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.encryption import NO_KEYS
from resources.traffic.owner import ForeignSpool, claim
from resources.traffic.shipper import CannotShip, Shipper
from resources.traffic.spool import Spool, worker_folders
from tests.serving.test_spool import exposure


def catalog(folder: Path, name: str) -> Catalog:
    made = Catalog(f"sqlite:///{folder / name}.db")
    made.open()
    return made


def test_what_was_logged_for_a_catalog_is_shipped_to_no_other(tmp_path: Path):
    root, ours, other = tmp_path / "spool", catalog(tmp_path, "ours"), catalog(tmp_path, "other")
    Shipper(root, ours, str, NO_KEYS).ship()
    spool = Spool(root, NO_KEYS)
    spool.append(exposure(1))
    spool.close()
    foreign = Shipper(root, other, str, NO_KEYS)
    for _ in range(2):
        with pytest.raises(CannotShip, match=r"belongs to the catalog sqlite:.*ours\.db, and this process has .*other"):
            foreign.ship()
    with pytest.raises(CannotShip, match="LLMOPS_HOME of its own"):
        foreign.ship_what_is_there(5)
    assert other.exposures(endpoint="desk").is_empty() and len(worker_folders(root)) == 1
    assert Shipper(root, ours, str, NO_KEYS).ship() == 1
    assert ours.exposures(endpoint="desk").height == 1


def test_a_catalog_that_is_moved_stays_the_one_of_its_spool(tmp_path: Path):
    root, before = tmp_path / "spool", catalog(tmp_path, "before")
    claim(root, before.identity, "postgresql://kim:secret@old/llmops")
    assert "secret" not in (root / "catalog.json").read_text()
    before.database.engine.dispose()
    (tmp_path / "before.db").rename(tmp_path / "after.db")
    after = catalog(tmp_path, "after")
    assert after.identity == before.identity
    Shipper(root, after, str, NO_KEYS).ship()
    assert json.loads((root / "catalog.json").read_text())["url"] == "sqlite:///home:after.db"


def test_a_gateway_of_another_catalog_does_not_start_on_the_home(tmp_path: Path):
    settings = Settings(home=tmp_path, _env_file=None)
    ours, other = catalog(tmp_path, "catalog"), catalog(tmp_path, "other")

    async def start(found: Catalog) -> None:
        async with create_app(found, settings=settings).gateway.running():
            pass

    asyncio.run(start(ours))
    with pytest.raises(ForeignSpool, match="belongs to the catalog"):
        asyncio.run(start(other))
    asyncio.run(start(ours))
    (tmp_path / "spool" / "catalog.json").write_text("{")
    with pytest.raises(ForeignSpool, match=r"catalog\.json cannot be read"):
        asyncio.run(start(ours))
