"""The train image holds what the worker imports, and the worker imports nothing that orchestrates."""

import ast
import re
import tomllib
from pathlib import Path

from resources.trainer import worker_identity
from resources.worker_code import FOLDER, OTHER_TASKS, worker_code

ROOT = Path(__file__).parents[2]
OURS = ("images", "resources", "llmops_assets")
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


def imported(module: str) -> set[str]:
    """Every module that `module` may import, at its top or inside its functions."""
    path = ROOT / Path(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found: set[str] = set()
    tree = ast.parse(source.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` imports the module too.
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in within if (ROOT / Path(*name.split("."))).with_suffix(".py").exists()}
            found |= modules or {node.module}
    return found


def reached() -> set[str]:
    todo = [f"images.train.{path.stem}" for path in (ROOT / "images" / "train").glob("*.py")]
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            if module.split(".")[0] in OURS:
                todo += imported(module)
    return seen


def names_of(lines: list[str]) -> dict[str, str]:
    return {line.split(">")[0].split("=")[0].split(";")[0].strip(): line.strip() for line in lines}


def test_the_worker_imports_specs_and_pure_modules_only() -> None:
    modules = reached()
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
    for dockerfile in sorted((ROOT / "images").glob("*/Dockerfile")):
        copied = re.findall(r"^COPY (\S+) \S+$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
        assert copied and [name for name in copied if not (ROOT / name).exists()] == [], dockerfile
        assert {name.split("/")[0] for name in copied} <= set(OURS)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored == ["**", *(f"!{name}" for name in OURS), "**/__pycache__"]


def test_the_worker_is_named_by_what_its_image_holds_or_by_the_code_that_decides_weights(tmp_path: Path) -> None:
    assert worker_identity("registry/llm-train-sft:1@sha256:ab") == worker_identity("other/name:2@sha256:ab")
    assert worker_identity(None) == worker_code()
    (tmp_path / "sft.py").write_text('"""Trains."""\nRATE = 2\n"""Of learning."""\n\ndef f():\n    """F."""\n')
    (tmp_path / "generate.py").write_text("LENGTH = 1\n")
    known = code_of(tmp_path)
    (tmp_path / "sft.py").write_text("# Another comment.\nRATE   = 2\n\n\ndef f():\n    pass\n")
    (tmp_path / "generate.py").write_text("LENGTH = 2\n")
    assert code_of(tmp_path) == known
    (tmp_path / "sft.py").write_text("RATE = 3\n\ndef f():\n    pass\n")
    assert code_of(tmp_path) != known


def test_what_is_left_out_of_the_workers_code_is_reached_by_no_training() -> None:
    trainers = set(
        ast.literal_eval(re.search(r"^_TRAINER = ({.*})$", (FOLDER / "train.py").read_text(), re.M)[1]).values()
    )
    todo = {"train", "plan", "axolotl", "axolotl_plugin", *trainers}
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for module in imported(f"images.train.{name}"):
            if module.startswith("images.train."):
                todo |= {module.removeprefix("images.train.")} - seen
    # What speaks for a training decides nothing of it.
    assert seen & set(OTHER_TASKS) <= {"reporter", "child"}


def code_of(folder: Path) -> str:
    worker_code.cache_clear()
    return worker_code(folder)
