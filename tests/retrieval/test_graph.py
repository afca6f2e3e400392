"""From rows to an index by the graph: measured, checked before its name moves, and gone on with where it broke off."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from safetensors.numpy import load
from typer.testing import CliRunner

from images.ask import embed
from llmops_assets.cli import app, common
from llmops_assets.operations.errors import Unavailable
from llmops_assets.operations.history import served_at
from llmops_assets.operations.indexes import build_index, list_indexes, query_index
from llmops_assets.operations.rollbacks import roll_back_to
from llmops_assets.records.jobs import EmbedJob
from llmops_assets.records.retrieval import RetrievalIndexRecord
from llmops_assets.retrieval import assets as retrieval_assets
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.wiring import Wiring
from resources import content
from sensors.intents import make
from tests.operations.test_rollbacks import Desk
from tests.retrieval import desk, house
from tests.sensors.test_sensors import evaluate


@pytest.fixture(scope="module")
def w(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wiring]:
    root = tmp_path_factory.mktemp("home")
    before = {name: os.environ.get(name) for name in ("LLMOPS_HOME", "DAGSTER_HOME")}
    os.environ["LLMOPS_HOME"] = str(root)
    common.wiring.cache_clear()
    w = house.open_home(root)
    encoder = desk.make_encoder(w.artifacts.path("models", "embedding", "finder"))
    assert desk.register_encoder(w, encoder) == "finder@1"
    house.split(w, "desk@v1", desk.rows())
    yield w
    common.wiring.cache_clear()
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)


@pytest.fixture(scope="module")
def built(w: Wiring) -> RetrievalIndexRecord:
    result = house.index(w, "desk@v1", "finder@1")
    assert result.success, failure_of(result)
    passed = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert passed == dict.fromkeys(("no_erased_passages", "same_encoder", "counts_match", "finds_as_exact"), True)
    return w.records.all(RetrievalIndexRecord)[0]


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    failed = [event for event in result.all_events if event.is_step_failure]
    return json.dumps([str(event.step_failure_data) for event in failed], ensure_ascii=False)


def test_all_passages_are_in_it_and_its_figures_stand_beside_guessing(w: Wiring, built: RetrievalIndexRecord) -> None:
    index = w.indexes.read(w.indexes.version("desk"))
    wanted = {passage for row in desk.rows() for passage in row["positives"]}
    assert set(index.passages["text"]) == wanted and built.passages == len(wanted)
    assert built.questions >= 20 and built.exact_agreement == 1.0 and built.previous is None
    figures = {(m.suite, m.name): m for m in built.metrics}
    assert set(suite for suite, _ in figures) == {"hybrid", "dense", "sparse"}
    for metric in built.metrics:
        assert metric.n == built.questions and metric.low is not None and metric.low <= metric.value <= metric.high
    assert figures["sparse", "recall_at_10"].value > 0.9 > 10 / len(wanted)
    assert figures["hybrid", "mrr_at_10"].value > 10 / len(wanted)


def test_the_same_again_is_the_same_version_and_embeds_nothing(
    w: Wiring, built: RetrievalIndexRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = content.listing(w.indexes.folder(built.version))
    asked = []
    run = embed.run
    monkeypatch.setattr(embed, "run", lambda job, reporter: asked.append(job) or run(job, reporter))
    assert house.index(w, "desk@v1", "finder@1").success
    again = w.records.load(RetrievalIndexRecord, f"desk@v1|{built.recipe}")
    assert (again.version, again.reused_vectors, again.previous) == (built.version, built.passages, built.version)
    assert content.listing(w.indexes.folder(built.version)) == files
    questions = Path(asked[0].texts_file).name
    assert len(asked) == 1 and questions == "texts.jsonl"


def test_vectors_of_a_build_that_was_cut_off_are_not_made_again(
    w: Wiring, built: RetrievalIndexRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from images.train import merge_encoder

    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"id": str(n), "text": f"{n}번 규정"}) + "\n" for n in range(50)))
    given = {"model_dir": built.encoder.path, "texts_file": str(texts), "output_file": str(tmp_path / "v"), "chunk": 10}
    encode, calls = merge_encoder.encode, []

    def dying(model: object, part: list[str], prompt: str) -> object:
        calls.append(len(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(model, part, prompt)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(merge_encoder, "encode", dying)
        embed.run(EmbedJob(**given))
    assert not (tmp_path / "v").exists()
    done = embed.run(EmbedJob(**given))
    assert (done["reused"], done["items"], done["encoder"]) == (20, 50, built.encoder.content_hash)
    assert not (tmp_path / "v.parts").exists()
    at_once = embed.run(EmbedJob(**{**given, "chunk": 64, "output_file": str(tmp_path / "w")}))
    assert at_once["reused"] == 0
    left, right = (load((tmp_path / name).read_bytes())["vectors"] for name in ("v", "w"))
    assert np.abs(left - right).max() < 1e-5


def test_a_name_stays_where_it_was_until_its_new_version_has_passed_every_check(
    w: Wiring, built: RetrievalIndexRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.split(w, "desk@v2", desk.rows()[:60])
    monkeypatch.setattr(retrieval_assets, "exact_agreement", lambda *a: (0.5, 20))
    result = house.index(w, "desk@v2", "finder@1")
    failed = [e.check_name for e in result.get_asset_check_evaluations() if not e.passed]
    assert not result.success and failed == ["finds_as_exact"]
    assert not result.get_asset_materialization_events()
    assert w.indexes.version("desk") == built.version
    monkeypatch.undo()
    assert house.index(w, "desk@v2", "finder@1").success
    record = w.records.load(RetrievalIndexRecord, f"desk@v2|{built.recipe}")
    assert w.indexes.version("desk") == record.version and record.previous == built.version
    assert w.catalog.intents.newest("index", f"desk@v2|{built.recipe}").outcome == "done"
    # Nothing changed of v1: going back is asking for it again, and embeds its questions alone.
    assert house.index(w, "desk@v1", "finder@1").success
    assert w.indexes.version("desk") == built.version


def test_an_endpoint_goes_back_to_the_index_that_the_graph_built(w: Wiring, built: RetrievalIndexRecord) -> None:
    rows = desk.rows()
    house.split(w, "docs@v1", rows[:50])
    house.split(w, "docs@v2", rows[50:])
    served = Desk(w.settings.root)
    for number in (1, 2):
        # The asset's own run moves the name, and writes who searches in what from then on.
        assert house.index(w, f"docs@v{number}", "finder@1").success
        served.versions.append(w.indexes.version("docs"))
        served.serve(number)
    moment, only_first = served.moments[0], rows[0]["positives"][0]
    assert served.served == ("desk@2", "greet@2", served.versions[1]) and served.versions[0] != served.versions[1]
    assert [m.index_dataset for m in served_at(w, "desk", moment).models] == ["docs@v1"]
    assert only_first not in set(w.indexes.read(served.versions[1]).passages["text"])
    roll_back_to(w, "lee", "desk", moment.isoformat())
    assert served.served == ("desk@2", "greet@2", served.versions[1]), "nothing moves before the run"
    served.run(1)
    assert served.served == ("desk@1", "greet@1", served.versions[0])
    assert only_first in set(w.indexes.read(w.indexes.version("docs")).passages["text"])
    assert [m.index_dataset for m in served_at(w, "desk", datetime.now(UTC)).models] == ["docs@v1"]
    # What goes on from there is a new version of the name, with what it was before on record.
    assert house.index(w, "docs@v2", "finder@1").success
    record = w.records.load(RetrievalIndexRecord, f"docs@v2|{built.recipe}")
    assert (w.indexes.version("docs"), record.previous) == (served.versions[1], served.versions[0])


def test_passages_that_were_erased_do_not_come_back(w: Wiring, built: RetrievalIndexRecord) -> None:
    made = desk.rows()[:40]
    made[3]["positives"] = ["다시 들어온 규정: 지워졌던 글이 그대로 돌아왔다."]
    house.split(w, "back@v1", made)
    assert house.index(w, "back@v1", "finder@1").success
    id = next(one.version for one in list_indexes(w) if one.name == "back")
    index = w.indexes.read(id)
    buried = index.passages.filter(index.passages["text"].str.starts_with("다시"))["id"][0]
    w.indexes.bury([buried], 1)
    result = house.index(w, "back@v1", "finder@1", name="second")
    assert not result.success and "second" not in w.indexes.aliases()
    (found,) = result.get_asset_check_evaluations()
    assert found.check_name == "no_erased_passages" and buried in found.description


def test_a_changed_encoder_is_no_encoder_of_the_index(w: Wiring, built: RetrievalIndexRecord, tmp_path: Path) -> None:
    weights = Path(built.encoder.path) / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\0\1")
    try:
        result = house.index(w, "desk@v1", "finder@1", name="third")
        assert not result.success and "is not what was recorded as finder@1" in failure_of(result)
    finally:
        weights.write_bytes(whole)
    assert "third" not in w.indexes.aliases()


@pytest.mark.parametrize(
    ("dataset", "encoder", "more", "reason"),
    [
        ("gone@v1", "finder@1", [], "gone"),
        ("desk@v1", "finder@9", [], "has no version or alias '9'"),
        ("desk@v1", "nobody@1", [], "no model 'nobody'"),
        ("desk@v1", "finder@1", ["--name", "a/b"], "cannot be a partition key"),
        ("desk@v1", "finder@1", ["--passage-chars", "5"], "100 to 20,000"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_wanted(
    w: Wiring, built: RetrievalIndexRecord, dataset: str, encoder: str, more: list[str], reason: str
) -> None:
    wanted = len(w.catalog.intents.open("index"))
    result = CliRunner().invoke(app, ["index", "build", dataset, "--encoder", encoder, *more])
    assert result.exit_code == 1, result.output
    assert len(w.catalog.intents.open("index")) == wanted


def test_the_sensor_asks_for_a_run_once_and_waits_for_the_splits(w: Wiring, built: RetrievalIndexRecord) -> None:
    for intent in w.catalog.intents.open("index"):
        w.catalog.intents.withdraw("index", intent.key, "test")
    values = {"name": "later", "version": "v1", "type": "rag_qa", "files": ["x"], "owner": "t", "description": "d"}
    w.catalog.register_dataset(DatasetSpec.model_validate(values), "0")
    waiting, ready = (build_index(w, "test", key, "finder@1") for key in ("later@v1", "desk@v1"))
    with dg.DagsterInstance.get() as instance:
        sensor = make(5)
        found = evaluate(sensor, instance, catalog=w.catalog, records=w.records)
        asked = [run for run in found.run_requests if run.job_name == "index"]
        assert [run.partition_key for run in asked] == [ready.partition]
        assert [key.to_user_string() for key in asked[0].asset_selection] == ["retrieval_index"]
        assert asked[0].run_key == f"index:{ready.partition}:{ready.revision}:1"
    w.catalog.intents.withdraw("index", waiting.partition, "test")
    w.catalog.intents.withdraw("index", ready.partition, "test")


def test_the_command_shows_what_there_is_and_what_a_question_finds(
    w: Wiring, built: RetrievalIndexRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = CliRunner().invoke
    listed = json.loads(run(app, ["index", "list", "--json"]).output)
    assert {one["name"]: one["fault"] for one in listed}["desk"] is None
    shown = run(app, ["index", "show", "desk"])
    assert shown.exit_code == 0 and "recall_at_10" in shown.output and built.version in shown.output
    assert run(app, ["index", "show", "nothing"]).exit_code == 1
    monkeypatch.setattr(Wiring, "trainer", lambda self, client=None: desk.Here(locks=self.settings.root / "gpus"))
    version, found = query_index(w, "test", "desk", "강변 영업소의 미납 요금 규정", mode="sparse")
    assert version == built.version and "강변" in found[0].text and "미납" in found[0].text
    assert found[0].sparse and found[0].cosine <= 1.001
    asked = run(app, ["index", "query", "desk", "강변 영업소의 미납 요금 규정", "--json", "--mode", "sparse"])
    assert json.loads(asked.stdout)["passages"][0]["id"] == found[0].id
    assert run(app, ["index", "query", "desk", "  "]).exit_code == 1
    assert run(app, ["index", "query", "desk", "x", "--mode", "magic"]).exit_code == 1
    folder = w.indexes.folder(built.version)
    (folder / "vectors.safetensors").rename(folder / "aside")
    try:
        broken = run(app, ["index", "query", "desk", "미납"]).exception
        assert isinstance(broken, Unavailable) and "vectors.safetensors cannot be read" in str(broken)
    finally:
        (folder / "aside").rename(folder / "vectors.safetensors")
