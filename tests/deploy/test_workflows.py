"""The workflows do what they say: every file that they keep is one that a step before writes, with no more rights."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
TRIGGERS = {"push", "pull_request", "schedule", "workflow_dispatch"}
STEP = {"uses", "with", "run", "name", "if", "env", "timeout-minutes", "working-directory"}


def loaded(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1 takes the word for a truth.
    return {("on" if name is True else name): value for name, value in found.items()}


def written(target: str) -> str:
    """The lines of a target of make, variables that it names filled in."""
    lines = re.search(rf"^{target}:[^\n]*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    values = dict(re.findall(r"^([A-Z]+) \?= (.*)$", MAKEFILE, re.MULTILINE))
    return re.sub(r"\$\((\w+)\)", lambda found: values.get(found[1], ""), lines[1]) if lines else ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_keeps_what_its_steps_write_and_asks_for_no_rights(path: Path):
    workflow = loaded(path)
    assert set(workflow["on"]) <= TRIGGERS and workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]
    for name, job in workflow["jobs"].items():
        assert job["runs-on"] == "ubuntu-latest" and job["timeout-minutes"] > 0, name
        assert set(job.get("needs", [])) <= set(workflow["jobs"])
        made = ""
        for step in job["steps"]:
            assert set(step) <= STEP and ("uses" in step) != ("run" in step), (name, step)
            for target in re.findall(r"make ([a-z-]+)", step.get("run", "")):
                assert written(target) or re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
                made += written(target)
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), step["uses"]
            if step.get("uses", "").startswith("actions/upload-artifact"):
                assert step["with"]["path"] in made, f"{name}: no step before writes {step['with']['path']}"
                assert step["with"]["if-no-files-found"] == "error"


def test_a_release_bundles_the_images_that_it_built():
    """As compose names them where nobody says otherwise."""
    from deploy.server import DEFAULTS

    steps = loaded(REPOSITORY / ".github" / "workflows" / "release.yml")["jobs"]["bundle"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    [bundle] = [command for command in commands if "make bundle" in command]
    prefix, version = DEFAULTS["LLMOPS_IMAGES"], DEFAULTS["LLMOPS_VERSION"]
    compose = (REPOSITORY / "deploy" / "compose.yaml").read_text(encoding="utf-8")
    names = set(re.findall(r"\$\{LLMOPS_IMAGES\}(llmops-[a-z]+):", compose))
    assert set(re.findall(r"[^\s\"=]*/llmops-\w+:[\d.]+", bundle)) == {f"{prefix}{name}:{version}" for name in names}
    assert commands.index("make server-images") < commands.index(bundle)
