"""A person's rows, planted in every place, are gone after `forget`: in files, versions, traffic and event log."""

import gzip
import json
import os
import re
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
import zstandard
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.datasets import assets, checks
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.erasure.search import Wanted, spelling, successor
from llmops_assets.local.stack import prepare_home
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import CleanRecord, SplitsRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources import dataset_gc
from resources.catalog import erasures, pointers, tables
from resources.dataset_store import DatasetStoreError
from tests.datasets.test_graph import rows
from tests.erasure.trained import leave_training

PHONE, MAIL, NAME, RRN = "010-7391-4628", "dolmen.park@example.org", "박돌멘", "900101-1234567"
THEIRS = (PHONE, MAIL, NAME, RRN, "우산을 두고 내린 사람")


@pytest.mark.parametrize(
    ("wanted", "text", "found"),
    [
        (PHONE, "연락처 01073914628로", True),
        (PHONE, "０１０－７３９１－４６２８", True),
        (PHONE, "+82 10 7391 4628", True),
        (PHONE, "call +82-(0)10-7391-4628 now", True),
        ("+82-10-7391-4628", "010.7391.4628", True),
        (PHONE, "9010-7391-46281", False),
        (PHONE, "010-7391-46281", False),
        (MAIL, "Dolmen.Park@Example.org으로 보내세요.", True),
        (MAIL, "write to dolmen.park@example.org.", True),
        (MAIL, "dolmen.park@example.org.uk", False),
        (MAIL, "x.dolmen.park@example.org", False),
        (NAME, "박돌멘", True),
        (NAME, "박돌멘님이", True),
        ("Kim Dolmen", "kim\n  DOLMEN,", True),
        ("Kim", "Kimchi", False),
        ('가\n나 "다"', json.dumps({"a": '가\n나 "다"'}), True),
        (NAME, json.dumps({"a": NAME}), True),
    ],
)
def test_a_text_is_found_in_its_spellings_and_nothing_else_is(wanted, text, found):
    who = Wanted(texts=(wanted,))
    assert who.in_text(text) is found
    frame = pl.DataFrame({"nested": [[{"role": "user", "content": text}], [{"role": "user", "content": "-"}]]})
    assert who.in_frame(frame).to_list() == [found, False]
    assert re.compile(spelling(wanted)).search("") is None


def test_what_would_match_everything_is_refused():
    for wrong in ({}, {"texts": ("a",)}, {"patterns": (".*",)}, {"patterns": ("(?<=a)b",)}, {"patterns": ("(",)}):
        with pytest.raises(ValueError, match=r"--|says whom"):
            Wanted(**wrong)


def test_the_hash_of_a_request_needs_the_key():
    one, same, other = Wanted(texts=(PHONE, NAME)), Wanted(texts=(NAME, PHONE)), Wanted(texts=(NAME,))
    assert one.digest(b"k") == same.digest(b"k") != other.digest(b"k")
    assert one.digest(b"k") != one.digest(b"another")


def test_versions_follow_each_other():
    assert [successor("v1", []), successor("v1", ["v1-e1"]), successor("v1-e1", ["v1-e1"])] == [
        "v1-e1",
        "v1-e2",
        "v1-e2",
    ]


# One installation with the person in it, erased once for all the tests below.


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    before = {name: os.environ.get(name) for name in ("LLMOPS_HOME", "DAGSTER_HOME")}
    os.environ["LLMOPS_HOME"] = str(home)
    common.wiring.cache_clear()
    yield home
    common.wiring.cache_clear()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


def planted(count: int, seed: int, at: int) -> list[dict]:
    made = rows(count, seed)
    made[at]["messages"][0]["content"] += f" 저는 {NAME}이고 번호는 ０１０-7391-4628, 주민등록번호 {RRN}입니다."
    made[at + 1]["messages"][1]["content"] += " dolmen.park@example.org 로 보냈습니다."
    made[at + 2]["metadata"]["note"] = "우산을 두고 내린 사람"
    return made


