"""The audit log as a chain: what somebody changes, removes or puts there behind the platform's back is found."""

import json
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
import sqlalchemy as sa

from llmops_assets.operations.audit import export_log, verify_file, verify_log
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Catalog
from resources.catalog.audit_chain import Head


@pytest.fixture
def wiring(url: str, tmp_path) -> Wiring:
    """A home whose log has twelve lines, with Hangul, numbers and nested detail in them."""
    found = Wiring(Settings(home=tmp_path, catalog_url=url, _env_file=None))
    for number in range(12):
        found.catalog.log("김철수", "test.line", f"대상-{number}", share=0.1 * number, more={"b": [1, None], "a": "é"})
    return found


def as_intruder(catalog: Catalog, *statements: str) -> None:
    """Change the log as somebody can who may write to the database: past its triggers."""
    engine = catalog.database.engine
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("DROP TRIGGER audit_append_only ON audit")
        else:
            for action in ("UPDATE", "DELETE"):
                connection.exec_driver_sql(f"DROP TRIGGER audit_{action}")
        for statement in statements:
            connection.exec_driver_sql(statement)


def places(wiring: Wiring, known: Head | None = None) -> list[int | None]:
    return sorted({broken.line for broken in verify_log(wiring, "kim", known).broken}, key=str)


def test_a_log_that_nobody_touched_is_whole_whoever_wrote_it(wiring):
    proof = verify_log(wiring, "kim")
    assert proof.broken == [] and proof.head.lines == 12 and proof.head == wiring.catalog.audit_head()
    # A second process over the same database goes on where the first one is.
    Catalog(wiring.catalog.url).log("lee", "test.line", "x")
    assert verify_log(wiring, "kim", proof.head).broken == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE audit SET actor = 'lee' WHERE id = 5", [5]),
        ("UPDATE audit SET detail = '{}' WHERE id = 5", [5]),
        ("UPDATE audit SET target = 'x', sha256 = '0' WHERE id = 5", [5, 6]),
        ("DELETE FROM audit WHERE id = 5", [6, None]),
        ("DELETE FROM audit WHERE id = 1", [2, None]),
        ("DELETE FROM audit WHERE id > 9", [None]),
        ("DELETE FROM audit", [None]),
        (
            "INSERT INTO audit (id, at, actor, action, target, detail) "
            "SELECT 100, at, actor, action, target, detail FROM audit WHERE id = 3",
            [100],
        ),
    ],
)
def test_what_was_done_to_the_log_is_found_where_it_was_done(wiring, statement, found):
    as_intruder(wiring.catalog, statement)
    assert places(wiring) == found


def test_a_chain_that_was_written_anew_is_found_by_an_end_that_was_kept_elsewhere(wiring):
    kept = wiring.catalog.audit_head()
    # All of it is forged: the lines, their hashes and the end.
    as_intruder(wiring.catalog, "DELETE FROM audit", f"UPDATE audit_head SET lines = 0, sha256 = '{Head().sha256}'")
    for number in range(13):
        wiring.catalog.log("lee", "test.line", f"forged-{number}")
    assert places(wiring) == []
    assert len(verify_log(wiring, "kim", kept).broken) == 1
    assert places(wiring, replace(kept, lines=99)) == [None]


def test_writers_side_by_side_make_one_chain(wiring):
    def write(name: str) -> None:
        catalog = Catalog(wiring.catalog.url)
        for number in range(10):
            with suppress(ZeroDivisionError), catalog.database.write(name) as transaction:
                transaction.audit("test.line", f"{name}-{number}")
                # What is rolled back leaves no line, and no gap.
                assert number % 3 != 2 or 1 / 0

    threads = [threading.Thread(target=write, args=(f"writer-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    proof = verify_log(wiring, "kim")
    assert proof.broken == [] and proof.head.lines == 12 + 6 * 7


def test_an_exported_log_proves_itself(wiring, tmp_path):
    file = tmp_path / "audit.jsonl"
    head = export_log(wiring, "kim", file)
    assert verify_file(file).broken == [] and head.lines == 13 and file.stat().st_mode & 0o777 == 0o600
    lines = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-2])["action"] == "audit.export"
    for changed in (
        [*lines[:4], lines[4].replace("김철수", "이영희"), *lines[5:]],
        lines[:-1],
        [*lines[:-2], lines[-1]],
        lines[1:],
    ):
        file.write_text("\n".join(changed) + "\n", encoding="utf-8")
        assert verify_file(file).broken != []
    file.write_text("[1]\n")
    with pytest.raises(Refused, match=r"audit\.jsonl:1: this is no line"):
        verify_file(file)
    with pytest.raises(Refused, match="is there already"):
        export_log(wiring, "kim", file)
    with pytest.raises(Forbidden):
        export_log(wiring, " ", tmp_path / "other.jsonl")


def test_lines_from_before_the_chain_are_in_it(url, tmp_path):
    catalog = Catalog(url)
    catalog.log("kim", "test.line", "x", number=1.5)
    catalog.database.migrate("0009")
    with catalog.database.engine.begin() as connection:
        assert {c["name"] for c in sa.inspect(connection).get_columns("audit")} & {"previous", "sha256"} == set()
    again = Catalog(url)
    again.log("kim", "test.line", "y")
    proof = verify_log(Wiring(Settings(home=tmp_path, catalog_url=url, _env_file=None)), "kim")
    assert proof.broken == [] and proof.head.lines == 2
    for statement in ("UPDATE audit SET actor = 'lee'", "DELETE FROM audit"):
        with pytest.raises(sa.exc.DBAPIError, match="append-only"), again.database.engine.begin() as connection:
            connection.exec_driver_sql(statement)
