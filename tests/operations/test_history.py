"""What was served at a moment is known later, whatever became of it since."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.history import served_at
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound, database
from resources.prompts import ResolvedPrompt
from tests.serving.conftest import deployment_spec

NINE = datetime(2026, 11, 30, 9, tzinfo=UTC)


def route(ref: str, weight: float, **more: object) -> dict:
    return {"backend_id": f"desk-{ref}", "model_ref": ref, "weight": weight, **more}


def test_models_shares_prompt_and_index_of_a_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    w = Wiring(Settings(home=tmp_path, _env_file=None))
    clock = [NINE]
    monkeypatch.setattr(database, "now", lambda: clock[0])
    w.catalog.want_endpoint(deployment_spec("desk"), "kim")
    clock[0] = NINE + timedelta(hours=1)
    w.catalog.log("retrieval_index", "index.publish", "docs", version="v-old", dataset="docs@v1")
    clock[0] = NINE + timedelta(hours=2)
    w.catalog.set_routes("desk", [route("a@1", 100, rag={"index": "docs"})], "kim")
    clock[0] = NINE + timedelta(hours=3)
    w.catalog.prompts.set("desk", ResolvedPrompt("greeting", 1, "안녕 {{question}}", None), "kim")
    clock[0] = NINE + timedelta(hours=4)
    w.catalog.log("retrieval_index", "index.publish", "docs", version="v-new", dataset="docs@v2")
    clock[0] = NINE + timedelta(hours=5)
    w.catalog.set_routes("desk", [route("a@1", 75), route("b@2", 25)], "lee")
    clock[0] = NINE + timedelta(hours=6)
    w.catalog.set_routes("desk", [], "lee")
    clock[0] = NINE + timedelta(hours=7)
    w.catalog.remove_endpoint("desk", "lee")
    with pytest.raises(Refused, match=r"served nothing at 2026-11-30T10:30:00.*first served at 2026-11-30T11:00:00"):
        served_at(w, "desk", NINE + timedelta(hours=1.5))
    first = served_at(w, "desk", NINE + timedelta(hours=2.5))
    assert [(m.model_ref, m.weight, m.index_version) for m in first.models] == [("a@1", 100, "v-old")]
    assert (first.by, first.prompt, first.models[0].dataset) == ("kim", None, None)
    later = served_at(w, "desk", NINE + timedelta(hours=4.5))
    assert (later.models[0].index_version, later.models[0].index_dataset) == ("v-new", "docs@v2")
    assert later.prompt == "greeting@1" and later.since == NINE + timedelta(hours=2)
    split = served_at(w, "desk", NINE + timedelta(hours=5.5))
    assert [(m.model_ref, m.weight) for m in split.models] == [("a@1", 75), ("b@2", 25)] and split.by == "lee"
    with pytest.raises(Refused, match="had been deleted by lee"):
        served_at(w, "desk", NINE + timedelta(hours=9))
    with pytest.raises(Refused, match="no time zone"):
        served_at(w, "desk", datetime(2026, 11, 30, 12))
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    common.wiring.cache_clear()
    try:
        done = CliRunner().invoke(app, ["at", "2026-11-30T14:30:00+00:00", "desk", "--json"])
        assert [m["model_ref"] for m in json.loads(done.output)["models"]] == ["a@1", "b@2"]
        assert CliRunner().invoke(app, ["at", "2026-11-30T14:30:00+00:00", "desk"]).exit_code == 0
        assert CliRunner().invoke(app, ["at", "yesterday", "desk"]).exit_code != 0
        w.catalog.want_endpoint(deployment_spec("new"), "kim")
        for name, words in (
            ("nobody", "no endpoint 'nobody'"),
            ("docs", "no endpoint 'docs'"),
            ("new", "served nothing"),
        ):
            with pytest.raises((NotFound, Refused), match=words):
                served_at(w, name, NINE + timedelta(hours=9))
        unknown = CliRunner().invoke(app, ["at", "2026-11-30T14:30:00+00:00", "nobody"])
        other = CliRunner().invoke(app, ["endpoint", "show", "nobody"])
        assert unknown.exit_code == other.exit_code != 0
    finally:
        common.wiring.cache_clear()
