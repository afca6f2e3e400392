"""An installation is backed up while it works, destroyed, restored elsewhere, and is what it was."""

import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.operations.access import Actor
from llmops_assets.operations.backups import back_up, faults_of_backup, list_backups, restore
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.verification import verify
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.backup.make import revision_of
from resources.backup.objects import Objects
from resources.backup.snapshot import _digest
from resources.backup.tables import OtherSchema, dump, load
from resources.catalog import HEAD, Catalog
from tests.resources.samples import dataset, experiment, exposure
from tests.resources.test_records import SPLITS

KEY = "ab" * 32


def wiring(home: Path, **settings: object) -> Wiring:
    return Wiring(Settings(home=home, _env_file=None, **settings))


def filled(home: Path, **settings: object) -> Wiring:
    """An installation with a dataset version, a record, rows, a report, a link, keys, a database of Dagster's."""
    w = wiring(home, **settings)
    w.catalog.register_dataset(dataset("v1"), "v1")
    w.records.save("desk@v1", SPLITS)
    w.artifacts.write_text("a report", "reports", "desk@v1", "quality.html")
    (home / "dagster").mkdir(parents=True)
    with closing(sqlite3.connect(home / "dagster" / "runs.db")) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE runs (id INTEGER)")
        connection.execute("INSERT INTO runs VALUES (7)")
        connection.commit()
    (home / "erasure.key").write_bytes(b"k" * 32)
    (home / "gateway-admin.token").write_text("secret of the gateway")
    (home / "artifacts" / "latest").symlink_to(home / "artifacts" / "reports")
    (home / "outside").symlink_to("/etc/hostname")
    return w


