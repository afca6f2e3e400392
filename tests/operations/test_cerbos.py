"""Cerbos decides as the table does: a real one, with the policies that are written for it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from llmops_assets.local.stack import free_port
from llmops_assets.operations import access
from llmops_assets.operations.access import Actor
from llmops_assets.operations.access_table import cerbos_policies, table, write_cerbos_policies
from llmops_assets.operations.doctor import examine
from llmops_assets.operations.errors import Forbidden, Refused, Unavailable
from llmops_assets.specs.access import ACTIONS, AccessPolicy
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.cerbos import Cerbos
from tests.cerbos_server import cerbos_at, program

EVERY = [f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs]
OWN = AccessPolicy.model_validate(
    {"roles": {"심사자": ["model.*"], "nobody": [], "all": ["*"], "viewer": ["endpoint.call", "audit.read"]}}
)


@pytest.fixture(scope="module")
def cerbos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Cerbos with the shipped table."""
    folder = tmp_path_factory.mktemp("cerbos")
    write_cerbos_policies(Wiring(Settings(home=folder / "home", _env_file=None)), folder / "policies")
    with cerbos_at(free_port("127.0.0.1"), free_port("127.0.0.1"), folder) as url:
        yield url


def test_every_action_of_every_role_is_decided_alike(cerbos, tmp_path):
    wiring = Wiring(Settings(home=tmp_path, cerbos_url=cerbos, _env_file=None))
    here = wiring.policy.access
    asked = Cerbos(cerbos)
    for roles in [[role] for role in here.roles] + [["viewer", "approver"], ["stranger"], []]:
        assert asked.allowed("kim", roles, EVERY) == here.actions_of(roles), roles
    assert len(table(wiring)) == len(EVERY) > 40
    (found,) = (one for one in examine(wiring, is_running=False) if one.part == "Cerbos")
    assert found.state == "ok"
    policy = load_policy().model_dump(mode="json")
    policy["access"]["roles"]["viewer"] = ["*"]
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")
    other = Wiring(Settings(home=tmp_path, cerbos_url=cerbos, policy_file=tmp_path / "policy.yaml", _env_file=None))
    (found,) = (one for one in examine(other, is_running=False) if one.part == "Cerbos")
    assert found.state == "warning" and "for viewer" in found.what
    assert access.allowed(wiring, Actor("kim", ["approver"]), "model.promote")
    with pytest.raises(Forbidden, match=r"'kim' may not do keys\.rotate as operator"):
        access.authorise(wiring, Actor("kim", ["operator"]), "keys.rotate")


def test_while_cerbos_is_away_nobody_may_do_anything_but_the_machines_owner(tmp_path):
    away = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    wiring = Wiring(Settings(home=tmp_path, cerbos_url=away, _env_file=None))
    with pytest.raises(Unavailable, match="does not answer"):
        access.authorise(wiring, Actor("kim", ["admin"]), "usage.read")
    assert access.allowed(wiring, "kim", "usage.read")


def test_another_table_is_written_as_it_is(tmp_path):
    policies = cerbos_policies(OWN)
    assert policies.keys() == {f"{area}.yaml" for area in ACTIONS}
    assert "심사자" in policies["model.yaml"] and "nobody" not in "".join(policies.values())
    check = subprocess.run(
        [str(program()), "compile", "--skip-tests", str(_written(policies, tmp_path))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert check.returncode == 0, check.stdout + check.stderr
    (tmp_path / "other.yaml").write_text("x: 1")
    with pytest.raises(Refused, match=r"other\.yaml"):
        write_cerbos_policies(Wiring(Settings(home=tmp_path / "home", _env_file=None)), tmp_path)


def _written(policies, folder: Path) -> Path:
    for name, text in policies.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder
