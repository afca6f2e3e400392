"""The catalog keeps what users said, on SQLite and on PostgreSQL alike."""

import socket
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from resources.catalog import Backend, Catalog, CatalogDamaged, Conflict, NotFound, database, tables
from tests.resources.samples import dataset, deployment, experiment, exposure


def test_the_migrations_make_the_tables_that_the_code_declares(catalog):
    with catalog.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_several_processes_may_open_a_new_catalog_at_once(url):
    catalogs = [Catalog(url) for _ in range(4)]
    errors = []

    def open_it(catalog: Catalog) -> None:
        try:
            catalog.datasets()
        except sa.exc.SQLAlchemyError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it, args=(c,)) for c in catalogs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_dataset_version_never_changes(catalog):
    assert catalog.register_dataset(dataset(), "digest-1") is True
    first = catalog.dataset_entry("desk@v1").requested_at
    assert catalog.register_dataset(dataset(), "digest-1") is False
    assert catalog.dataset_entry("desk@v1").requested_at > first
    with pytest.raises(Conflict, match="other content"):
        catalog.register_dataset(dataset(), "digest-2")
    with pytest.raises(Conflict, match="other type"):
        catalog.register_dataset(dataset(type="eval_suite"), "digest-1")
    assert catalog.dataset("desk@v1") == dataset()


def test_datasets_are_listed_newest_first(catalog):
    for version in ("v1", "v2", "v3"):
        catalog.register_dataset(dataset(version), version)
    assert [entry.key for entry in catalog.datasets()] == ["desk@v3", "desk@v2", "desk@v1"]


def test_what_is_not_there_is_said_with_what_is(catalog):
    catalog.register_dataset(dataset(), "digest")
    with pytest.raises(NotFound, match=r"no dataset version 'desk@v9'; known are: desk@v1"):
        catalog.dataset("desk@v9")


def test_a_training_can_only_be_asked_for_what_exists(catalog):
    catalog.register_dataset(dataset(), "digest")
    with pytest.raises(NotFound, match="recipe"):
        catalog.request_training("desk@v1", "tuned-0000")
    assert catalog.add_recipe("tuned-0000", {"method": "lora"}) is True
    assert catalog.add_recipe("tuned-0000", {"method": "lora"}) is False
    number = catalog.request_training("desk@v1", "tuned-0000", "kim")
    (waiting,) = catalog.open_training_requests()
    assert (waiting.id, waiting.dataset, waiting.requested_by) == (number, "desk@v1", "kim")
    catalog.mark_reported([number])
    assert catalog.open_training_requests() == []
    assert catalog.training_requests()[0].reported_at is not None


def test_a_base_model_that_changes_must_be_approved_again(catalog):
    known = {"family": "llama", "path": "/models/l", "license": None}
    assert catalog.register_base("hf:/models/l", content_hash="a", **known).state == "draft"
    assert catalog.approve_base("hf:/models/l", "kim").approved_by == "kim"
    assert catalog.register_base("hf:/models/l", content_hash="a", **known).state == "approved"
    assert catalog.register_base("hf:/models/l", content_hash="b", **known).state == "draft"


def test_wanting_another_model_raises_the_revision_and_keeps_the_salt(catalog):
    first = catalog.want_endpoint(deployment())
    second = catalog.want_endpoint(deployment("desk@2"))
    assert (first.revision, second.revision, second.state) == (1, 2, "pending")
    assert second.salt == first.salt
    assert second.spec.model_ref == "desk@2"


def test_equal_routes_open_no_new_phase(catalog):
    catalog.want_endpoint(deployment())
    routes = [{"backend_id": "b1", "model_ref": "desk@1", "weight": 1.0}]
    assert catalog.set_routes("desk", routes) == 1
    assert catalog.set_routes("desk", routes) == 1
    assert catalog.set_routes("desk", []) == 2


def test_an_endpoint_is_not_forgotten_while_a_backend_is_on_record(catalog):
    catalog.want_endpoint(deployment())
    backend = Backend(
        id="b1",
        endpoint="desk",
        model_ref="desk@1",
        model_path="/m",
        engine="transformers",
        runtime={},
        url="http://127.0.0.1:1",
        pid=None,
        pid_started=None,
        state="healthy",
        log_path=None,
        created_at=datetime.now(UTC),
    )
    catalog.add_backend(backend)
    with pytest.raises(Conflict, match="b1"):
        catalog.remove_endpoint("desk")
    catalog.remove_backend("b1")
    catalog.remove_endpoint("desk")
    assert catalog.endpoints() == []


