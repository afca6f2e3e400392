"""Keys are readable by their owner alone, and nothing is sealed that the running platform could not read."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.local import stack
from resources.encryption import Keyring, is_sealed, new_key


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = new_key()
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_ENCRYPTION_KEY", key)
    common.wiring.cache_clear()
    yield tmp_path / "home", Keyring.parse(key)
    common.wiring.cache_clear()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("command", [["watermark", "key"], ["keys", "new"]])
def test_a_key_in_a_file_is_nobody_elses(tmp_path: Path, command: list[str]) -> None:
    written, redirected = tmp_path / "written.key", tmp_path / "redirected.key"
    done = CliRunner().invoke(app, [*command, "--out", str(written)])
    assert done.exit_code == 0 and mode(written) == 0o600 and len(written.read_text().strip()) > 30
    assert CliRunner().invoke(app, [*command, "--out", str(written)]).exit_code == 1, "a key is never overwritten"
    with open(redirected, "w") as file:
        subprocess.run([sys.executable, "-m", "llmops_assets.cli", *command], stdout=file, check=True)
    assert mode(redirected) == 0o600 and len(redirected.read_text().strip()) > 30


def test_nothing_is_sealed_that_the_running_platform_could_not_read(home) -> None:
    root, keys = home
    report = root / "artifacts" / "reports" / "desk@v1" / "quality.html"
    report.parent.mkdir(parents=True)
    report.write_text("<p>plain</p>")
    settings = common.wiring().settings
    with stack.hold(settings):
        for known, reason in (([], "has no key"), (["0011223344556677"], "has the keys 0011223344556677")):
            (root / "up.json").write_text(json.dumps({"pid": 1, "keys": known}))
            refused = CliRunner().invoke(app, ["keys", "rotate"])
            assert refused.exit_code != 0 and reason in str(refused.exception) + refused.output
            assert not is_sealed(report.read_bytes())
        (root / "up.json").write_text(json.dumps({"pid": 1, "keys": keys.ids}))
        assert CliRunner().invoke(app, ["keys", "rotate"]).exit_code == 0
    assert is_sealed(report.read_bytes())
