"""`llmops key` shows a key once, lists it without its secret and revokes it; `llmops usage` shows the ledger."""

import json

import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.cli.common import guard
from resources.catalog import Catalog, Used


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPS_ACTOR", "kim")
    common.wiring.cache_clear()
    yield lambda *arguments: CliRunner().invoke(app, list(arguments))
    common.wiring.cache_clear()


def test_a_key_is_shown_once(run, tmp_path):
    made = run("key", "create", "lee", "--team", "desk", "--endpoint", "desk", "--tokens", "5000", "--expires", "90d")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip().splitlines()[-1]
    assert secret.startswith("llmops-")
    listed = run("key", "list", "--json")
    (key,) = json.loads(listed.stdout)
    assert (key["owner"], key["team"], key["endpoints"], key["monthly_tokens"]) == ("lee", "desk", ["desk"], 5000)
    assert "sha256" not in key and secret.split("-")[2] not in listed.stdout + run("key", "list").stdout
    revoked = run("key", "revoke", secret)
    assert f"revoked: {key['id']}" in revoked.stdout and secret.split("-")[2] not in revoked.stdout
    assert "revoked before" in run("key", "revoke", key["id"]).stdout


def test_a_key_goes_into_a_file_of_ones_own(run, tmp_path):
    file = tmp_path / "key"
    assert run("key", "create", "lee", "--out", str(file)).exit_code == 0
    assert file.read_text().startswith("llmops-") and file.stat().st_mode & 0o777 == 0o600
    assert run("key", "create", "lee", "--out", str(file)).exit_code == 1


@pytest.mark.parametrize("expires", ["soon", "90", "-1d", "1y", "999999999999d"])
def test_a_time_that_is_none_makes_no_key(run, expires):
    assert run("key", "create", "lee", "--expires", expires).exit_code == 1
    assert json.loads(run("key", "list", "--json").stdout) == []


def test_usage_is_shown_by_what_one_asks_for(run, tmp_path):
    ledger = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}").usage
    ledger.add([Used("2026-11-30", "k1", "desk", "help", "m@1", 3, 1, 1000, 234, 34)])
    shown = run("usage", "--by", "team", "--by", "model")
    assert "desk" in shown.stdout and "m@1" in shown.stdout and "1,000" in shown.stdout and "34" in shown.stdout
    assert json.loads(run("usage", "--json").stdout)[0]["key"] == "k1"
    assert guard(lambda: app(["usage", "--by", "colour"], standalone_mode=False)) == 1


def test_the_two_kinds_of_keys_name_each_other(run):
    assert "llmops keys" in run("key", "--help").stdout.replace("\n", " ")
    assert "llmops key" in run("keys", "--help").stdout
