"""Names the worker's code as far as it decides weights: what folds into a training's key where no image does."""

import ast
import hashlib
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "images" / "train"

OTHER_TASKS = (
    "__main__",
    "bertscore",
    "child",
    "choices",
    "generate",
    "harness",
    "merge",
    "merge_encoder",
    "perplexity",
    "prefer",
    "rank",
    "reporter",
    "retrieve",
)
"""Modules of the worker that change no weights: they start it, speak for it, or ask a model that is trained already."""


@cache
def worker_code(folder: Path = FOLDER) -> str:
    """12 hex digits of the statements of the modules that plan and train; comments, docstrings and layout aside."""
    modules = [path for path in sorted(folder.glob("*.py")) if path.stem not in OTHER_TASKS]
    texts = [f"{path.name}\n{_statements(path.read_text(encoding='utf-8'))}" for path in modules]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # A text that stands by itself does nothing: docstrings, and those below a constant.
            kept = [statement for statement in body if not _is_text(statement)]
            node.body = kept or [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def _is_text(statement: ast.stmt) -> bool:
    value = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
