"""Ways past the login that were tried: none leads anywhere, on any route."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from fastapi.routing import APIRoute
from graphql import GraphQLError, parse
from starlette.testclient import TestClient

from images.console.__main__ import callers_of
from images.console.app import create_app
from images.console.callers import networks
from images.console.login.launches import changes_of
from images.console.login.services import asked_of
from images.console.state import State
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.access import Actor
from llmops_assets.operations.api_keys import KeyWish, create_key
from llmops_assets.operations.errors import Forbidden
from llmops_assets.operations.users import create_user
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring

HOST = "https://llmops.example"
OPEN = (
    "/llm-ops/v1/health",
    "/login",
    "/logout",
    "/static",
    "/language",
    "/alerts/heartbeat",
    "/llm-ops/v1/alerts/heartbeat",
    "/console",
    "/admin",
)
"""Where nobody has to say who they are."""
PASSWORD = "비밀번호 열두 자 이상으로"
LAUNCH = "launchRun(executionParams: {}) { __typename }"


@pytest.fixture(scope="module")
def wiring(tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    wiring = Wiring(Settings(home=tmp_path_factory.mktemp("home"), _env_file=None))
    prepare_home(wiring.settings)
    create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    return wiring


@pytest.fixture(scope="module")
def browser(wiring: Wiring) -> TestClient:
    state = State(wiring, callers_of(wiring, networks("10.0.0.1"), "console"), None)
    return TestClient(create_app(state), base_url=HOST, client=("10.9.9.9", 50000), follow_redirects=False)


def every_route(wiring: Wiring) -> list[tuple[str, str]]:
    """(method, path) of each route that asks who it is, with something for each of its parameters."""
    app = create_app(State(wiring, callers_of(wiring), [])).app
    found = []
    for path, route in routes_of(app.routes):
        for name in route.param_convertors:
            path = path.replace(f"{{{name}:path}}", "x").replace(f"{{{name}}}", "1")
        found += [(method, path) for method in sorted(route.methods)]
    return [(method, path) for method, path in found if not path.startswith(OPEN) and path != "/auth"]


def routes_of(routes: list[Any], prefix: str = "") -> Iterator[tuple[str, APIRoute]]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield prefix + route.path, route
        elif (inner := getattr(route, "original_router", None)) is not None:
            yield from routes_of(inner.routes, prefix + route.include_context.prefix)


def credentials(wiring: Wiring) -> dict[str, dict[str, str]]:
    """Headers that prove nothing, by what is wrong with them."""
    key, secret = wiring.catalog.api_keys.create("root", owner="lee", role="admin")
    wiring.catalog.api_keys.revoke("root", key.id)
    claims = {"sub": "kim", "roles": ["admin"], "aud": "another", "exp": time.time() + 600}
    forged = jwt.encode(claims, "a secret of somebody else, long enough", algorithm="HS256")
    nobody = jwt.encode(claims, None, algorithm="none")
    return {
        "nothing": {},
        "a revoked key": {"Authorization": f"Bearer {secret}"},
        "a key with a letter more": {"Authorization": f"Bearer {secret}0"},
        "a forged token": {"Authorization": f"Bearer {forged}"},
        "an unsigned token": {"Authorization": f"Bearer {nobody}"},
        "a made-up session": {"Cookie": f"llmops-session={'a' * 43}; __Host-llmops-session={'a' * 43}"},
        "the words of a proxy": {"X-User-Id": "kim", "X-User-Roles": "llm-ops-user,admin"},
        "the words of a proxy of this machine": {
            "X-User-Id": "root",
            "X-Forwarded-For": "127.0.0.1",
            "Host": "localhost",
        },
        "the password": {"Authorization": "Basic a2ltOnBhc3N3b3Jk"},
    }


def test_on_no_route_a_credential_that_proves_nothing_is_taken(wiring: Wiring, browser: TestClient):
    routes = every_route(wiring)
    assert len(routes) > 100
    wrong: list[Any] = []
    known = list(credentials(wiring).items())
    for number, (method, path) in enumerate(routes):
        # Each of them on a third of the routes, and on every route three of them.
        for what, headers in known[number % 3 :: 3]:
            answer = browser.request(method, path, headers=headers)
            is_page = answer.status_code == 303 and answer.headers["location"].startswith("/login?next=")
            if answer.status_code not in (401, 403) and not is_page:
                wrong.append((what, method, path, answer.status_code))
            if any(word in answer.text for word in ("Traceback", str(wiring.settings.root), "sqlite")):
                wrong.append((what, method, path, answer.text[:200]))
    assert wrong == []


def test_on_no_route_a_viewer_changes_anything(wiring: Wiring, browser: TestClient):
    _, secret = wiring.catalog.api_keys.create("root", owner="a viewer", role="viewer")
    lines = len(wiring.catalog.audit_log(1000))
    wrong = []
    for method, path in every_route(wiring):
        if method in ("GET", "HEAD", "OPTIONS") or "/serve/" in path:
            # To ask a model is what viewers are for.
            continue
        answer = browser.request(method, path, headers={"Authorization": f"Bearer {secret}"}, json={})
        # 422 and 404 say of a request that it is none, before it would be asked for.
        if answer.status_code not in (400, 401, 403, 404, 405, 409, 411, 413, 415, 422):
            wrong.append((method, path, answer.status_code, answer.text[:100]))
    assert wrong == []
    assert len(wiring.catalog.audit_log(1000)) == lines, "what is refused is nothing that was done"


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PROPFIND", "HEAD"])
def test_other_methods_show_nothing(browser: TestClient, method: str):
    answer = browser.request(method, "/llm-ops/v1/catalog/datasets", headers={"X-Secret": "canary"})
    assert answer.status_code in (401, 405) and "canary" not in answer.text + str(answer.headers)
    assert "access-control-allow-origin" not in answer.headers


def test_unknown_names_take_as_long_as_known_ones_as_both_are_hashed(wiring: Wiring, monkeypatch: pytest.MonkeyPatch):
    """By what is computed, not by a clock."""
    from llmops_assets.operations import logins, passwords

    hashed: list[str | None] = []
    real = passwords.is_right
    monkeypatch.setattr(passwords, "is_right", lambda given, kept: hashed.append(kept) or real(given, kept))
    for name in ("kim", "nobody"):
        with pytest.raises(logins.NotLoggedIn):
            logins.log_in(wiring, name, "wrong password")
    assert len(hashed) == 2 and hashed[0] is not None and hashed[1] is None


def nested(depth: int) -> str:
    return "mutation { " + "... on Mutation { " * depth + LAUNCH + " }" * depth + " }"


@pytest.mark.parametrize(
    "document",
    [
        f"mutation {{ {LAUNCH} }}",
        nested(19),
        "query a { version } " + f"mutation b {{ ...f }} fragment f on Mutation {{ {LAUNCH} }}",
        "mutation { ...unknown }",
        "mutation { ... on Mutation { ...unknown } }",
        "mutation { __typename @include(if: false) }",
    ],
)
def test_whatever_is_called_a_mutation_is_a_change(document: str):
    assert list(changes_of(parse(document), {})) != []


@pytest.mark.parametrize(
    "document",
    [
        nested(21),
        nested(60),
        "mutation { ...a } fragment a on Mutation { ...b } fragment b on Mutation { ...a }",
    ],
)
def test_what_is_nested_beyond_sense_is_passed_on_for_nobody(wiring: Wiring, browser: TestClient, document: str):
    with pytest.raises(GraphQLError, match="nested 20 deep"):
        list(changes_of(parse(document), {}))
    _, secret = wiring.catalog.api_keys.create("root", owner="a viewer", role="viewer")
    answer = browser.post("/dagster/graphql", json={"query": document}, headers={"Authorization": f"Bearer {secret}"})
    assert answer.status_code == 400


def test_every_way_in_which_mlflow_hands_out_files_is_a_download(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    from mlflow.server import app

    lists = ("/artifacts/list", "/artifacts/directories", "/get-download-uri", "/mlflow-artifacts/artifacts")
    served = []
    for rule in app.url_map.iter_rules():
        path = rule.rule.replace("<path:artifact_path>", "m/model.safetensors").replace("<model_id>", "m-1")
        if "GET" not in (rule.methods or ()) or "artifact" not in path or path.endswith(lists):
            continue
        served.append(path)
        for query in ("path=model.safetensors", "path=a.png&artifact_file_path=model.safetensors"):
            asked = asked_of("mlflow", "GET", f"/mlflow{path}?{query}")
            assert asked is not None and (asked.action, asked.file is not None) == ("model.download", True), path
    assert len(served) >= 9


def test_under_four_eyes_nobody_gives_themselves_a_second_name(wiring: Wiring):
    table = wiring.policy.access.model_copy(update={"four_eyes": ["model.approve"]})
    strict = Wiring(wiring.settings)
    strict.__dict__["policy"] = wiring.policy.model_copy(update={"access": table})
    operator = Actor("park", ["operator"])
    with pytest.raises(Forbidden, match="in the name of 'choi'"):
        create_key(strict, operator, KeyWish(owner="choi", role="operator"))
    assert create_key(strict, operator, KeyWish(owner="park", role="operator"))[0].owner == "park"
    assert create_key(strict, Actor("root", ["admin"]), KeyWish(owner="choi", role="operator"))[0].owner == "choi"
    assert create_key(wiring, operator, KeyWish(owner="choi", role="operator"))[0].owner == "choi"
