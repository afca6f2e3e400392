"""Of an API key the catalog keeps a hash and who it is for; the ledger adds up, and both go back and forth."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from resources.catalog import Catalog, NotFound, Used
from resources.catalog.api_keys import digest_of, looks_like_key
from resources.catalog.usage import add_usage, added_up
from tests.resources.samples import exposure

DAY = "2026-11-30"


def test_nothing_in_the_database_is_the_key(catalog):
    key, secret = catalog.api_keys.create("kim", owner="lee", role="viewer", team="desk", endpoints=("a", "b"))
    assert looks_like_key(secret) and secret.startswith(f"llmops-{key.id}-")
    assert (key.owner, key.team, key.role, key.endpoints) == ("lee", "desk", "viewer", ("a", "b"))
    assert key.sha256 == digest_of(secret)
    with catalog.database.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        everything = str([tuple(row) for t in tables for row in connection.execute(sa.text(f'SELECT * FROM "{t}"'))])
    assert key.id in everything and secret.rsplit("-", 1)[1] not in everything


def test_every_key_is_another(catalog):
    found = [catalog.api_keys.create("kim", owner="lee", role="viewer") for _ in range(5)]
    assert len({key.id for key, _ in found}) == len({secret for _, secret in found}) == 5
    assert {key.id for key in catalog.api_keys.all()} == {key.id for key, _ in found}
    assert found[0][0].endpoints is None and found[0][0].expires_at is None


def test_a_key_is_revoked_once_and_for_good(catalog):
    key, secret = catalog.api_keys.create("kim", owner="lee", role="viewer")
    other, _ = catalog.api_keys.create("kim", owner="lee", role="viewer")
    assert catalog.api_keys.revoke("park", secret) is True
    assert catalog.api_keys.revoke("choi", key.id) is False
    assert catalog.api_keys.get(f"llmops-{key.id}-…").revoked_by == "park"
    assert [k.id for k in catalog.api_keys.usable()] == [other.id]
    lines = [(line["actor"], line["action"]) for line in catalog.audit_of(key.id)]
    assert lines == [("park", "key.revoke"), ("kim", "key.create")]
    with pytest.raises(NotFound, match="there is no API key 'ffffffffffff'"):
        catalog.api_keys.revoke("kim", "llmops-ffffffffffff")


def test_any_change_of_a_key_changes_the_version_and_its_use_does_not(catalog):
    versions = [catalog.api_keys.version()]
    key, _ = catalog.api_keys.create("kim", owner="lee", role="viewer")
    versions.append(catalog.api_keys.version())
    catalog.api_keys.revoke("kim", key.id)
    versions.append(catalog.api_keys.version())
    assert len(set(versions)) == 3
    catalog.usage.add([Used(DAY, key.id, "", "desk", "desk@1", requests=1)], {key.id: datetime.now(UTC)})
    assert catalog.api_keys.version() == versions[-1]


def test_a_key_has_an_end(catalog):
    end = datetime.now(UTC) + timedelta(hours=1)
    key, _ = catalog.api_keys.create("kim", owner="lee", role="viewer", expires_at=end)
    found = catalog.api_keys.get(key.id)
    assert found.state(end - timedelta(seconds=1)) == "valid"
    assert found.state(end) == "expired"


def test_the_ledger_adds_up_by_key_team_endpoint_model_and_day(catalog):
    row = Used(DAY, "k1", "desk", "desk", "desk@1", 2, 1, prompt_tokens=10, completion_tokens=5, estimated_tokens=5)
    catalog.usage.add([row, row])
    catalog.usage.add([row, Used("2026-12-01", "k1", "desk", "desk", "desk@2", 1, 0, 1, 1, 0)])
    catalog.usage.add([Used(DAY, "k2", "", "desk", "desk@1", 1, 0, 100, 100, 0)])
    by_key = catalog.usage.by(["key"])
    assert [(r["key"], r["requests"], r["failed"], r["prompt_tokens"], r["estimated_tokens"]) for r in by_key] == [
        ("k2", 1, 0, 100, 0),
        ("k1", 7, 3, 31, 15),
    ]
    assert [r["model_ref"] for r in catalog.usage.by(["model_ref"], since="2026-12-01")] == ["desk@2"]
    assert len(catalog.usage.by(["day", "team"])) == 3
    assert catalog.usage.by([])[0]["completion_tokens"] == 116
    assert catalog.usage.tokens_of_month("2026-11") == {"k1": 45, "k2": 200}
    assert catalog.usage.tokens_of_month("2026-10") == {}
    with pytest.raises(ValueError, match="not kept by colour"):
        catalog.usage.by(["colour"])


def test_when_a_key_was_last_used_never_goes_back(catalog):
    key, _ = catalog.api_keys.create("kim", owner="lee", role="viewer")
    late, early = datetime(2026, 11, 30, 12, tzinfo=UTC), datetime(2026, 11, 30, 11, tzinfo=UTC)
    for at in (late, early):
        catalog.usage.add([Used(DAY, key.id, "", "desk", "desk@1", 1)], {key.id: at, "subject": at})
    assert catalog.api_keys.get(key.id).last_used_at == late


def test_usage_is_kept_with_its_transaction_or_not_at_all(catalog):
    with pytest.raises(RuntimeError), catalog.database.write("gateway") as transaction:
        add_usage(transaction, [Used(DAY, "k1", "", "desk", "desk@1", 1)])
        raise RuntimeError("killed")
    assert catalog.usage.by(["key"]) == []


def test_a_batch_that_is_shipped_twice_counts_once(catalog):
    key, _ = catalog.api_keys.create("kim", owner="lee", role="viewer")
    at = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    used = {"key": key.id, "team": "desk", "prompt_tokens": 5, "completion_tokens": 10, "estimated": False}
    rows = [exposure(f"r{n}", at=at, experiment=None) | {"used": used | {"estimated": n == 2}} for n in range(3)]
    rows.append(exposure("r3", at=at + timedelta(minutes=2), experiment=None, status=502) | {"used": used})
    assert catalog.add_exposures([*rows[:2], exposure("probe", experiment=None)]) == 3
    assert catalog.add_exposures(rows) == 2
    assert catalog.add_exposures(rows) == 0
    found = catalog.usage.by(["day", "key", "team"])
    assert [(r["day"], r["requests"], r["failed"], r["prompt_tokens"], r["estimated_tokens"]) for r in found] == [
        ("2026-11-30", 3, 0, 15, 15),
        ("2026-12-01", 1, 1, 5, 0),
    ]
    assert catalog.api_keys.get(key.id).last_used_at == at + timedelta(minutes=2)


def test_rows_of_one_group_are_one_row():
    row = Used(DAY, "k1", "", "desk", "desk@1", 1, 0, 3, 4, 0)
    other = Used(DAY, "k0", "", "desk", "desk@1", 1)
    assert added_up([row, other, row]) == [other, Used(DAY, "k1", "", "desk", "desk@1", 2, 0, 6, 8, 0)]


def test_the_schema_goes_back_and_forth(url):
    catalog = Catalog(url)
    catalog.api_keys.create("kim", owner="lee", role="viewer")
    catalog.database.migrate("0005")
    with catalog.database.read() as connection:
        assert not {"api_keys", "usage"} & set(sa.inspect(connection).get_table_names())
    again = Catalog(url)
    assert again.api_keys.all() == [] and again.usage.by(["key"]) == []
