"""Every operation asks whether its actor may do it, before it reads or changes anything; every route asks who it is."""

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.state import State, _caller
from llmops_assets import operations
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden
from llmops_assets.specs.access import ACTIONS, AccessPolicy
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring

EVERY = [f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs]
OF_THE_DOOR = {"access", "four_eyes", "logins"}
"""Modules that are asked by operations, or let people in."""
ELSEWHERE = {
    # Parts of operations that were authorised.
    "running_tests.end_for",
    "prompts.resolve_for",
    "endpoints.refuse_own_promotion",
    # What the platform does by itself: sensors call them, and no door does.
    "failed_runs.note_failed_run",
    "prompts.follow_aliases",
    # Shows what every user sees.
    "overview.overview",
    # Show their figures to every user, and who called or what was said to those who may read that.
    "refused_requests.refused_requests",
    "shadows.shadow_report",
    # Hands what it found on to `request_training`, which asks.
    "model_evidence.request_evaluation",
    # Asks for base.* or model.*, by the kind of model that it finds.
    "model_entries.set_status",
}


class Untouched(Wiring):
    """Resources of which none may be used before the actor was authorised."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("settings", "policy", "cerbos") or name.startswith("__"):
            return super().__getattribute__(name)
        raise AssertionError(f"{name} was used before it was asked whether the actor may")


def every_operation() -> Iterator[tuple[str, Callable[..., Any]]]:
    for module in pkgutil.iter_modules(operations.__path__):
        if module.name in OF_THE_DOOR:
            continue
        loaded = importlib.import_module(f"{operations.__name__}.{module.name}")
        for name, found in vars(loaded).items():
            own = inspect.isfunction(found) and found.__module__ == loaded.__name__ and not name.startswith("_")
            if own and "actor" in inspect.signature(found).parameters:
                yield f"{module.name}.{name}", found


OPERATIONS = {name: found for name, found in every_operation() if name not in ELSEWHERE}


class Anything:
    """An argument that nothing is known of."""

    def __getattr__(self, name: str) -> "Anything":
        return Anything()

    def startswith(self, text: str) -> bool:
        return False

    def __contains__(self, text: str) -> bool:
        return True


@pytest.mark.parametrize("name", OPERATIONS)
def test_who_has_no_role_is_refused_before_anything_is_touched(name, tmp_path):
    operation = OPERATIONS[name]
    wiring = Untouched(Settings(home=tmp_path, _env_file=None))
    parameters = list(inspect.signature(operation).parameters.values())[2:]
    given = {p.name: "staging" if p.name == "to" else Anything() for p in parameters if p.default is p.empty}
    with pytest.raises(Forbidden, match="as somebody without a role"):
        operation(wiring, Actor("kim", []), **given)


def test_there_is_no_action_that_nobody_asks_for():
    """A role that may do what nothing asks for, or an operation that asks for what no role can have, is a mistake."""
    asked: set[str] = set()
    root = Path(operations.__path__[0])
    texts = [*root.glob("*.py"), *(root.parents[1] / "images").rglob("*.py"), root.parent / "specs" / "access.py"]
    for file in texts:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in EVERY and not _is_in_table(file, node):
                asked.add(str(node.value))
    asked |= {f"model.{step}" for step in ("approve", "stage", "promote", "archive")}
    assert sorted(set(EVERY) - asked) == []


def _is_in_table(file: Path, node: ast.Constant) -> bool:
    return file.name == "access.py" and file.parent.name == "specs" and node.value != "endpoint.call"


def test_each_role_may_do_what_the_table_says_and_no_more():
    access = AccessPolicy()
    for role, granted in access.roles.items():
        for action in EVERY:
            wanted = any(g in ("*", action, f"{action.partition('.')[0]}.*") for g in granted)
            assert access.allows([role], action) is wanted, (role, action)
    may = access.actions_of
    assert may(["viewer"]) < may(["data-scientist"]) < may(["operator"]) < may(["admin"]) == frozenset(EVERY)
    assert not {a for a in may(["operator"]) if a.startswith(("user.", "keys."))}
    assert may(["stranger"]) == may([]) == frozenset()


def test_every_route_asks_who_it_is_but_those_that_let_people_in(tmp_path):
    wiring = Wiring(Settings(home=tmp_path, _env_file=None))
    app = create_app(State(wiring, callers_of(wiring), [])).app
    open_to_all = set()
    for route in _routes(app.routes):
        asks = any(dependency.call is _caller for dependency in _all(route.dependant))
        if not asks:
            open_to_all.add(route.path)
    redirects = {path for path in open_to_all if path == "/console" or path.startswith("/admin")}
    assert open_to_all - redirects <= {
        "/llm-ops/v1/health", "/login", "/login/provider", "/login/callback", "/logout", "/auth",
        "/static/{name:path}", "/language/{language}", "/alerts/heartbeat",
    }, sorted(open_to_all)  # fmt: skip


def _routes(routes: list[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        inner = getattr(route, "original_router", None) or getattr(route, "app", None)
        if inner is not None and hasattr(inner, "routes"):
            yield from _routes(inner.routes)


def _all(dependant: Any) -> Iterator[Any]:
    for one in dependant.dependencies:
        yield one
        yield from _all(one)
