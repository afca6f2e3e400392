"""Users are made with roles of the policy; nobody gives out, or takes away, more than they have themselves."""

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.operations.access import Actor
from llmops_assets.operations.api_keys import KeyWish, create_key
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.users import (
    create_user,
    disable_user,
    enable_user,
    list_users,
    set_password,
    set_roles,
)
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound
from resources.catalog import tables as t

PASSWORD = "a password of twelve"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fresh") / "home"
    catalog = Wiring(Settings(home=home, _env_file=None)).catalog
    catalog.open()
    catalog.database.engine.dispose()
    return home


@pytest.fixture
def wiring(fresh: Path, tmp_path: Path) -> Wiring:
    return Wiring(Settings(home=shutil.copytree(fresh, tmp_path / "home"), _env_file=None))


def test_a_user_is_made_changed_disabled_and_let_in_again(wiring):
    user = create_user(wiring, "root", "kim", ["viewer", "viewer"], PASSWORD)
    assert user.roles == ("viewer",) and user.password_hash is not None
    assert user.password_hash.startswith("$argon2id$") and PASSWORD not in user.password_hash
    assert set_roles(wiring, "root", "kim", ["approver"]) and not set_roles(wiring, "root", "kim", ["approver"])
    assert disable_user(wiring, "root", "kim") and enable_user(wiring, "root", "kim")
    assert [one.name for one in list_users(wiring, "root")] == ["kim"]
    with wiring.catalog.database.read() as connection:
        stored = str(connection.execute(sa.select(t.users)).all()) + str(connection.execute(sa.select(t.audit)).all())
    assert PASSWORD not in stored
    actions = [line["action"] for line in wiring.catalog.audit_log()]
    assert actions == ["user.enable", "user.disable", "user.role", "user.create"]
    with pytest.raises(Conflict, match="'kim' already"):
        create_user(wiring, "root", "kim", ["viewer"], PASSWORD)
    with pytest.raises(NotFound, match="'lee'"):
        set_roles(wiring, "root", "lee", ["viewer"])


@pytest.mark.parametrize(
    ("name", "roles", "password", "words"),
    [
        ("a b", ["viewer"], PASSWORD, "no name"),
        ("../x", ["viewer"], PASSWORD, "no name"),
        ("", ["viewer"], PASSWORD, "no name"),
        ("ｋim", ["viewer"], PASSWORD, "no name"),
        ("kim\n", ["viewer"], PASSWORD, "no name"),
        ("kim", ["boss"], PASSWORD, "'boss'"),
        ("kim", [], PASSWORD, "needs a role"),
        ("kim", ["viewer"], "short", "12 characters"),
        ("kim", ["viewer"], "aaaaaaaaaaaaaaaa", "easily guessed"),
        ("kimminsu", ["viewer"], "kimminsukimminsu1", "easily guessed"),
        ("kim", ["viewer"], "a" * 500 + "bcde" * 200, "1024 bytes"),
        ("kim", ["viewer"], "with a \x00 inside it", "control"),
    ],
)
def test_a_user_that_makes_no_sense_is_refused_and_leaves_nothing(wiring, name, roles, password, words):
    with pytest.raises(Refused, match=words):
        create_user(wiring, "root", name, roles, password)
    assert wiring.catalog.users.all() == [] and wiring.catalog.audit_log() == []


def test_a_user_may_have_a_korean_name(wiring):
    assert create_user(wiring, "root", "김철수", ["viewer"], "비밀번호는 열두 글자 넘게").name == "김철수"


def test_nobody_gives_out_or_takes_away_more_than_they_have(tmp_path):
    policy = tmp_path / "policy.yaml"
    shipped = (Path(__file__).parents[2] / "llmops_assets/specs/policy.yaml").read_text()
    policy.write_text(shipped.replace("alert.*, key.*]", "alert.*, key.*, user.*]"))
    wiring = Wiring(Settings(home=tmp_path, policy_file=policy, _env_file=None))
    create_user(wiring, "root", "boss", ["admin"], PASSWORD)
    operator, admin = Actor("lee", ["operator"]), Actor("boss", ["admin"])
    create_user(wiring, operator, "kim", ["viewer"], PASSWORD)
    create_key(wiring, operator, KeyWish("kim", role="operator"))
    for ask in (
        lambda: create_user(wiring, operator, "lee2", ["admin"], PASSWORD),
        lambda: set_roles(wiring, operator, "kim", ["admin"]),
        lambda: set_roles(wiring, operator, "boss", ["viewer"]),
        lambda: set_password(wiring, operator, "boss", PASSWORD),
        lambda: disable_user(wiring, operator, "boss"),
        lambda: create_key(wiring, operator, KeyWish("lee", role="admin")),
    ):
        with pytest.raises(Forbidden, match="may not"):
            ask()
    create_key(wiring, admin, KeyWish("boss", role="admin"))
    assert wiring.catalog.users.get("boss").roles == ("admin",) and len(wiring.catalog.api_keys.all()) == 2


def test_the_command_makes_users_and_acts_by_a_key(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    common.wiring.cache_clear()
    runner = CliRunner()
    made = runner.invoke(app, ["user", "create", "kim", "--role", "operator", "--password-file", "-"], input=PASSWORD)
    assert made.exit_code == 0 and "kim: operator" in made.output and "asks for a login" in made.output, made.output
    assert "kim" in runner.invoke(app, ["user", "list"]).output
    key = runner.invoke(app, ["key", "create", "lee", "--role", "data-scientist", "--json"]).output
    secret = json.loads(key)["key"]
    monkeypatch.setenv("LLMOPS_ACTOR_KEY", secret)
    common.wiring.cache_clear()
    refused = runner.invoke(app, ["user", "role", "kim", "--role", "admin"])
    assert isinstance(refused.exception, Forbidden) and "'lee' may not do user.role" in str(refused.exception)
    monkeypatch.setenv("LLMOPS_ACTOR_KEY", secret[:-1] + ("0" if secret[-1] != "0" else "1"))
    common.wiring.cache_clear()
    assert isinstance(runner.invoke(app, ["user", "list"]).exception, Refused)
    monkeypatch.delenv("LLMOPS_ACTOR_KEY")
    common.wiring.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert runner.invoke(app, ["user", "password", "kim"]).exit_code == 1
    common.wiring.cache_clear()
