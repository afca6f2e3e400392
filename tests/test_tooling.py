"""What runs by itself (hooks, CI) runs what a person runs: targets of the Makefile."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import conftest

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
HOUSE = ("llmops_assets", "resources", "sensors", "images", "tests", ".github")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def loaded(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def commands() -> list[tuple[str, str]]:
    """(file, command) of every hook and every step that runs something."""
    found = []
    for repository in loaded(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repository["repo"] == "local", "a hook from elsewhere is fetched when it runs"
        found += [(".pre-commit-config.yaml", hook["entry"]) for hook in repository["hooks"]]
    for workflow in WORKFLOWS:
        for job in loaded(workflow)["jobs"].values():
            found += [(workflow.name, step["run"]) for step in job["steps"] if "run" in step]
    return found


@pytest.mark.parametrize(("file", "command"), commands())
def test_every_command_is_a_target_of_the_makefile(file: str, command: str) -> None:
    program, target, *variables = command.split(maxsplit=2)
    assert program == "make" and target in TARGETS, f"{file}: {command}"
    assert all("=" in variable for variable in variables)


def test_ci_lints_and_tests_every_change_and_runs_the_demo_at_night() -> None:
    workflow = loaded(ROOT / ".github" / "workflows" / "ci.yml")
    # YAML 1.1 reads the key `on` as true.
    triggers = workflow[True]
    assert {"push", "pull_request", "schedule"} <= set(triggers)
    runs = {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in workflow["jobs"].items()}
    assert "make lint" in runs["lint"] and "make test" in runs["test"]
    assert runs["demo"] == ["make demo"] and "schedule" in workflow["jobs"]["demo"]["if"]
    assert all("if" not in workflow["jobs"][name] for name in ("lint", "test"))


def test_our_own_ci_runs_the_same() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make install", "make lint", "make test"} <= set(lines)


@pytest.mark.parametrize("guide", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_guide_of_the_house_names_is_there(guide: str) -> None:
    named = set(
        re.findall(r"`((?:[a-z_0-9.]+/)*[a-z_0-9]+\.(?:py|yaml|yml|toml))(?::[^`]*)?`", (ROOT / guide).read_text())
    )
    assert len(named) > 5
    there = [f"/{path.relative_to(ROOT)}" for part in HOUSE for path in (ROOT / part).rglob("*")]
    there += [f"/{path.name}" for path in ROOT.iterdir()]
    assert not [name for name in named if not any(path.endswith(f"/{name}") for path in there)]


def test_every_part_of_the_house_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    named = set(re.findall(r"llmops_assets\.(\w+)", " ".join(layers)))
    parts = (
        path for path in (ROOT / "llmops_assets").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    )
    assert {path.stem for path in parts} - {"__init__"} == named


def test_the_tests_that_are_named_are_there() -> None:
    here = Path(__file__).parent
    gone = [name for name in (*conftest.DEAR, *conftest.STARTS_PROCESSES) if not list(here.glob(name))]
    assert not gone, "named in tests/conftest.py"
    assert len(set(conftest.DEAR)) == len(conftest.DEAR)
