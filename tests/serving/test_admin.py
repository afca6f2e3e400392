"""The administrative port and the platform's probes are for who holds the token, wherever he runs."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from images.gateway.admin import admin_app, holds_token
from images.gateway.app import App, create_app
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.gateway_token import ensure_admin_token


@pytest.fixture
def app(catalog: Catalog, tmp_path: Path) -> App:
    catalog.open()
    return create_app(catalog, str, settings=Settings(home=tmp_path, gateway_admin_token="right", _env_file=None))


def test_the_administrative_port_answers_nobody_without_its_token(app: App):
    with TestClient(app) as public, TestClient(admin_app(app.gateway)) as admin:
        for path in ("/metrics", "/admin/routes", "/", "/nothing"):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "right"}, {"Authorization": ""}):
                answer = admin.get(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error"), path
        for path in ("/metrics", "/admin/routes"):
            assert admin.get(path, headers={"Authorization": "Bearer right"}).status_code == 200
            assert public.get(path, headers={"Authorization": "Bearer right"}).status_code == 404, (
                "only on its own port"
            )


def test_who_calls_himself_a_probe_has_the_token(app: App):
    with TestClient(app) as public:
        for given in ("1", "", "wrong", "rïght".encode("latin-1").decode("latin-1")):
            answer = public.get("/v1/models", headers={"x-llmops-probe": given.encode("latin-1")})
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_the_platform")
        assert public.get("/v1/models", headers={"x-llmops-probe": "right"}).status_code == 200


def test_without_a_token_nobody_holds_it():
    assert not any(holds_token(given, None) or holds_token(given, "") for given in (None, "", "None"))


def test_the_token_is_made_once_for_its_owner_alone(tmp_path: Path):
    settings = Settings(home=tmp_path / "home", _env_file=None)
    assert settings.admin_token is None
    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: ensure_admin_token(settings), range(8)))
    assert len(tokens) == 1 and len(tokens.copy().pop()) > 30
    (file,) = (tmp_path / "home").iterdir()
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600
    assert {settings.admin_token} == tokens
    given = Settings(home=tmp_path / "other", gateway_admin_token="mine", _env_file=None)
    assert ensure_admin_token(given) == "mine" and not (tmp_path / "other").exists()
