"""A table of role × action decides who may do what; keys and usage are asked for through operations that heed it."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from llmops_assets.operations import access
from llmops_assets.operations.api_keys import KeyWish, create_key, list_keys, revoke_key
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.usage import usage_by
from llmops_assets.specs.access import ACTIONS, AccessPolicy
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Used

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    return Wiring(Settings(home=tmp_path))


def test_a_policy_that_says_nothing_of_roles_has_those_of_the_shipped_one():
    assert AccessPolicy() == load_policy().access


@pytest.mark.parametrize(
    ("roles", "action", "may"),
    [
        (["viewer"], "endpoint.call", True),
        (["viewer"], "endpoint.delete", False),
        (["data-scientist"], "training.request", True),
        (["data-scientist"], "model.promote", False),
        (["approver"], "model.promote", True),
        (["approver", "viewer"], "key.create", False),
        (["operator"], "key.create", True),
        (["operator"], "keys.rotate", False),
        (["admin"], "keys.rotate", True),
        (["nobody"], "endpoint.call", False),
        ([], "endpoint.call", False),
    ],
)
def test_a_role_may_do_what_the_table_says(wiring, roles, action, may):
    assert load_policy().access.allows(roles, action) is may
    assert access.allowed(wiring, "kim", action, roles) is may
    if not may:
        with pytest.raises(Forbidden, match=re.escape(action)):
            access.authorise(wiring, "kim", action, roles)


def test_every_action_that_an_operation_asks_for_is_in_the_table():
    asked = {
        action
        for file in (ROOT / "llmops_assets" / "operations").glob("*.py")
        for action in re.findall(r'authorise\(wiring, [\w.]+, "([a-z]+\.[a-z]+)"', file.read_text())
    }
    assert len(asked) > 15
    assert asked <= {f"{area}.{verb}" for area, verbs in ACTIONS.items() for verb in verbs}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"roles": {"viewer": ["endpoint.cal"]}}, "did you mean endpoint.call"),
        ({"roles": {"viewer": ["endpoints.*"]}}, "no action 'endpoints.*'"),
        ({"claims": {"mapped_roles": {"x": "boss"}}}, "no role 'boss'"),
        ({"claims": {"default_roles": ["boss"]}}, "no role 'boss'"),
    ],
)
def test_a_table_that_names_what_is_not_there_is_refused(data, words):
    with pytest.raises(ValidationError, match=re.escape(words)):
        AccessPolicy.model_validate(data)


def test_roles_of_a_token_are_mapped_and_unknown_ones_give_nothing():
    rules = AccessPolicy.model_validate(
        {"claims": {"roles": "realm_access.roles", "mapped_roles": {"llm-admins": "admin"}}}
    )
    assert rules.roles_of({"realm_access": {"roles": ["llm-admins", "offline_access", 5]}}) == {"admin"}
    assert rules.roles_of({"realm_access": {"roles": "viewer"}}) == {"viewer"}
    for odd in ({}, {"realm_access": None}, {"realm_access": ["viewer"]}, {"realm_access": {"roles": {"viewer": 1}}}):
        assert rules.roles_of(odd) == frozenset()
    named = AccessPolicy.model_validate({"claims": {"roles": "https://kim.example/roles", "default_roles": ["viewer"]}})
    assert named.roles_of({"https://kim.example/roles": ["approver"]}) == {"approver"}
    assert named.roles_of({}) == {"viewer"}


def test_a_key_is_made_listed_and_revoked(wiring):
    key, secret = create_key(wiring, "kim", KeyWish("lee", team="desk", valid_for=timedelta(days=90)))
    assert secret.startswith("llmops-") and key.expires_at is not None
    assert [k.id for k in list_keys(wiring, "kim")] == [key.id]
    assert [revoke_key(wiring, "kim", key.id)[1] for _ in range(2)] == [True, False]


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        (KeyWish("lee", role="boss"), "no role 'boss'"),
        (KeyWish(" "), "needs an owner"),
        (KeyWish("lee", endpoints=()), "at least one"),
        (KeyWish("lee", requests_per_minute=0), "requests_per_minute 0"),
        (KeyWish("lee", monthly_tokens=-1), "monthly_tokens -1"),
        (KeyWish("lee", valid_for=timedelta(0)), "more than nothing"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_and_leaves_nothing(wiring, wish, words):
    with pytest.raises(Refused, match=re.escape(words)):
        create_key(wiring, "kim", wish)
    assert wiring.catalog.api_keys.all() == []


def test_a_key_of_a_role_that_may_call_nothing_is_refused(tmp_path):
    shipped = (ROOT / "llmops_assets/specs/policy.yaml").read_text()
    file = tmp_path / "policy.yaml"
    file.write_text(shipped.replace("viewer: [endpoint.call, ", "viewer: [usage.read, "))
    with pytest.raises(Refused, match="would open nothing"):
        create_key(Wiring(Settings(home=tmp_path, policy_file=file)), "kim", KeyWish("lee"))


def test_usage_is_asked_for_by_what_it_is_kept_by(wiring):
    wiring.catalog.usage.add([Used("2026-11-30", "k", "t", "desk", "desk@1", 1, 0, 2, 3, 0)])
    assert usage_by(wiring, "kim", ["team", "model"])[0]["model_ref"] == "desk@1"
    for by, since, words in (
        (["colour"], None, "colour"),
        (["key"], "2026-13-01", "no day"),
        (["key"], "today", "no day"),
    ):
        with pytest.raises(Refused, match=words):
            usage_by(wiring, "kim", by, since=since)
