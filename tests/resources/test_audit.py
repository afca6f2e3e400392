"""The audit log has a line for what changed the catalog, and none for what did not."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy.exc import IntegrityError

from resources.catalog import Backend, Catalog, Conflict, erasures, pointers, tables
from tests.resources.samples import dataset, deployment, experiment

BASE = {"family": "llama", "path": "/models/l", "content_hash": "a", "license": None}
BACKEND = Backend(
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
AFFECTED = erasures.Affected(1, "desk@v1|tuned", "hash", "desk@1", "it read them", datetime.now(UTC))


def changes(catalog: Catalog) -> dict[str, Callable[[], object]]:
    """One call of everything that writes, in an order in which each has something to change."""
    routes = [{"backend_id": "b1", "model_ref": "desk@1", "weight": 1.0}]
    erasure = {"name": "desk", "request": "hash", "looked_for": {"match": 1}, "reason": "asked", "actor": "kim"}
    return {
        "recipe.add": lambda: catalog.add_recipe("tuned", {"method": "lora"}),
        "base.register": lambda: catalog.register_base("hf:l", **BASE),
        "base.approve": lambda: catalog.approve_base("hf:l", "kim"),
        "base.archive": lambda: catalog.archive_base("hf:l", "kim"),
        "endpoint.routes": lambda: catalog.set_routes("desk", routes),
        "experiment.create": lambda: catalog.create_experiment(experiment()),
        "experiment.decide": lambda: catalog.decide_experiment("base-or-tuned", "promote", "clear", {}),
        "experiment.act": lambda: catalog.mark_acted("base-or-tuned"),
        "dataset.tag": lambda: pointers.move(catalog, "desk", "prod", "v1", "kim"),
        "train.done": lambda: catalog.intents.acknowledge("train", "desk@v1|tuned", 1, actor="run"),
        "suite.archive": lambda: catalog.archive_suite("desk@v2", "kim"),
        "suite.restore": lambda: catalog.restore_suite("desk@v2", "kim") and catalog.archive_suite("desk@v1", "kim"),
        "dataset.forget": lambda: erasures.begin(catalog, **erasure),
        "model.affected": lambda: erasures.mark_affected(catalog, [AFFECTED], "kim"),
        "dataset.erased": lambda: erasures.mark_erased(catalog, "desk@v1"),
        "dataset.forgotten": lambda: erasures.finish(catalog, 1, {"rows": 3}, "kim"),
        "backend.remove": lambda: catalog.remove_backend("b1"),
        "endpoint.remove": lambda: catalog.remove_endpoint("desk"),
    }


@pytest.fixture
def prepared(catalog: Catalog) -> Catalog:
    catalog.register_dataset(dataset("v1"), "digest")
    catalog.register_dataset(dataset("v2"), "digest")
    catalog.intents.want("train", "desk@v1|tuned", "kim")
    catalog.want_endpoint(deployment())
    catalog.add_backend(BACKEND)
    return catalog


def test_what_is_done_again_leaves_no_second_line(prepared):
    def lines() -> list[str]:
        return [line["action"] for line in reversed(prepared.audit_log(1000))]

    for action, change in changes(prepared).items():
        before = lines()
        change()
        first = lines()
        assert action in first[len(before) :], action
        change()
        assert lines() == first, action


def refusals(catalog: Catalog) -> list[Callable[[], object]]:
    return [
        lambda: catalog.register_dataset(dataset("v1"), "other digest"),
        lambda: catalog.remove_endpoint("desk"),
        lambda: catalog.create_experiment(experiment("another")),
        lambda: catalog.set_routes("nowhere", []),
        lambda: catalog.request_training("desk@v1", "no-recipe"),
        lambda: catalog.add_backend(replace(BACKEND, model_ref="desk@2")),
        lambda: pointers.move(catalog, "desk", "v2", "v1", "kim"),
        lambda: catalog.add_feedback("r1", 6),
    ]


def test_what_is_refused_leaves_no_line_and_changes_nothing(prepared):
    prepared.create_experiment(experiment())

    def all_rows() -> dict[str, list]:
        with prepared.database.read() as connection:
            return {t.name: connection.execute(t.select()).all() for t in tables.metadata.sorted_tables}

    before = all_rows()
    for refused in refusals(prepared):
        with pytest.raises((Conflict, LookupError, IntegrityError)):
            refused()
        assert all_rows() == before


def test_what_breaks_off_in_the_middle_leaves_nothing(prepared):
    with pytest.raises(RuntimeError), prepared.database.write("kim") as transaction:
        transaction.changed(tables.endpoints.update().values(state="live"))
        transaction.audit("endpoint.serve", "desk")
        raise RuntimeError("the process breaks off here")
    assert prepared.endpoint("desk").state == "pending"
    assert "endpoint.serve" not in {line["action"] for line in prepared.audit_log()}


def test_an_endpoint_changes_only_from_what_was_expected(prepared):
    assert prepared.update_endpoint("desk", expected_state="pending", state="deploying") is True
    assert prepared.update_endpoint("desk", expected_state="pending", state="deploying") is False
    prepared.want_endpoint(deployment("desk@2"))
    assert prepared.update_endpoint("desk", expected_revision=1, state="live") is False
    # Somebody wanted more while the first was carried out: it is noted, and what is newer stays wanted.
    assert prepared.conclude_deployment("desk", 1, state="live") is False
    endpoint = prepared.endpoint("desk")
    assert (endpoint.observed_revision, endpoint.state) == (1, "pending")
    assert [i.revision for i in prepared.intents.open("deploy")] == [2]
    assert prepared.conclude_deployment("desk", 2, state="live") is True
    assert prepared.update_endpoint("desk", observed_revision=1) is False
    assert prepared.endpoint("desk").observed_revision == 2
    assert prepared.intents.open("deploy") == []


def test_an_endpoint_made_anew_counts_its_revisions_on(prepared):
    prepared.remove_backend("b1")
    prepared.remove_endpoint("desk")
    assert prepared.intents.newest("deploy", "desk").outcome == "withdrawn"
    assert prepared.want_endpoint(deployment()).revision == 2


def test_what_was_wanted_of_an_erased_version_is_withdrawn(prepared):
    prepared.add_recipe("tuned", {"method": "lora"})
    prepared.request_training("desk@v1", "tuned", "kim")
    prepared.request_training("desk@v1", "tuned", "study:search")
    prepared.request_training("desk@v2", "tuned", "kim")
    erasures.mark_erased(prepared, "desk@v1", "lee")
    assert {(i.kind, i.key) for i in prepared.intents.open()} == {
        ("ingest", "desk@v2"),
        ("train", "desk@v2|tuned"),
        ("deploy", "desk"),
    }
    withdrawn = prepared.intents.newest("trial", "desk@v1|tuned")
    assert (withdrawn.outcome, withdrawn.reason) == ("withdrawn", "desk@v1 was erased on a person's request")


def test_asking_anew_supersedes_and_an_older_run_acknowledges_nothing(catalog):
    first = catalog.intents.want("train", "desk@v1|tuned", "kim", {"request": 1})
    second = catalog.intents.want("train", "desk@v1|tuned", "lee", {"request": 2})
    assert (first, second) == (1, 2)
    assert catalog.intents.acknowledge("train", "desk@v1|tuned", first, actor="run") is False
    (wanted,) = catalog.intents.open("train")
    assert (wanted.name, wanted.requested_by, wanted.detail) == ("train:desk@v1|tuned:2", "lee", {"request": 2})
    assert catalog.intents.acknowledge("train", "desk@v1|tuned", second, outcome="failed", reason="x", actor="run")
    assert catalog.intents.withdraw("train", "desk@v1|tuned", "kim") is False
    newest = catalog.intents.newest("train", "desk@v1|tuned")
    assert (newest.outcome, newest.reason, newest.is_open) == ("failed", "x", False)
    assert catalog.intents.newest("train", "nothing") is None
