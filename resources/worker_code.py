"""Names what a process of the worker runs, where no image does: its modules of ours, and the libraries installed."""

import ast
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
OURS = ("images", "resources", "llmops_assets")

CARRIERS = (
    "images.atomic_write",
    "images.train.__main__",
    "images.train.subprocesses",
    "images.train.reporter",
    "images.train.sealed",
    "llmops_assets.records",
    "llmops_assets.specs",
    "llmops_assets.training.folders",
    "resources",
)
"""Modules, and packages of them, that change no weights: they start the worker, speak for it, or carry bytes to it.

What they bring is named in a training's identity by itself: rows and models by their content, a spec by its values.
"""


def imports_of(module: str, root: Path = ROOT) -> set[str]:
    """Every module that `module` may import, at its top or inside its functions, but not for types alone.

    Of a `from package import name` that is the module `package.name` where there is one.
    """
    tree = _parsed(_source(module, root).read_text(encoding="utf-8"))
    for_types = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
        for node in ast.walk(block)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            within = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name for name in within if _is_ours(name, root)} or {node.module}
    return found


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SystemError:
        # Python 3.11 counts its depth wrongly where a collection parses something meanwhile (cpython#106905).
        return ast.parse(text)


def closure(entries: Iterable[str], cut: Mapping[str, Iterable[str]] | None = None, root: Path = ROOT) -> list[str]:
    """The modules of ours that `entries` import, directly or not, with themselves; `CARRIERS` aside.

    `cut` names imports that are not followed, by the module that has them: those of a module that chooses one of
    several. What is reached by another way counts all the same.
    """
    left_out = {module: frozenset(names) for module, names in (cut or {}).items()}
    todo, reached = list(entries), set()
    while todo:
        module = todo.pop()
        if module in reached or not _is_ours(module, root) or _carries(module):
            continue
        reached.add(module)
        todo += imports_of(module, root) - left_out.get(module, frozenset())
    return sorted(reached)


def code_hash(modules: Iterable[str], root: Path = ROOT) -> str:
    """12 hex digits of the statements of modules; comments, docstrings and layout aside."""
    texts = [f"{module}\n{_statements(_source(module, root))}" for module in sorted(modules)]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def library_versions(names: Iterable[str], environment: Path | None = None) -> dict[str, str]:
    """The public version of each distribution of `names` that is installed, here or in another `environment`.

    What follows a `+` says what a build is for (cpu, cu126), not what it computes.
    """
    if environment is None:
        found = {name: _version(name) for name in names}
    else:
        folders = [str(path) for path in environment.glob("lib/python*/site-packages")]
        there = {d.metadata["Name"].lower().replace("_", "-"): d.version for d in metadata.distributions(path=folders)}
        found = {name: there.get(name) for name in names}
    return {name: version.partition("+")[0] for name, version in sorted(found.items()) if version}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _carries(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in CARRIERS)


def _is_ours(module: str, root: Path) -> bool:
    return module.split(".")[0] in OURS and _source(module, root).exists()


def _source(module: str, root: Path) -> Path:
    path = root / Path(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _statements_of(path: Path, changed: int) -> str:
    tree = _parsed(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        # Of an expression (lambda, x if y else z) it is one node.
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A text that stands by itself does nothing: docstrings, and those below a constant.
            kept = [statement for statement in body if not _is_text(statement)]
            parent: Any = node
            parent.body = kept or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _statements(path: Path) -> str:
    return _statements_of(path, path.stat().st_mtime_ns)


def _is_text(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
