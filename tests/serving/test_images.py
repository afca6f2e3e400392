"""The images hold what their programs import, in the versions of the platform."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What uvicorn parses HTTP with, which the platform gets with Dagster's webserver.
ONLY_THERE = {"httptools>=0.6"}


def lines(text: str) -> set[str]:
    return {re.sub(r"\s*;.*", "", line).strip() for line in text.splitlines() if line and not line.startswith("#")}


@pytest.mark.parametrize("image", ["serve", "gateway"])
def test_an_image_installs_the_versions_of_the_platform(image: str):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = lines("\n".join([*project["dependencies"], *project["optional-dependencies"]["serve"]]))
    assert lines((ROOT / "images" / image / "requirements.txt").read_text()) - ONLY_THERE <= known


def test_the_gateway_imports_no_orchestrator_and_no_model_library():
    banned = ("dagster", "torch", "transformers", "mlflow", "kiwipiepy", "presidio_analyzer", "scipy", "pandera")
    program = f"import images.gateway.__main__, sys; print([m for m in {banned} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"


def test_the_serve_worker_imports_nothing_of_the_platform_but_itself():
    program = (
        "import images.serve.__main__, images.serve.bounded, sys;"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('llmops_assets', 'resources', 'dagster', 'torch')))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert told.stdout.strip() == "[]"
