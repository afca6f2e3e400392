"""The train image holds what the worker imports, and the worker imports nothing that orchestrates."""

import re
import tomllib
from pathlib import Path

import pytest

from resources.worker_code import OURS, imports_of

ROOT = Path(__file__).parents[2]
DISTRIBUTION = {
    "dagster_pipes": "dagster-pipes",
    "upath": "universal-pathlib",
    "yaml": "pyyaml",
    # They come with others on the list.
    "tokenizers": "transformers",
    "pyarrow": "datasets",
    "pydantic_core": "pydantic",
    "jinja2": "transformers",
    "sentence_transformers": "sentence-transformers",
}


def reached() -> set[str]:
    todo = [f"images.{of}.{path.stem}" for of in ("train", "ask") for path in (ROOT / "images" / of).glob("*.py")]
    reached_so_far: set[str] = set()
    while todo:
        module = todo.pop()
        if module not in reached_so_far:
            reached_so_far.add(module)
            if module.split(".")[0] in OURS:
                todo += imports_of(module)
    return reached_so_far


def names_of(lines: list[str]) -> dict[str, str]:
    return {line.split(">")[0].split("=")[0].split(";")[0].strip(): line.strip() for line in lines}


def test_the_worker_imports_specs_and_pure_modules_only() -> None:
    modules = reached()
    copied = re.findall(r"^COPY images/(\w+)(?:\.py)? ", (ROOT / "images/train/Dockerfile").read_text(), re.MULTILINE)
    assert {m.split(".")[1] for m in modules if m.startswith("images.")} <= set(copied)
    assert "images.train.train" in modules and "llmops_assets.specs.training" in modules
    assert not {m for m in modules if m.split(".")[0] in ("dagster", "mlflow")}
    assert not {m for m in modules if m.endswith((".assets", ".checks"))}


def test_the_image_has_what_the_worker_imports_at_the_versions_of_the_project() -> None:
    import sys

    files = [ROOT / "images" / "train" / name for name in ("requirements.txt", "requirements-encoder.txt")]
    lines = [line for file in files for line in file.read_text().splitlines()]
    listed = names_of([line for line in lines if line and not line.startswith("#")])
    outside = {m.split(".")[0] for m in reached()} - set(OURS) - set(sys.stdlib_module_names)
    # The plugin of Axolotl runs in Axolotl's own environment, which the image holds beside ours.
    outside -= {"axolotl"}
    assert not {DISTRIBUTION.get(name, name) for name in outside} - set(listed)

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = names_of([*project["dependencies"], *project["optional-dependencies"]["train"]])
    dagster = declared["dagster"].removeprefix("dagster")
    for name, line in listed.items():
        wanted = f"dagster-pipes{dagster}" if name == "dagster-pipes" else declared[name]
        assert line == wanted


def test_every_source_that_the_images_copy_is_there_and_the_build_context_holds_no_state() -> None:
    # The control plane is installed as a project, with what it is started by.
    project = ["sensors", "examples", "pyproject.toml", "constraints.txt", "dagster.yaml", "README.md", "LICENSE"]
    for dockerfile in sorted((ROOT / "images").glob("*/Dockerfile")):
        copied = re.findall(r"^COPY (\S+) \S+$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
        assert copied and [name for name in copied if not (ROOT / name).exists()] == [], dockerfile
        assert {name.split("/")[0] for name in copied} <= {*OURS, *project}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored == ["**", *(f"!{name}" for name in (*OURS, *project)), "**/__pycache__"]


def test_what_an_image_imports_is_compiled_in_it_where_nobody_may_write_later() -> None:
    compiled = []
    for dockerfile in sorted((ROOT / "images").glob("*/Dockerfile")):
        text = dockerfile.read_text(encoding="utf-8")
        if "FROM ${BASE}" not in text or ("COPY llmops_assets" not in text and "COPY images/serve" not in text):
            continue
        compiled.append(dockerfile.parent.name)
        (line,) = re.findall(r"^RUN \S+ -m compileall -q --invalidation-mode checked-hash (.*)$", text, re.MULTILINE)
        folders = {name.split("/")[0] for name in re.findall(r"^COPY (?!--from)(\S+) ", text, re.MULTILINE)}
        assert set(line.split()) == {name for name in folders if (ROOT / name).is_dir()}
        assert text.index("compileall") > text.rindex("COPY ")
    assert compiled == ["control", "gateway", "serve", "train"]


@pytest.mark.parametrize(
    "dockerfile", sorted((ROOT / "images").glob("*/Dockerfile")), ids=lambda path: path.parent.name
)
def test_an_image_has_its_base_as_an_argument_and_runs_as_nobody(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert re.search(r"^ARG (BASE|CONTROL)=", text, re.MULTILINE)
    assert not re.search(r"^FROM (?!\$\{)", text, re.MULTILINE)
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE)[-1] == "65534:65534"
