"""What earlier versions wrote opens with this one: rehearsed on copies that leave it alone, and then upgraded."""

import hashlib
import json
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.operations.errors import Failed, Refused
from llmops_assets.operations.history import served_at
from llmops_assets.operations.upgrades import rehearse, upgrade
from llmops_assets.operations.verification import verify
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources import mlflow_schema
from resources.backup import dagster_database, tables
from resources.backup.make import revision_of
from resources.backup.scratch import row_counts, scratch_copy
from resources.backup.walk import MARKER
from resources.catalog import HEAD, Database

FIRST = Path(__file__).parents[1] / "homes" / "first_release.tar.xz"


def digest(folder: Path) -> dict[str, str]:
    """The hash of each file."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The home that the first release wrote, at another place."""
    with tarfile.open(FIRST) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "home"


def wiring(home: Path, **settings: object) -> Wiring:
    return Wiring(Settings(home=home, _env_file=None, **settings))


def moved(source: Path, url: str, folder: Path) -> str:
    """The rows of an SQLite file in a database on a server, whose tables are there."""
    rows = folder / "rows"
    with rows.open("wb") as stream:
        stream.writelines(tables.dump(f"sqlite:///{source}"))
    tables.load(url, rows)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def first(request: pytest.FixtureRequest, home: Path, tmp_path: Path) -> Wiring:
    """The first release's home, its catalog and MLflow's store in files or on a server."""
    if request.param == "sqlite":
        return wiring(home)
    make: Callable[[], str] = request.getfixturevalue("database")
    catalog = make().replace("postgresql+psycopg2", "postgresql+psycopg")
    made_at_0001 = Database(catalog)
    made_at_0001.migrate("0001")
    made_at_0001.close()
    moved(home / "catalog.db", catalog, tmp_path)
    mlflow = make()
    wiring(tmp_path / "other", mlflow_tracking_uri=mlflow).tracking.prepare()
    moved(home / "mlflow.db", mlflow, tmp_path)
    for name in ("catalog.db", "mlflow.db"):
        (home / name).unlink()
    return wiring(home, catalog_url=catalog, mlflow_tracking_uri=mlflow)


def test_the_first_releases_home_is_rehearsed_untouched_and_opens_with_this_version(first: Wiring, tmp_path: Path):
    before, rows = digest(first.settings.root), row_counts(first.settings.catalog)
    found = rehearse(first, "kim")
    assert found.faults == [] and found.is_due
    catalog, mlflow, dagster = found.changes
    assert (catalog.before, catalog.after, len(catalog.steps)) == ("0001", HEAD, int(HEAD) - 1)
    assert mlflow.before == mlflow.after == mlflow_schema.newest() and not dagster.is_due
    kinds = ("recipes", "records", "registered models", "adapters and models")
    assert [found.looked_at[kind] for kind in kinds] == [2, 16, 2, 4]
    assert found.rows["exposures"] == 12 and found.begins == ["ingest:desk@v1:1, which migration wanted"]
    assert digest(first.settings.root) == before, "to rehearse it changes nothing"
    assert row_counts(first.settings.catalog) == rows and revision_of(first.settings.catalog) == "0001"
    done = upgrade(first, "kim", backup=tmp_path / "backup")
    assert done.backup is not None
    catalog = first.catalog
    assert [d.key for d in catalog.datasets()] == ["desk@v1"] and catalog.experiment(
        "two-against-one"
    ).state == "running"
    assert catalog.exposures(endpoint="desk").height == 12
    assert {record.dataset for record in first.records.all(EvaluationRecord)} == {"desk@v1"}
    assert [model.ref for model in first.tracking.models()] == ["desk@2", "desk@1"]
    assert verify(first, "kim").faults == []
    served = served_at(first, "desk", catalog.audit_log(1)[0]["at"])
    assert [(one.model_ref, one.weight) for one in served.models] == [("desk@1", 50.0), ("desk@2", 50.0)]
    [line] = [line for line in catalog.audit_log(5) if line["action"] == "upgrade.run"]
    assert line["detail"] == {"changes": {"catalog": ["0001", HEAD]}, "backup": done.backup}
    # Once is enough: nothing is due then, nothing is backed up, no line is written.
    again = upgrade(first, "kim", backup=tmp_path / "backup")
    assert (again.backup, again.rehearsal.is_due) == (None, False)
    assert len([line for line in catalog.audit_log(9) if line["action"] == "upgrade.run"]) == 1