def add(w: Wiring, name: str, version: str, files: dict[str, bytes], **more) -> str:
    values = {"name": name, "version": version, "type": "sft_pair", "files": list(files), "owner": "data"}
    spec = DatasetSpec.model_validate(values | {"description": "made for a test"} | more)
    for file, data in files.items():
        w.artifacts.write_bytes(data, "uploads", spec.key, file)
    w.catalog.register_dataset(spec, f"digest of {spec.key}")
    return spec.key


def lines(made: list[dict]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made).encode()


def materialise(w: Wiring, key: str) -> None:
    os.environ["DAGSTER_HOME"] = str(w.settings.dagster_home)
    resources = {name: getattr(w, name) for name in ("artifacts", "store", "records", "catalog", "policy")}
    definitions = dg.Definitions(
        assets=dg.load_assets_from_modules([assets]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        resources=resources,
    )
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, [key])
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(partition_key=key, instance=instance, raise_on_error=False, resources=resources)
        assert result.success, [e.message for e in result.all_events if e.is_failure]


def expose(w: Wiring, request_id: str, query: str, user: str) -> None:
    row = {c.name: None for c in tables.exposures.columns}
    row |= {"request_id": request_id, "at": datetime.now(UTC), "endpoint": "desk", "phase": 1, "variant": 0}
    row |= {"backend": "b", "model_ref": "m@1", "user": user, "status": 200, "latency_ms": 1.0, "query": query}
    w.catalog.add_exposures([row])
    w.catalog.add_feedback(request_id, 2, user=user, comment=f"{NAME} 드림")


@pytest.fixture(scope="module")
def erased(home):
    settings = Settings()
    prepare_home(settings)
    w = common.wiring()
    first = planted(120, 1, 20)
    broken = json.dumps(first[40], ensure_ascii=False)[:60] + MAIL
    add(w, "desk", "v1", {"rows.jsonl": lines(first) + broken.encode() + b"\n"})
    csv = "question,answer\n" + "".join(
        f'"{r["messages"][0]["content"]}","{r["messages"][1]["content"]}"\n' for r in planted(60, 2, 5)
    )
    add(w, "desk", "v2", {"old/rows.csv.gz": gzip.compress(csv.encode()), "more.jsonl": lines(rows(30, 3))})
    add(w, "desk", "clean", {"rows.jsonl": lines(rows(60, 4))})
    add(w, "other", "v1", {"rows.jsonl": lines(planted(60, 5, 7))})
    for key in ("desk@v1", "desk@clean"):
        materialise(w, key)
    masked = w.store.read(w.records.load(CleanRecord, "desk@v1").manifest)
    copied = [{"messages": row["messages"]} for row in masked.iter_rows(named=True)]
    add(w, "copy", "v1", {"rows.jsonl": lines(copied)}, derived_from=["desk@v1"])
    materialise(w, "copy@v1")
    leave_training(w, "desk@v1", "tuned-01", home / "artifacts" / "models" / "one", NAME)
    leave_training(w, "desk@clean", "tuned-01", home / "artifacts" / "models" / "two", "누군가")
    expose(w, "r1", f"{NAME}인데요", "u1")
    expose(w, "r2", "통행료가 얼마인가요", f"{MAIL}")
    (home / "logs" / "webserver.log").write_text(f"started\nrow of {NAME} is odd\nended\n")
    pointers.move(w.catalog, "desk", "live", "v1", "kim")
    before = run("forget", "desk", *matches(), "--dry-run", "--json")
    assert held(home), "nothing was planted"
    done = run("forget", "desk", *matches(), "--everywhere", "--yes", "--json", "--reason", "asked by mail")
    return w, before, done


def matches() -> list[str]:
    wanted = [part for text in (PHONE, MAIL, NAME) for part in ("--match", text)]
    return [*wanted, "--field", "note=우산을 두고 내린 사람"]


def run(*arguments: str, code: int = 0) -> dict:
    result = CliRunner().invoke(app, ["dataset", *arguments])
    assert result.exit_code == code, result.output + repr(result.exception)
    return json.loads(result.stdout)


def held(home: Path) -> list[str]:
    """Files below `home` that hold a planted value, by plain search: raw, JSON-escaped, in Parquet or compressed."""
    forms = [form for text in THEIRS for form in (text.encode(), json.dumps(text)[1:-1].encode())]
    forms += [PHONE.replace("-", "").encode(), "０１０-7391-4628".encode(), b"\\uff10\\uff11\\uff10-7391-4628"]
    found = []
    for path in sorted(p for p in home.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".parquet":
            data += str(pl.read_parquet(path).to_dicts()).encode()
        if path.suffix == ".gz":
            data += gzip.decompress(data)
        if path.suffix == ".zst":
            data += zstandard.decompress(data)
        if any(form in data for form in forms):
            found.append(str(path.relative_to(home)))
    return found


def test_a_dry_run_says_what_would_be_done(erased):
    _, before, _ = erased
    by_key = {v["dataset"]: v for v in before["versions"]}
    assert set(by_key) == {"desk@v1", "desk@v2", "copy@v1"}
    # The line that is no JSON holds the address, and is in the quarantine.
    assert (by_key["desk@v1"]["rows"], by_key["desk@v1"]["raw_lines"]) == (3, 4)
    assert by_key["desk@v1"]["followed_by"] == "desk@v1-e1"
    assert by_key["copy@v1"]["rows"] > 0, "a copy of the masked rows is a copy"
    assert before["elsewhere"] == {"other@v1": 3}
    assert [t["training"] for t in before["affected_trainings"]] == ["desk@v1|tuned-01"]
    assert before["traffic"] == {"exposures": 2, "feedback": 2, "shadows": 0}


def test_no_byte_below_the_home_folder_holds_the_person(erased, home):
    _, _, done = erased
    assert done["state"] == "done" and done["left"] == []
    assert held(home) == []
    assert PHONE not in json.dumps(done, ensure_ascii=False)


def test_each_version_is_followed_by_one_without_those_rows(erased):
    w, _, done = erased
    assert done["versions"]["desk@v1"] == "desk@v1-e1" and done["versions"]["other@v1"] == "other@v1-e1"
    assert "desk@clean" not in done["versions"]
    assert pointers.tags(w.catalog, "desk") == {"current": "clean", "live": "v1-e1"}
    materialise(w, "desk@v1-e1")
    assert sum(w.records.load(SplitsRecord, "desk@v1-e1").rows.values()) == 117
    follower = w.artifacts.upath("uploads", done["versions"]["desk@v2"])
    assert {name: len(path.read_text().splitlines()) for name, path in list_files(follower)} == {
        "more.jsonl": 30,
        "old/rows.csv.gz.jsonl": 58,
    }
    assert w.catalog.dataset("desk@v1-e1").derived_from == ["desk@v1"]


def test_an_erased_version_says_so_wherever_it_is_asked_for(erased):
    w, _, _ = erased
    manifest = w.records.load(SplitsRecord, "desk@v1").manifests["train"]
    with pytest.raises(DatasetStoreError, match=r"of desk@v1 was erased on .*: erasure 1"):
        w.store.read(manifest)
    with pytest.raises(ValueError, match="erased on a person's request"):
        w.catalog.register_dataset(w.catalog.dataset("desk@v1"), "digest of desk@v1")
    with dg.DagsterInstance.get() as instance:
        assert not instance.has_dynamic_partition(dataset_versions.name, "desk@v1")
        made = instance.get_materialized_partitions(dg.AssetKey("splits"))
        assert "desk@v1" not in made and "desk@clean" in made


def test_models_that_learned_are_marked_and_the_others_are_not(erased):
    w, _, done = erased
    assert [one["training"] for one in done["affected"]] == ["desk@v1|tuned-01"]
    with pytest.raises(
        erasures.ModelAffected, match=r"erasure 1 .*nothing here unlearns.*[Tt]rain again on desk@v1-e1"
    ):
        erasures.assert_not_affected(w.catalog, cell="desk@v1|tuned-01")
    erasures.assert_not_affected(w.catalog, cell="desk@clean|tuned-01")
    plan = w.records.load(PlanRecord, "desk@v1|tuned-01")
    assert "removed by an erasure" in plan.example and [f.example for f in plan.findings] == [""]
    answers = w.settings.root / "artifacts" / "models" / "one" / "evaluation" / "tuned-01" / "answers.jsonl"
    assert len(answers.read_text().splitlines()) == 1


def test_ratings_stay_without_the_words_and_the_name(erased):
    w, _, _ = erased
    exposures, feedback = w.catalog.exposures(endpoint="desk"), w.catalog.feedback(endpoint="desk")
    assert dict(zip(exposures["request_id"], exposures["query"], strict=True)) == {
        "r1": None,
        "r2": "통행료가 얼마인가요",
    }
    assert set(exposures["user"]) == {"u1", "erased"}
    assert feedback["rating"].to_list() == [2, 2] and feedback["comment"].to_list() == [None, None]


def test_the_audit_log_tells_what_was_done_and_not_whom(erased):
    w, _, _ = erased
    log = [line for line in w.catalog.audit_log() if line["action"].startswith("dataset.forg")]
    assert [line["action"] for line in log] == ["dataset.forgotten", "dataset.forget"]
    assert log[1]["detail"]["looked_for"] == {"match": 3, "field": 1}
    assert log[1]["detail"]["reason"] == "asked by mail"


def test_asking_again_finds_nothing(erased):
    again = run("forget", "desk", *matches(), "--yes", "--json")
    assert again["versions"] == [] and again["erasure"] is None


def test_an_erasure_that_was_cut_off_is_completed(home, erased, monkeypatch):
    w, _, _ = erased
    key = add(w, "late", "v1", {"rows.jsonl": lines(planted(60, 9, 10))})
    materialise(w, key)
    collect = dataset_gc.collect

    def cut(store):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset_gc, "collect", cut)
    result = CliRunner().invoke(app, ["dataset", "forget", "late", *matches(), "--yes"])
    assert result.exit_code != 0
    monkeypatch.setattr(dataset_gc, "collect", collect)
    assert erasures.erasures(w.catalog, "late")[0].state == "running"
    assert held(home), "the chunks are still there"
    done = run("forget", "late", *matches(), "--yes", "--json")
    assert done["state"] == "done" and done["versions"] == {"late@v1": "late@v1-e1"}
    assert held(home) == []
    assert len(w.artifacts.upath("uploads", "late@v1-e1", "rows.jsonl").read_text().splitlines()) == 57


