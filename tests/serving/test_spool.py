"""The spool and its shipper: what was logged is in the catalog once, whatever ends, breaks or is away in between."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.encryption import NO_KEYS, Keyring
from resources.traffic import spool as spools
from resources.traffic.entries import Exposure, Rating, now
from resources.traffic.frames import HEADER, MARK, Damage, frame, frames
from resources.traffic.shipper import CannotShip, Shipper
from resources.traffic.spool import Position, Spool
from resources.traffic.spool_lag import under_other_keys
from tests.serving.conftest import until

SECRET = "kim@example.com"
KEY = Keyring([b"k" * 32])


def exposure(number: int, query: str = "hi", **changes) -> Exposure:
    values = {"experiment": None, "phase": 1, "variant": 0, "backend": "desk-a", "model_ref": "a@1", "user": "lee"}
    values |= {"session": None, "streamed": False, "latency_ms": 1.0, "endpoint": "desk", "salt": "s", "at": now()}
    return Exposure(**(values | {"request_id": f"req-{number}", "query": query} | changes))


def mask(text: str) -> str:
    return text.replace(SECRET, "[이메일]")


def shipper(root: Path, catalog: Catalog, keys: Keyring = NO_KEYS) -> Shipper:
    return Shipper(root, catalog, mask, keys)


def written(catalog: Catalog) -> list[str]:
    return sorted(catalog.exposures(endpoint="desk")["request_id"].to_list(), key=lambda id: int(id[4:]))


def ids(count: int) -> list[str]:
    return [f"req-{number}" for number in range(count)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def fill(root: Path, count: int, keys: Keyring = NO_KEYS, first: int = 0, **changes) -> Spool:
    spool = Spool(root, keys, **changes)
    for number in range(first, first + count):
        spool.append(exposure(number, f"{number} from {SECRET}"))
        if number % 7 == 0:
            spool.flush()
    assert spool.flush()
    return spool


def test_what_several_workers_spooled_is_shipped_in_order_masked_and_gone_from_the_disk(root: Path, catalog: Catalog):
    one, two = fill(root, 600), fill(root, 50, first=600)
    with shipper(root, catalog).turn(wait=False) as is_ours:
        assert is_ours
        assert shipper(root, catalog).ship() == 650
    assert written(catalog) == ids(650)
    rows = catalog.exposures(endpoint="desk").filter(worker=one.name).sort("sequence")
    assert rows["sequence"].to_list() == list(range(1, 601))
    assert rows["request_id"].to_list() == ids(600)
    assert set(rows["query"].str.contains("@")) == {False}
    for spool in (one, two):
        spool.close()
    assert shipper(root, catalog).ship() == 0
    assert spools.worker_folders(root) == [] and spools.used_bytes(root) == 0


@pytest.mark.parametrize("keys", [NO_KEYS, KEY], ids=["no key", "a key"])
def test_no_word_of_a_user_is_plain_on_the_disk(root: Path, catalog: Catalog, keys: Keyring):
    spool = fill(root, 20, keys)
    found = [path for path in root.rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in found)
    for path in found:
        assert SECRET.encode() not in path.read_bytes() and b"lee" not in path.read_bytes()
        if path.suffix == ".log" or path.name == "key":
            assert path.stat().st_mode & 0o077 == 0
    assert (root / "key").exists() is not bool(keys)
    assert shipper(root, catalog, keys).ship() == 20
    spool.close()


def test_one_key_is_made_by_workers_that_start_together(root: Path):
    code = (
        "import sys; from pathlib import Path; from resources.encryption import NO_KEYS\n"
        "from resources.traffic.spool import spool_keys; print(spool_keys(Path(sys.argv[1]), NO_KEYS).ids)"
    )
    command = [sys.executable, "-c", code, str(root)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_a_key_that_is_missing_holds_nothing_else_up_and_loses_nothing(root: Path, catalog: Catalog):
    sealed, other = fill(root, 5, KEY), fill(root, 5, NO_KEYS, first=5)
    with pytest.raises(CannotShip, match="sealed with key"):
        shipper(root, catalog).ship()
    assert written(catalog) == ids(10)[5:]
    assert shipper(root, catalog, KEY).ship() == 5
    assert written(catalog) == ids(10)
    sealed.close()
    other.close()


def test_an_older_key_is_needed_until_what_waits_was_shipped(root: Path, catalog: Catalog):
    new = Keyring([b"n" * 32])
    spool = fill(root, 5, KEY)
    assert under_other_keys(root, KEY.ids) == 0 and under_other_keys(root, new.ids) == 1
    spool.close()
    assert shipper(root, catalog, Keyring([b"n" * 32, b"k" * 32])).ship() == 5
    assert under_other_keys(root, new.ids) == 0


def test_a_torn_or_damaged_frame_costs_its_own_entries_and_no_other(root: Path, catalog: Catalog):
    spool = Spool(root, NO_KEYS)
    for number in range(4):
        spool.append(exposure(number))
        spool.flush()
    spool.close()
    path = spool.folder / "1.log"
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data)) if data.startswith(MARK, at)]
    data[starts[1] + HEADER + 3] ^= 0xFF
    path.write_bytes(data[:-5])
    assert shipper(root, catalog).ship() == 2
    assert written(catalog) == ["req-0", "req-2"]
    assert spools.worker_folders(root) == []


@pytest.mark.parametrize("seed", range(20))
def test_frames_are_found_again_behind_whatever_is_not_one(seed: int):
    rng = random.Random(seed)
    pieces, at = [], 0
    for number in range(30):
        good = frame(number, 1, rng.randbytes(rng.randrange(0, 200)))
        bad = rng.choice([b"", rng.randbytes(9), MARK, good[:-1] if len(good) > HEADER else b"", MARK + good[8:20]])
        pieces.append((bad, good))
    data = b"".join(bad + good for bad, good in pieces)
    found = list(frames(data, is_complete=True))
    assert [f.first for f in found if not isinstance(f, Damage)] == list(range(30))
    assert sum(f.size for f in found if isinstance(f, Damage)) == sum(len(bad) for bad, _ in pieces)
    # Read while it grows, byte by byte, it gives the same.
    seen, at = [], 0
    for end in range(1, len(data) + 1, rng.randrange(1, 60)):
        for f in frames(data[:end], at, is_complete=False):
            at = f.end
            seen += [f.first] if not isinstance(f, Damage) else []
    seen += [f.first for f in frames(data, at, is_complete=True) if not isinstance(f, Damage)]
    assert seen == list(range(30))


def test_the_catalog_away_keeps_everything_and_back_it_is_shipped_once(root: Path, catalog: Catalog, tmp_path: Path):
    spool = fill(root, 700)
    with catalog.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE user_statistics RENAME TO away")
    with pytest.raises(CannotShip, match="cannot be written yet"):
        shipper(root, catalog).ship()
    assert catalog.request_count(endpoint="desk") == 0
    with catalog.database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO user_statistics")
    assert shipper(root, catalog).ship() == 700
    # A shipper that ended before it could note how far it was ships the same again.
    Position().write(spool.folder)
    assert shipper(root, catalog).ship() == 700
    assert written(catalog) == ids(700)
    assert catalog.user_statistics(endpoint="desk")["requests"].sum() == 700
    spool.close()


def test_a_full_spool_costs_no_request_and_counts_what_is_lost(root: Path, catalog: Catalog):
    lost: list[str] = []
    spool = Spool(root, NO_KEYS, capacity=20, cap_bytes=20_000, on_lost=lost.append)
    begun = time.monotonic()
    for number in range(1000):
        spool.append(exposure(number, "x" * 300))
        if number % 10 == 0:
            spool.flush()
    assert time.monotonic() - begun < 5
    assert "of the 20,000 that it may" in spool.fault
    assert set(lost) == {"not spooled"} and spools.used_bytes(root) <= 20_000
    shipped = shipper(root, catalog).ship()
    until(lambda: spool.flush(), 5)
    assert spool.fault is None
    shipped += shipper(root, catalog).ship()
    assert shipped + len(lost) == 1000 and catalog.request_count(endpoint="desk") == shipped >= 50
    spool.append(exposure(1000))
    spool.close()
    shipper(root, catalog).ship()
    # What is missing can be seen in the numbers.
    numbers = catalog.exposures(endpoint="desk")["sequence"].sort().to_list()
    assert numbers[-1] == 1001 and len(numbers) == 1001 - len(lost)


def test_an_entry_that_cannot_be_encoded_costs_no_other(root: Path, catalog: Catalog):
    lost: list[str] = []
    spool = Spool(root, NO_KEYS, on_lost=lost.append)
    for number, query in enumerate(["a", "\ud800", "b", "\udfff", "c"]):
        spool.append(exposure(number, query))
    assert spool.flush() and lost == ["refused", "refused"]
    spool.close()
    shipper(root, catalog).ship()
    assert written(catalog) == ["req-0", "req-2", "req-4"]


def test_a_rating_through_the_spool_has_the_name_of_who_asked(root: Path, catalog: Catalog):
    from tests.serving.conftest import deployment_spec

    catalog.want_endpoint(deployment_spec())
    salt = catalog.endpoint("desk").salt
    spool = Spool(root, NO_KEYS)
    rating = Rating("e1", "req-1", now(), 2, user=SECRET, comment=f"call {SECRET}", correction=f"to {SECRET}")
    spool.append(exposure(1, user=SECRET, salt=salt))
    spool.append(rating)
    spool.append(rating)
    spool.close()
    shipper(root, catalog).ship()
    (row,) = catalog.feedback(endpoint="desk").rows(named=True)
    assert row["user"] == catalog.exposures(endpoint="desk")["user"][0] != SECRET
    assert (row["comment"], row["correction"], row["sequence"]) == ("call [이메일]", "to [이메일]", 2)
    assert catalog.user_statistics(endpoint="desk")["rated_2"].to_list() == [1]


WRITER = """
import sys, time
from pathlib import Path
from resources.encryption import NO_KEYS
from resources.traffic.spool import Spool
from tests.serving.test_spool import exposure
spool = Spool(Path(sys.argv[1]), NO_KEYS)
for number in range(100_000):
    spool.append(exposure(number))
    if number % 20 == 0:
        print(number, time.monotonic(), flush=True)
        time.sleep(0.005)