def test_what_this_version_cannot_read_is_named_and_nothing_is_upgraded(home: Path):
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        connection.execute("UPDATE endpoints SET spec = json_set(spec, '$.serve_target', 'DREAM')")
        connection.execute("UPDATE recipes SET spec = json_set(spec, '$.hyperparams.sorcery', 7) WHERE rowid = 1")
        connection.commit()
    record = next((home / "records" / "evaluation").rglob("*.json"))
    record.write_text(record.read_text().replace('"metrics"', '"measures"'))
    (home / "records" / "astrology").mkdir()
    (home / "records" / "astrology" / "desk@v1.json").write_text("{}")
    weights = next((home / "artifacts" / "models").rglob("merged/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    found = {fault.where: fault.what for fault in rehearse(wiring(home), "kim").faults}
    assert "serve_target" in found["endpoints desk"]
    assert any(where.startswith("recipes desk-") and "sorcery" in what for where, what in found.items())
    assert any(where.startswith("records evaluation/desk@v1/") and "metrics" in what for where, what in found.items())
    assert "no asset of this version is called astrology" in found["records astrology/desk@v1"]
    assert any(where.startswith("merged_model of desk@v1") for where in found), found
    with pytest.raises(Failed, match="nothing was changed: the rehearsal found"):
        upgrade(wiring(home), "kim", backup=home.parent / "backup")
    assert revision_of(f"sqlite:///{home / 'catalog.db'}") == "0001" and not (home.parent / "backup").exists()


def test_rows_that_a_migration_would_lose_are_counted(home: Path, monkeypatch: pytest.MonkeyPatch):
    real = Database.migrate

    def lossy(self: Database, revision: str = "head") -> None:
        real(self, revision)
        with self._begun("IMMEDIATE") as connection:
            connection.execute(
                sa.text("DELETE FROM exposures WHERE request_id = (SELECT min(request_id) FROM exposures)")
            )

    monkeypatch.setattr(Database, "migrate", lossy)
    [fault] = rehearse(wiring(home), "kim", quick=True).faults
    assert fault.what == "1 of 12 rows of exposures are gone behind the upgrade"


def test_mlflows_own_schema_of_an_earlier_version_is_brought_up_to_date(home: Path):
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    url = f"sqlite:///{home / 'mlflow.db'}"
    script = ScriptDirectory.from_config(_get_alembic_config(""))
    previous = script.get_revision(mlflow_schema.newest()).down_revision
    command.downgrade(_get_alembic_config(url), previous)
    found = rehearse(wiring(home), "kim", quick=True)
    assert found.faults == [] and (found.changes[1].before, found.changes[1].is_due) == (previous, True)
    assert revision_of(url) == previous
    upgrade(wiring(home), "kim", backup=None)
    assert [model.ref for model in wiring(home).tracking.models()] == ["desk@2", "desk@1"]


def test_dagsters_storage_is_copied_where_it_is_on_a_server_too(
    tmp_path: Path,
    database: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
):
    from dagster import DagsterInstance

    url = database()
    monkeypatch.setenv("THE_URL", url)
    here, place = tmp_path / "dagster", tmp_path / "scratch"
    here.mkdir()
    place.mkdir()
    (here / "dagster.yaml").write_text("storage: {postgres: {postgres_url: {env: THE_URL}}}\n")
    dagster_database.make_tables(here)
    with DagsterInstance.from_config(str(here)) as instance:
        instance.add_dynamic_partitions("endpoints", ["desk"])
    before = row_counts(url)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '284a732df317'"))
    with dagster_database.scratch_home(here, place) as copy:
        assert dagster_database.revisions(copy)["runs"][0] == "284a732df317"
        with DagsterInstance.from_config(str(copy)) as instance:
            assert instance.get_dynamic_partitions("endpoints") == ["desk"]
            instance.add_dynamic_partitions("endpoints", ["other"])
    assert row_counts(url) == before
    with sa.create_engine(url).connect() as connection:
        assert [name for name in sa.inspect(connection).get_schema_names() if "scratch" in name] == []


def test_a_copy_that_was_left_by_a_killed_process_goes_with_the_next_and_one_in_use_stays(
    tmp_path: Path,
    database: Callable[[], str],
):
    url = database()
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")

    def schemas() -> list[str]:
        with engine.connect() as connection:
            return [name for name in sa.inspect(connection).get_schema_names() if "scratch" in name]

    with engine.connect() as connection:
        connection.execute(sa.text("CREATE SCHEMA llmops_scratch_left"))
        connection.execute(sa.text("CREATE TABLE kept (id BIGSERIAL PRIMARY KEY, word TEXT UNIQUE NOT NULL)"))
        connection.execute(sa.text("INSERT INTO kept (word) VALUES ('통행료')"))
    with scratch_copy(url, tmp_path) as one:
        assert len(schemas()) == 1 and "llmops_scratch_left" not in schemas()
        with scratch_copy(url, tmp_path) as two:
            assert len(schemas()) == 2
            with sa.create_engine(two).begin() as connection:
                connection.execute(sa.text("INSERT INTO kept (word) VALUES ('영수증')"))
        assert row_counts(one) == {"kept": 1}
    assert schemas() == [] and row_counts(url) == {"kept": 1}
    engine.dispose()


def test_homes_that_are_no_case_for_it(home: Path, tmp_path: Path):
    nothing = rehearse(wiring(tmp_path / "new"), "kim")
    assert not nothing.is_due and nothing.faults == [] and not (tmp_path / "new" / "catalog.db").exists()
    with closing(sqlite3.connect(home / "catalog.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    with pytest.raises(Refused, match="schema 9999, which is later than"):
        rehearse(wiring(home), "kim")
    (home / MARKER).write_text("{}")
    with pytest.raises(Refused, match="was being restored, and that was cut off"):
        upgrade(wiring(home), "kim", backup=None)


def test_while_others_have_the_catalog_of_a_server_open_it_is_refused(
    tmp_path: Path,
    database: Callable[[], str],
):
    url = database()
    made = Database(url)
    made.migrate("0011")
    made.close()
    w = wiring(tmp_path / "home", catalog_url=url)
    other = sa.create_engine(url)
    with other.connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        with pytest.raises(Refused, match="1 other connections to the catalog are open: stop the server first"):
            upgrade(w, "kim", backup=None)
        # To rehearse holds nobody up.
        assert rehearse(w, "kim").changes[0].before == "0011"
    other.dispose()
    assert upgrade(w, "kim", backup=None).rehearsal.is_due and revision_of(url) == HEAD


def test_the_command(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMOPS_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    common.wiring.cache_clear()
    run = CliRunner().invoke
    try:
        shown = run(app, ["upgrade", "--rehearse", "--quick", "--json"])
        assert shown.exit_code == 0 and json.loads(shown.stdout)["due"] is True
        neither = run(app, ["upgrade"])
        assert neither.exit_code == common.Exit.INVALID and "--backup DIR" in neither.output
        done = run(app, ["upgrade", "--backup", str(tmp_path / "backup")])
        assert done.exit_code == 0 and f"llmops restore {tmp_path / 'backup'} --id " in done.output
        assert "nothing to upgrade" in run(app, ["upgrade", "--without-backup"]).output
        monkeypatch.setenv("LLMOPS_ACTOR_KEY", "llmops-key")
        common.wiring.cache_clear()
        refused = run(app, ["upgrade", "--rehearse"])
        assert refused.exit_code == common.Exit.INVALID and "LLMOPS_ACTOR_KEY" in refused.output
    finally:
        common.wiring.cache_clear()
