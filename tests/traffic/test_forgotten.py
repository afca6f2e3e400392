"""A person who is forgotten is gone from the spool, from the days, from the ratings and from the sums."""

from pathlib import Path

import pytest

from llmops_assets.erasure.plan import Platform
from llmops_assets.specs.policy import load_policy
from llmops_assets.traffic import days
from resources.artifacts import Artifacts
from resources.catalog import Catalog, erasures
from resources.encryption import NO_KEYS, Keyring
from resources.traffic.shipper import CannotShip, Shipper
from resources.traffic.spool import Spool, used_bytes, worker_folders
from tests.serving.test_spool import exposure as entry
from tests.traffic.test_traffic import DAY, NOON, Home, rating, row

NAME = "홍길동"


def is_theirs(text: str) -> bool:
    return NAME in text


def platform(catalog: Catalog, artifacts: Artifacts, spool: Path) -> Platform:
    return Platform(catalog, artifacts, None, None, None, load_policy(), spool=spool)


def test_words_and_names_go_from_days_ratings_and_sums_and_numbers_stay(tmp_path: Path):
    home = Home(tmp_path, Keyring([b"k" * 32]))
    before = '{"messages":[{"role":"user","content":"저는 홍길동입니다"}]}'
    said = [
        row(1, user=NAME, context=before, turns=3),
        row(2, user="erased"),
        row(3, response=f"{NAME} 고객님"),
        row(4),
    ]
    ratings = [rating(1, 5, user=NAME), rating(4, 1, correction=f"{NAME}에게 물어보세요"), rating(2, 3, user=None)]
    home.catalog.add_traffic(said, ratings)
    home.run()
    assert days.count(home.artifacts, is_theirs) == 3
    assert erasures.count_traffic(home.catalog, is_theirs) == {"exposures": 2, "feedback": 2, "shadows": 0}
    assert days.scrub(home.artifacts, is_theirs, lambda _: "erased") == 3
    erasures.scrub_traffic(home.catalog, is_theirs, lambda _: "erased")
    assert days.count(home.artifacts, is_theirs) == 0 == days.scrub(home.artifacts, is_theirs, lambda _: "erased")
    assert erasures.count_traffic(home.catalog, is_theirs) == {"exposures": 0, "feedback": 0, "shadows": 0}
    frame = days.read(home.artifacts, "desk", DAY)
    assert frame["turns"].to_list() == [3, None, None, None] and frame["context"].null_count() == 4
    assert frame["rating"].to_list() == [5, 3, None, 1] and frame["response"].to_list()[1:] == ["답 2", None, "답 4"]
    sums = {r["user"]: r for r in home.catalog.user_statistics(endpoint="desk").rows(named=True)}
    assert NAME not in sums
    # Two are one by name from here on, as they are in the rows.
    assert (sums["erased"]["requests"], sums["erased"]["rated_5"], sums["erased"]["rated_3"]) == (2, 1, 1)
    assert sum(s["requests"] for s in sums.values()) == 4 and sums["erased"]["first_at"] > NOON


def test_what_is_still_spooled_is_in_the_catalog_before_it_is_looked_for(tmp_path: Path, monkeypatch):
    catalog, artifacts = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}"), Artifacts(tmp_path / "artifacts")
    root = tmp_path / "spool"
    here = platform(catalog, artifacts, root)
    here.ship_log()
    spool = Spool(root, NO_KEYS)
    spool.append(entry(1, f"저는 {NAME}입니다"))
    spool.flush()
    assert erasures.count_traffic(catalog, is_theirs)["exposures"] == 0
    here.ship_log()
    assert erasures.count_traffic(catalog, is_theirs)["exposures"] == 1
    # Another ships, and does not come to it: nobody may say that all was looked through.
    spool.append(entry(2))
    spool.flush()
    other = Shipper(root, catalog, str, NO_KEYS)
    with other.turn(wait=False), pytest.raises(CannotShip, match="1 spools"):
        other.ship_what_is_there(0.3)
    with other.turn(wait=False):
        other.ship()
        Shipper(root, catalog, str, NO_KEYS).ship_what_is_there(5)
    spool.close()
    here.ship_log()
    assert worker_folders(root) == [] and used_bytes(root) == 0
