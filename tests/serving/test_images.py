"""The images hold what their programs import, in the versions of the platform."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


AS_IN_THE_IMAGE = """
import importlib.abc, json, sys
absent, copied = map(json.loads, sys.argv[1:3])
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        part = name.split(".")[0]
        if part in ("images", "resources", "llmops_assets"):
            file = name.replace(".", "/")
            # A package of which something was copied is there.
            if not any(f"{file}/".startswith(f"{c.removesuffix('.py')}/") or c.startswith(f"{file}/") for c in copied):
                raise ModuleNotFoundError(f"{name} is not copied", name=name)
        elif part in absent:
            raise ModuleNotFoundError(f"{name} is not installed", name=name)
sys.meta_path.insert(0, Absent())
"""
"""Hides from a program what its image does not hold, and leaves what other packages use only where it is there."""


def with_what_they_need(names: set[str]) -> set[str]:
    """Distributions, and those that they depend on, as they are installed here; names in their normal form."""
    found, todo = set(), list(names)
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        extras = frozenset(requirement.extras)
        if (name, extras) in found:
            continue
        found.add((name, extras))
        for line in metadata.requires(name) or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                todo.append(str(needed).partition(";")[0])
    return {name for name, _extras in found}


@pytest.mark.parametrize(
    ("image", "programs"),
    [
        ("gateway", "images.gateway.__main__, images.gateway.ship"),
        ("serve", "images.serve.__main__, images.serve.bounded"),
    ],
)
def test_an_image_holds_what_its_programs_import(image: str, programs: str):
    dockerfile = (ROOT / "images" / image / "Dockerfile").read_text(encoding="utf-8")
    copied = re.findall(r"^COPY (\S+) \S+$", dockerfile, re.MULTILINE)
    there = with_what_they_need(lines((ROOT / "images" / image / "requirements.txt").read_text()))
    owners = metadata.packages_distributions()
    absent = [name for name, of in owners.items() if not {canonicalize_name(one) for one in of} & there]
    code = f"{AS_IN_THE_IMAGE}\nimport {programs}"
    command = [sys.executable, "-c", code, json.dumps(absent), json.dumps(copied)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-1500:]


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
