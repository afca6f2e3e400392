"""The examples that are started from a shell say how, as any command does."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("module", ["examples.expressway.jobs", "examples.expressway.generate"])
def test_help_is_help_and_no_folder(module: str, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}
    command = [sys.executable, "-m", module]
    shown = subprocess.run([*command, "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert shown.returncode == 0 and f"usage: python -m {module}" in shown.stdout
    missing = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert missing.returncode == 2 and "FOLDER" in missing.stderr
    assert list(tmp_path.iterdir()) == []