def test_a_chunk_that_a_live_version_shares_stays(tmp_path):
    w = Wiring(Settings(home=tmp_path))
    frame = pl.DataFrame({"row_id": ["a", "b"], "text": ["x", "y"]})
    written = {"kind": "rows", "step": "dataset", "config_hash": "c"}
    one, two = (w.store.write(frame, dataset=name, **written) for name in ("one@v1", "two@v1"))
    freed = dataset_gc.delete_versions(w.store, [one], "because")
    assert (freed.manifests, freed.chunks, freed.kept) == (1, 0, 1)
    assert w.store.read(two).equals(frame)
    assert dataset_gc.delete_versions(w.store, [two], "because").chunks == 1
    assert list((tmp_path / "artifacts" / "datasets" / "chunks").rglob("*.parquet")) == []


def test_given_again_after_its_leftover_was_removed_it_waits_for_nothing_that_is_there(home, erased):
    w, _, _ = erased
    key = add(w, "waited", "v1", {"rows.jsonl": lines(planted(60, 12, 10))})
    materialise(w, key)
    note = home / "note.txt"
    note.write_text(f"call {MAIL}")
    first = CliRunner().invoke(app, ["dataset", "forget", "waited", *matches(), "--yes", "--wait"])
    assert first.exit_code == 4 and "note.txt" in first.output
    # Meanwhile the platform ingests what follows.
    materialise(w, "waited@v1-e1")
    note.unlink()
    again = CliRunner().invoke(app, ["dataset", "forget", "waited", *matches(), "--yes", "--wait"])
    assert again.exit_code == 0 and "is complete" in again.output, again.output + repr(again.exception)