"""


def test_a_worker_that_is_killed_loses_at_most_the_last_second(root: Path, catalog: Catalog):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if int(line.split()[0]) >= 3000:
            break
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    lines += process.stdout.readlines()
    shipper(root, catalog).ship()
    found = written(catalog)
    assert found == ids(len(found))
    before = [int(number) for number, at in map(str.split, lines) if float(at) < killed - 1]
    assert len(found) > (before[-1] if before else 0)
    assert spools.worker_folders(root) == []


def test_a_shipper_that_is_killed_again_and_again_loses_and_doubles_nothing(root: Path, catalog: Catalog):
    spool = fill(root, 1500)
    spool.append(Rating("e1", "req-3", now(), 5))
    spool.close()
    environment = os.environ | {"LLMOPS_HOME": str(root.parent), "LLMOPS_CATALOG_URL": catalog.url}
    command = [sys.executable, "-m", "images.gateway.ship", "--once"]
    catalog.open()
    rng = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = catalog.request_count(endpoint="desk")
        until(lambda b=before, p=process: catalog.request_count(endpoint="desk") > b or p.poll() is not None, 60)
        time.sleep(rng.random() * 0.02)
        process.kill()
        process.wait()
    assert subprocess.run(command, env=environment, timeout=60).returncode == 0
    assert written(catalog) == ids(1500)
    sums = catalog.user_statistics(endpoint="desk")
    assert (sums["requests"].sum(), sums["rated_5"].sum()) == (1500, 1)
    assert spools.worker_folders(Settings(home=root.parent).root / "spool") == []