def test_what_was_destroyed_is_back_elsewhere_with_its_keys_from_another_place(tmp_path: Path):
    w = filled(tmp_path / "old" / "home", encryption_key=KEY)
    done = back_up(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert done.made.snapshot.keys == ["erasure.key", "gateway-admin.token"]
    assert any("/etc/hostname" in line for line in done.made.snapshot.outside)
    held = b"".join(path.read_bytes() for path in (tmp_path / "backup").rglob("*") if path.is_file())
    assert b"secret of the gateway" not in held and KEY.encode() not in held and b"a report" not in held
    w.catalog.database.engine.dispose()
    for path in sorted((tmp_path / "old").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    new = wiring(tmp_path / "new" / "place", encryption_key=KEY)
    restore(new, "lee", tmp_path / "backup", keys=tmp_path / "keys")
    assert new.records.load(SplitsRecord, "desk@v1") == SPLITS
    assert new.artifacts.read_text("latest", "desk@v1", "quality.html") == "a report"
    assert (new.settings.root / "gateway-admin.token").stat().st_mode & 0o777 == 0o600
    assert (new.settings.root / "artifacts" / "latest").readlink() == Path("reports")
    with closing(sqlite3.connect(new.settings.root / "dagster" / "runs.db")) as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == [(7,)]
    assert verify(new, "kim").faults == []
    actions = [line["action"] for line in new.catalog.audit_log(2)]
    # The line of the backup is written when it is made, so it is not in it.
    assert actions == ["backup.restore", "dataset.register"]


def test_a_backup_that_is_made_while_others_write_is_of_one_moment(tmp_path: Path):
    w = filled(tmp_path / "home")
    ending = threading.Event()
    faults: list[BaseException] = []

    def work(number: int) -> None:
        own = wiring(tmp_path / "home")
        count = 0
        try:
            while not ending.is_set():
                count += 1
                own.records.save(f"desk@v{number}", SPLITS.model_copy(update={"seed": count}))
                own.catalog.log("worker", "test.write", f"{number}", count=count)
                own.artifacts.write_text(f"{count}", "reports", f"{number}-{count % 5}")
                own.artifacts.upath("reports", f"{number}-{(count + 2) % 5}").unlink(missing_ok=True)
        except BaseException as error:
            faults.append(error)
            raise

    workers = [threading.Thread(target=work, args=(number,)) for number in (2, 3)]
    for worker in workers:
        worker.start()
    try:
        for number in range(3):
            back_up(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
            new = wiring(tmp_path / f"new{number}")
            restore(new, "kim", tmp_path / "backup", keys=tmp_path / "keys")
            assert verify(new, "kim").faults == []
            assert len(new.records.all(SplitsRecord)) >= 1
    finally:
        ending.set()
        for worker in workers:
            worker.join(30)
    assert faults == []


def test_what_did_not_change_is_not_copied_again_and_what_no_backup_needs_goes(tmp_path: Path):
    w = filled(tmp_path / "home")
    first = back_up(w, "kim", tmp_path / "backup").made
    w.artifacts.write_text("another", "reports", "new")
    second = back_up(w, "kim", tmp_path / "backup").made
    assert first.copied > second.copied == 2, "the new file, and the catalog"
    w.artifacts.upath("reports", "new").unlink()
    sha256 = next(entry.sha256 for entry in second.snapshot.files if entry.path == "reports/new")
    assert [one.id for one in list_backups(tmp_path / "backup")[0]] == [second.snapshot.id, first.snapshot.id]
    done = back_up(w, "kim", tmp_path / "backup", keep=1)
    assert done.pruned >= 2 and not Objects(tmp_path / "backup").path(sha256).exists()
    restore(wiring(tmp_path / "new"), "kim", tmp_path / "backup", without_keys=True)
    with pytest.raises(Refused, match=f"holds no backup '{first.snapshot.id}'"):
        restore(wiring(tmp_path / "other"), "kim", tmp_path / "backup", id=first.snapshot.id, without_keys=True)


def test_a_changed_or_missing_file_of_a_backup_is_found_and_never_restored(tmp_path: Path):
    made = back_up(filled(tmp_path / "home"), "kim", tmp_path / "backup").made.snapshot
    assert faults_of_backup(tmp_path / "backup")[1] == []
    entry = next(entry for entry in made.files if entry.path.endswith("quality.html"))
    path = Objects(tmp_path / "backup").path(entry.sha256)
    path.chmod(0o600)
    path.write_bytes(b"A report")
    (fault,) = faults_of_backup(tmp_path / "backup")[1]
    assert "was changed since" in fault and "quality.html" in fault
    with pytest.raises(Refused, match=r"was changed since: it was to become .*quality\.html"):
        restore(wiring(tmp_path / "new"), "kim", tmp_path / "backup", without_keys=True)
    assert not (tmp_path / "new" / "artifacts" / "reports" / "desk@v1" / "quality.html").exists()
    # What was cut off says so, and goes on with the same backup alone.
    (fault, *_) = verify(wiring(tmp_path / "new"), "kim", quick=True).faults
    assert "it was being restored" in fault.what
    path.write_bytes(b"a report")
    restore(wiring(tmp_path / "new"), "kim", tmp_path / "backup", without_keys=True)
    assert verify(wiring(tmp_path / "new"), "kim").faults == []
    path.unlink()
    with pytest.raises(Refused, match="is missing"):
        restore(wiring(tmp_path / "third"), "kim", tmp_path / "backup", without_keys=True)
    listing = next((tmp_path / "backup" / "snapshots").iterdir())
    listing.chmod(0o600)
    # Whoever writes a list of their own can write its digest, too.
    values = json.loads(listing.read_text().replace("reports/desk@v1/quality.html", "../../evil"))
    listing.write_text(json.dumps(values | {"digest": _digest(values)}))
    path.write_bytes(b"a report")
    with pytest.raises(Refused, match="leads out of"):
        restore(wiring(tmp_path / "fourth"), "kim", tmp_path / "backup", without_keys=True)
    assert not (tmp_path / "evil").exists()


def test_a_restore_that_would_lose_or_overwrite_something_is_refused(tmp_path: Path, database):
    w = filled(tmp_path / "home", encryption_key=KEY)
    for keys, where in ((tmp_path / "backup" / "keys", "lie in each other"), (tmp_path, "lie in each other")):
        with pytest.raises(Refused, match=where):
            back_up(w, "kim", tmp_path / "backup", keys=keys)
    with pytest.raises(Refused, match="lies in the artifact root"):
        back_up(w, "kim", tmp_path / "home" / "artifacts" / "backup")
    with pytest.raises(Forbidden):
        back_up(w, Actor("lee", ["operator"]), tmp_path / "backup")
    with pytest.raises(Refused, match="holds no backup"):
        restore(w, "kim", tmp_path / "backup")
    back_up(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    with pytest.raises(Refused, match=r"sealed with key .*, which is not here"):
        restore(wiring(tmp_path / "new"), "kim", tmp_path / "backup")
    with pytest.raises(Refused, match=r"erasure\.key, gateway-admin\.token belong to this backup"):
        restore(wiring(tmp_path / "new", encryption_key=KEY), "kim", tmp_path / "backup")
    with pytest.raises(Refused, match="is not empty"):
        restore(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    other = wiring(tmp_path / "new", encryption_key=KEY, catalog_url=database())
    with pytest.raises(Refused, match="catalog was an SQLite file"):
        restore(other, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert not (tmp_path / "new").exists(), "nothing was written"
    # As the folder of a server begins, in which a command has run: nothing there is anybody's.
    for name in ("import", "spool", "cache/numba"):
        (tmp_path / "new" / name).mkdir(parents=True)
    (tmp_path / "new" / "cache" / "numba" / "one.nbi").write_bytes(b"compiled")
    (tmp_path / "new" / "import" / "theirs").symlink_to(tmp_path)
    with pytest.raises(Refused, match="is not empty"):
        restore(wiring(tmp_path / "new", encryption_key=KEY), "kim", tmp_path / "backup", keys=tmp_path / "keys")
    (tmp_path / "new" / "import" / "theirs").unlink()
    restore(wiring(tmp_path / "new", encryption_key=KEY), "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert (tmp_path / "new" / "catalog.db").exists() and (tmp_path / "new" / "cache" / "numba" / "one.nbi").exists()


def test_a_catalog_on_a_server_is_copied_row_by_row_and_goes_on_counting(tmp_path: Path, database):
    w = filled(tmp_path / "home", catalog_url=database())
    w.catalog.create_experiment(experiment(), "kim")
    w.catalog.add_traffic([exposure(f"req-{number}", query='{"a": "나"}\n') for number in range(1200)], [])
    back_up(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    new = wiring(tmp_path / "new", catalog_url=database())
    restore(new, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert new.catalog.identity == w.catalog.identity
    assert (
        new.catalog.exposures(endpoint="desk")
        .sort("request_id")
        .equals(w.catalog.exposures(endpoint="desk").sort("request_id"))
    )
    assert new.catalog.experiment("base-or-tuned") == w.catalog.experiment("base-or-tuned")
    assert verify(new, "kim").faults == []
    before = new.catalog.audit_log(1)[0]["id"]
    new.catalog.log("kim", "test.write", "after")
    assert new.catalog.audit_log(1)[0]["id"] == before + 1
    with pytest.raises(Refused, match=r"has .* tables already"):
        restore(wiring(tmp_path / "again", catalog_url=new.settings.catalog), "kim", tmp_path / "backup",
                keys=tmp_path / "keys")  # fmt: skip


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_catalog_of_an_earlier_version_is_backed_up_as_it_is_and_opens_once_it_is_restored(
    tmp_path: Path, database, kind: str
):
    where = {"catalog_url": database()} if kind == "postgresql" else {}
    w = filled(tmp_path / "home", **where)
    w.catalog.database.migrate("0010")
    w.catalog.database.engine.dispose()
    w = wiring(tmp_path / "home", **where)
    back_up(w, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert revision_of(w.settings.catalog) == "0010", "to back it up changes nothing"
    where = {"catalog_url": database()} if kind == "postgresql" else {}
    new = wiring(tmp_path / "new", **where)
    restore(new, "kim", tmp_path / "backup", keys=tmp_path / "keys")
    assert revision_of(new.settings.catalog) == HEAD and revision_of(w.settings.catalog) == "0010"
    assert [entry.key for entry in new.catalog.datasets()] == ["desk@v1"]
    assert new.records.load(SplitsRecord, "desk@v1") == SPLITS


def test_a_table_of_a_server_that_cannot_be_read_is_named_and_hides_no_other(tmp_path: Path, database):
    """A page that the disk lost, as PostgreSQL finds it: when somebody reads it."""
    w = filled(tmp_path / "home", catalog_url=database())
    assert verify(w, "kim").looked_at["databases"] == 2
    assert verify(w, "kim").faults == []
    w.catalog.database.engine.dispose()
    url = sa.make_url(w.settings.catalog)
    # A copy file by file is in no buffer: it is read from the disk.
    server = sa.create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {url.database}_lost TEMPLATE {url.database} STRATEGY FILE_COPY"))
        folder = connection.execute(sa.text("SHOW data_directory")).scalar()
    server.dispose()
    lost = url.set(database=f"{url.database}_lost").render_as_string(hide_password=False)
    engine = sa.create_engine(lost)
    with engine.connect() as connection:
        file = connection.execute(sa.text("SELECT pg_relation_filepath('datasets')")).scalar()
    engine.dispose()
    with Path(str(folder), str(file)).open("r+b") as page:
        page.write(b"x" * 8192)
    other = wiring(tmp_path / "home", catalog_url=lost)
    (fault,) = verify(other, "kim").faults
    assert fault.where == "database catalog" and "table datasets cannot be read: " in fault.what
    assert "invalid page" in fault.what and verify(other, "kim", quick=True).faults == []


def test_rows_of_another_schema_are_refused_and_nothing_of_them_stays(tmp_path: Path):
    one, two = (Catalog(f"sqlite:///{tmp_path / name}.db") for name in ("one", "two"))
    one.register_dataset(dataset("v1"), "v1")
    (tmp_path / "rows").write_bytes(b"".join(dump(one.url)))
    two.open()
    load(two.url, tmp_path / "rows")
    assert [entry.key for entry in two.datasets()] == ["desk@v1"] and two.identity == one.identity
    two.database.migrate("0010")
    two.database.engine.dispose()
    with pytest.raises(OtherSchema, match="restore with the version that made the backup"):
        load(two.url, tmp_path / "rows")


def test_the_commands_say_what_is_not_in_a_backup_and_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    filled(tmp_path / "home")

    def run(home: str, *words: str) -> tuple[int, str]:
        monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / home))
        common.wiring.cache_clear()
        done = CliRunner().invoke(app, list(words))
        return done.exit_code, done.output

    monkeypatch.chdir(tmp_path)
    try:
        code, said = run("home", "backup", str(tmp_path / "backup"))
        assert code == 0 and "not in it: erasure.key, gateway-admin.token" in said
        assert json.loads(run("home", "backup", str(tmp_path / "backup"), "--list", "--json")[1])[0]["files"] >= 3
        code, said = run("home", "verify", "--backup", str(tmp_path / "backup"))
        assert code == 0 and "0 faults" in said
        code, said = run("new", "restore", str(tmp_path / "backup"), "--without-keys")
        assert code == 0 and "run `llmops dataset forget` for them again" in said
        assert run("new", "verify")[0] == 0
        record = next((tmp_path / "new" / "records").rglob("*.json"))
        record.write_text(record.read_text().replace("desk@v1", "desk@v9"))
        code, said = run("new", "verify")
        assert code == common.Exit.FAILED and "record splits/desk@v1: it is not what was written" in said
        (tmp_path / "new" / "dagster" / "runs.db").write_bytes(b"no database")
        assert "runs.db" in run("new", "verify", "--json")[1]
    finally:
        common.wiring.cache_clear()