def test_one_experiment_runs_on_an_endpoint_and_its_design_never_changes(catalog):
    assert catalog.create_experiment(experiment()) is True
    assert catalog.create_experiment(experiment()) is False
    with pytest.raises(Conflict, match="another design"):
        catalog.create_experiment(experiment(split=(80, 20)))
    with pytest.raises(Conflict, match="is running on endpoint"):
        catalog.create_experiment(experiment("another"))


def test_a_decision_is_written_once(catalog):
    catalog.create_experiment(experiment())
    assert catalog.decide_experiment("base-or-tuned", "promote", "clear", {"difference": 1.5}) is True
    assert catalog.decide_experiment("base-or-tuned", "rollback", "later data", {}) is False
    decided = catalog.experiment("base-or-tuned")
    assert (decided.decision, decided.figures, decided.state) == ("promote", {"difference": 1.5}, "concluded")


def test_exposures_and_their_ratings_come_back_as_frames(catalog):
    at = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
    catalog.add_exposures([exposure("r2", at=at + timedelta(seconds=1)), exposure("r1", at=at, query="질문")])
    catalog.add_exposures([exposure("r3", experiment=None, endpoint="other")])
    catalog.add_feedback("r1", 5, user="u1", comment="좋아요")
    catalog.add_feedback("r3", 1)
    frame = catalog.exposures(experiment="base-or-tuned")
    assert frame["request_id"].to_list() == ["r1", "r2"]
    assert frame["at"].to_list()[0] == at
    assert frame["query"].to_list() == ["질문", None]
    assert catalog.feedback(experiment="base-or-tuned")["rating"].to_list() == [5]
    assert catalog.feedback(endpoint="other")["rating"].to_list() == [1]
    assert catalog.exposure_count(experiment="base-or-tuned") == 2
    assert catalog.request_count(endpoint="other") == 1
    assert catalog.exposures(endpoint="desk", since=at + timedelta(milliseconds=500)).height == 1


def test_a_rating_outside_one_to_five_is_refused(catalog):
    with pytest.raises(sa.exc.IntegrityError):
        catalog.add_feedback("r1", 6)


def test_the_audit_log_names_who_did_what_and_only_grows(catalog):
    catalog.register_dataset(dataset(), "digest", actor="kim")
    line = catalog.audit_log()[0]
    assert (line["actor"], line["action"], line["target"]) == ("kim", "dataset.register", "desk@v1")
    for statement in ("UPDATE audit SET actor = 'lee'", "DELETE FROM audit"):
        with pytest.raises(sa.exc.DatabaseError, match="append-only"), catalog.database.engine.begin() as connection:
            connection.execute(sa.text(statement))


def test_a_database_that_accepts_and_says_nothing_is_not_waited_for_without_end(monkeypatch, tmp_path):
    monkeypatch.setitem(database.PATIENCE, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(sa.exc.OperationalError, match="timeout"):
            Catalog(f"postgresql+psycopg://catalog@127.0.0.1:{port}/catalog").audit_log(limit=1)
    given = sa.make_url("postgresql+psycopg://c@h/d?connect_timeout=99&tcp_user_timeout=1")
    assert not {"connect_timeout", "tcp_user_timeout"} & database._patience(str(given))["connect_args"].keys()


def test_a_value_that_somebody_else_wrote_is_named_with_its_table(tmp_path):
    # PostgreSQL takes no such value.
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    catalog.register_dataset(dataset(), "digest")
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection, connection:
        connection.execute("update datasets set requested_at = '2026-11-30 18:37:29.58365가'")
    with pytest.raises(
        CatalogDamaged, match=r"catalog\.db.* holds a value in .*datasets.*restore it from a backup"
    ) as e:
        catalog.datasets()
    assert e.value.__cause__ is None
    with pytest.raises(CatalogDamaged, match="holds a value in datasets that is none of its column"):
        catalog.dataset("desk@v1")
