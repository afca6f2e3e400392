"""A catalog written by an earlier version opens with all that is in it, and what was asked for is still wanted."""

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from resources.catalog import HEAD, Catalog, CatalogTooNew, database, erasures, pointers
from resources.catalog.database import Database

EARLIER = Path(__file__).parent / "catalogs"
AT_0003 = ("datasets", "recipes", "training_requests", "base_models", "endpoints", "phases", "backends", "experiments")
AT_0003 += ("exposures", "feedback", "dataset_pointers", "audit", "erasures", "affected_models")


def rows_of(path: Path) -> dict[str, list[dict]]:
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    found = {table: [dict(r) for r in connection.execute(f"SELECT * FROM {table}")] for table in AT_0003}
    connection.close()
    return found


@pytest.fixture
def earlier(url: str, tmp_path: Path) -> str:
    """The URL of a catalog as revision 0003 left it, with open requests, decisions and things there are two of."""
    file = tmp_path / "0003.db"
    connection = sqlite3.connect(file)
    connection.executescript((EARLIER / "0003.sql").read_text())
    connection.close()
    if url.startswith("sqlite"):
        return f"sqlite:///{file}"
    database = Database(url)
    database.migrate("0003")
    engine = sa.create_engine(url)
    with engine.begin() as target:
        metadata = sa.MetaData()
        metadata.reflect(target)
        for name, rows in rows_of(file).items():
            table = metadata.tables[name]
            for row in rows:
                target.execute(table.insert().values({c: value_of(table.c[c].type, v) for c, v in row.items()}))
            if "id" in table.c and isinstance(table.c.id.type, sa.Integer):
                target.execute(sa.text(f"SELECT setval('{name}_id_seq', (SELECT max(id) FROM {name}))"))
    engine.dispose()
    return url


def value_of(kind: sa.types.TypeEngine, value: object) -> object:
    if isinstance(value, str) and isinstance(kind, sa.JSON):
        return json.loads(value)
    if isinstance(value, str) and isinstance(kind, sa.DateTime):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value


def test_all_that_was_in_it_is_there(earlier):
    catalog = Catalog(earlier)
    assert [d.key for d in catalog.datasets()] == ["gone@v1", "desk@v2", "desk@v1"]
    assert catalog.base_model("hf:/models/l").approved_by == "lee"
    assert [r.id for r in catalog.training_requests()] == [5, 4, 3, 2, 1]
    assert catalog.endpoint("desk").routes[1] == {"backend_id": "desk-2", "model_ref": "desk@1", "weight": 50.0}
    assert catalog.phases("desk").keys() == {1}
    assert catalog.exposures(endpoint="desk")["query"].to_list() == ["질문"]
    assert catalog.feedback(endpoint="desk")["comment"].to_list() == ["좋아요"]
    assert pointers.tags(catalog, "desk")["prod"] == "v1"
    assert erasures.affected(catalog)[0].model_ref == "gone@1"
    assert catalog.experiment("acted").acted_at is not None


def test_what_was_asked_for_and_not_done_is_still_wanted(earlier):
    catalog = Catalog(earlier)
    wanted = {(i.kind, i.key): i for i in catalog.intents.open()}
    assert wanted.keys() == {
        ("ingest", "desk@v1"),
        ("ingest", "desk@v2"),
        ("train", "desk@v2|tuned-0000"),
        ("trial", "desk@v2|trial-0001"),
        ("deploy", "help"),
        ("deploy", "desk"),
    }
    # Asked for twice: the later request is what is wanted, and no revision is lost.
    training = wanted["train", "desk@v2|tuned-0000"]
    assert (training.revision, training.requested_by, training.detail) == (2, "lee", {"request": 3})
    assert wanted["trial", "desk@v2|trial-0001"].requested_by == "study:search"
    assert wanted["ingest", "desk@v1"].detail == {"migrated": True}
    assert wanted["deploy", "help"].revision == catalog.endpoint("help").revision == 1
    assert catalog.intents.newest("train", "gone@v1|tuned-0000").outcome == "withdrawn"
    assert catalog.intents.newest("deploy", "old").outcome == "withdrawn"


def test_a_decision_that_nobody_acted_on_is_wanted_of_its_endpoint(earlier):
    catalog = Catalog(earlier)
    intent, endpoint = catalog.intents.newest("deploy", "desk"), catalog.endpoint("desk")
    assert intent.detail == {"experiment": "decided", "decision": "promote", "model_ref": "desk@1"}
    assert intent.revision == endpoint.revision == 3 and endpoint.observed_revision == 2
    assert endpoint.state == "pending"
    assert catalog.conclude_deployment("desk", 3, state="live") is True
    assert catalog.experiment("decided").acted_at is not None
    assert "'vanished' is gone" in catalog.experiment("orphan").withheld
    by_hand = catalog.experiment("by-hand")
    assert by_hand.acted_at is not None and by_hand.withheld is None


def test_of_what_there_may_be_one_of_the_first_stays(earlier):
    catalog = Catalog(earlier)
    assert [e.name for e in catalog.experiments("running")] == ["first"]
    second = catalog.experiment("second")
    assert second.decision == "invalid" and "beside first" in second.reason
    assert [(e.id, e.state) for e in erasures.erasures(catalog)] == [(2, "done"), (1, "running")]
    audited = {(line["action"], line["target"]) for line in catalog.audit_log() if line["actor"] == "migration"}
    assert audited == {("experiment.decide", "second"), ("dataset.forgotten", "2")}


def test_it_goes_back_and_forth_and_loses_nothing_of_before(earlier):
    catalog = Catalog(earlier)
    catalog.intents.acknowledge("trial", "desk@v2|trial-0001", 1, actor="adapter")
    catalog.database.migrate("0003")
    with sa.create_engine(earlier).connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "0003"
        assert not sa.inspect(connection).has_table("intents")
        assert connection.execute(sa.text("SELECT count(*) FROM audit")).scalar() > 20
    again = Catalog(earlier)
    # What was done or withheld in between is not wanted once more.
    assert [i.key for i in again.intents.open("train")] == ["desk@v2|tuned-0000"]
    assert again.intents.open("trial") == []
    assert [r.id for r in again.open_training_requests()] == [3]
    assert again.experiment("orphan").acted_at is not None
    assert len(again.datasets()) == 3


def test_a_catalog_of_a_later_version_is_refused_and_left_alone(url):
    catalog = Catalog(url)
    with catalog.database.write("test") as transaction:
        transaction.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(CatalogTooNew, match=f"schema 9999, which is later than {HEAD}"):
        Catalog(url).datasets()


def test_the_head_is_the_newest_migration():
    # One behind, every opening of a catalog would migrate it anew, and the doctor take it for a later version's.
    assert ScriptDirectory(str(database.MIGRATIONS)).get_heads() == [HEAD]