def test_a_model_in_production_keeps_its_page_which_says_that_it_is_affected(home, erased):
    w, _, _ = erased
    key = add(w, "prod", "v1", {"rows.jsonl": lines(planted(60, 13, 10))})
    materialise(w, key)
    ref = leave_training(w, key, "tuned-02", home / "artifacts" / "models" / "sft" / "tuned" / "three", NAME)
    name, version = ref.split("@")
    card = home / "artifacts" / "models" / "sft" / "tuned" / "three" / "README.md"
    card.write_text(f"---\nlicense: x\n---\n\n# {ref}\n\nA model.\n")
    w.tracking.tag(name, int(version), "card", str(card))
    w.tracking.set_alias(name, "production", int(version))
    done = run("forget", "prod", *matches(), "--yes", "--json")
    assert done["affected"][0]["model"] == ref
    cell = f"{key}|tuned-02"
    with dg.DagsterInstance.get() as instance:
        assert instance.has_dynamic_partition(dataset_versions.name, key)
        assert cell in instance.get_materialized_partitions(dg.AssetKey("registered_model"))
        check = dg.AssetCheckKey(dg.AssetKey("registered_model"), "no_erased_rows")
        [found, *_] = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert found.event.dagster_event.event_specific_data.partition == cell
        assert not found.event.dagster_event.event_specific_data.passed
        assert key not in instance.get_materialized_partitions(dg.AssetKey("splits"))
    notice = f"> **Affected by erasure {done['erasure']}**: trained on"
    assert card.read_text().index(f"# {ref}") < card.read_text().index(notice) < card.read_text().index("A model.")
    listed = CliRunner().invoke(app, ["model", "list"]).output
    assert f"production, affected by erasure {done['erasure']}" in listed


def test_an_erased_version_is_shown_as_what_it_is(erased):
    shown = run("show", "desk@v1", "--json")
    assert shown["status"] == "erased" and "desk@v1-e1 follows it" in shown["erased"]
    assert shown["quality_report"] is None and shown["splits"] is None
    text = CliRunner().invoke(app, ["dataset", "show", "desk@v1"]).output
    assert "erased by erasure 1" in text and "quality.html" not in text and "clean rows" not in text
    [row] = [
        row
        for row in json.loads(CliRunner().invoke(app, ["dataset", "list", "--json"]).stdout)
        if row["dataset"] == "desk@v1"
    ]
    assert (row["status"], row["rows"], row["splits"]) == ("erased", None, None)
    assert run("show", "desk@clean", "--json")["erased"] is None


def test_without_a_terminal_it_asks_for_yes(home, erased):
    w, _, _ = erased
    add(w, "asked", "v1", {"rows.jsonl": lines(planted(20, 11, 3))})
    result = CliRunner().invoke(app, ["dataset", "forget", "asked", "--match", MAIL])
    assert result.exit_code == 1 and "--yes" in result.output
    assert w.catalog.dataset_entry("asked@v1").status == "active"


def test_the_catalogs_file_has_no_free_pages_with_text(erased, home):
    connection = sqlite3.connect(home / "catalog.db")
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    connection.close()
