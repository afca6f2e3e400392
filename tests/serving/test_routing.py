"""Shares of an endpoint's users: who is held out stays so whatever happens, and several models keep users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmops_assets.experiments.assignment import assign, assign_anew
from llmops_assets.serving.rollout import alias_moves, plan, target_of
from llmops_assets.serving.rollout_steps import previous_model
from llmops_assets.serving.routing import NotServed, is_holdout, planned, shares, without_holdout
from llmops_assets.specs.deployment import Holdout
from tests.serving.conftest import deployment_spec
from tests.serving.test_plan import target

HOLDOUT = Holdout(percent=5)


def new(ref: str) -> dict:
    return {"backend_id": f"b-{ref}", "model_ref": ref}


def table(*steps: tuple[str, float], keep_models: int = 1, holdout: Holdout | None = HOLDOUT) -> list[list[dict]]:
    """The route tables after each deployment of (model, share)."""
    tables: list[list[dict]] = [[]]
    for ref, share in steps:
        tables.append(planned(new(ref), share, tables[-1], keep_models=keep_models, holdout=holdout))
    return tables[1:]


def model_of(routes: list[dict], user: int) -> tuple[str, bool]:
    weights, held = [r["weight"] for r in routes], [is_holdout(r) for r in routes]
    route = routes[assign_anew("salt", f"user-{user}", weights, held, routes[-1].get("draw", 0))]
    return route["model_ref"], is_holdout(route)


def test_the_first_model_has_nobody_to_hold_out() -> None:
    (first,) = table(("a@1", 100))
    assert first == [{**new("a@1"), "weight": 100}]


def test_who_is_held_out_stays_so_through_every_later_deployment() -> None:
    tables = table(("a@1", 100), ("b@1", 50), ("b@1", 100), ("c@1", 20), ("b@1", 100), ("a@1", 100), ("d@1", 100))
    held = [{user for user in range(3000) if model_of(t, user)[1]} for t in tables[1:]]
    assert 100 < len(held[0]) < 200 and all(one == held[0] for one in held)
    for routes in tables[1:]:
        assert {model_of(routes, user)[0] for user in held[0]} == {"a@1"}
        assert sum(route["weight"] for route in routes) == pytest.approx(100)
    assert shares(without_holdout(tables[-1])) == {"d@1": 100}
    # Back on the old model, both groups have it; the next one leaves those who are held out where they are.
    assert shares(tables[5]) == {"a@1": 100} and len(tables[5]) == 2


@given(st.lists(st.tuples(st.sampled_from(["a@1", "b@1", "c@1", "d@1"]), st.integers(1, 100)), min_size=2, max_size=6))
def test_whatever_is_deployed_everybody_has_a_model_and_the_holdout_its_share(steps: list[tuple[str, int]]) -> None:
    for routes in table(*steps):
        assert sum(route["weight"] for route in routes) == pytest.approx(100)
        assert min(route["weight"] for route in routes) > 0
        held = [route for route in routes if is_holdout(route)]
        assert sum(route["weight"] for route in held) in (0, pytest.approx(5))
        assert not held or routes[0] is held[0]


def test_the_old_models_server_is_kept_while_somebody_is_held_out_and_goes_with_the_holdout() -> None:
    spec = deployment_spec("desk", model_ref="desk@2", holdout={"percent": 10})
    assert target_of(spec, _Model(), 0).holdout == Holdout(percent=10)
    # A promotion and a rollback leave those who are held out where they are.
    assert spec.for_all_users("desk@3", "llama", "SFT").holdout == Holdout(percent=10)
    old = [{"backend_id": "old", "model_ref": "old@1", "weight": 100}]
    held = plan(target(holdout=Holdout(percent=10)), old, ["old"])
    assert held.retire == () and shares(held.routes) == {"old@1": 10, "desk@2": 90}
    assert alias_moves("production", held.routes) == "desk@2"
    over = plan(target(), held.routes, ["old", *held.serve])
    assert over.retire == ("old",) and shares(over.routes) == {"desk@2": 100}


def test_the_model_before_is_not_the_one_that_some_are_held_out_on() -> None:
    tables = table(("a@1", 100), ("b@1", 100), ("c@1", 100))

    class Standing:
        spec = deployment_spec("desk", model_ref="c@1")
        routes = tables[-1]

    assert previous_model(Standing, dict(enumerate(tables))) == "b@1"


def test_the_next_test_has_other_users_on_its_treatment_and_nobody_moves_in_between() -> None:
    """Else who met a bad model would meet every later one first, with the grudge of before."""
    steps = [("a@1", 100), ("b@1", 20), ("b@1", 50), ("a@1", 100), ("c@1", 20), ("c@1", 50), ("c@1", 100), ("d@1", 50)]
    for holdout in (None, HOLDOUT):
        tables = table(*steps, holdout=holdout)
        users = range(4000)
        of = [{u for u in users if model_of(t, u) == (ref, False)} for t, (ref, _) in zip(tables, steps, strict=True)]
        # Ramps move users one way only, within a test.
        assert of[1] < of[2] and of[4] < of[5]
        others = {u for u in users if not model_of(tables[5], u)[1]}
        share = len(of[2] & of[5]) / len(of[5])
        assert share == pytest.approx(len(of[2] & others) / len(others), abs=0.04)
        assert len(of[5]) / len(others) == pytest.approx(0.5, abs=0.03)
        assert len(of[5] & of[7]) / len(of[7]) == pytest.approx(0.5, abs=0.04)
        if holdout is not None:
            held = [{u for u in users if model_of(t, u)[1]} for t in tables[1:]]
            assert all(one == held[0] for one in held) and len(held[0]) / 4000 == pytest.approx(0.05, abs=0.015)
    # A first test is drawn as ever: what is in the catalog of before means the same.
    first = table(("a@1", 100), ("b@1", 50), holdout=None)[-1]
    assert "draw" not in first[0] and assign("salt", "u", [50, 50]) == assign_anew(
        "salt", "u", [50, 50], [False] * 2, 0
    )


def test_a_holdout_by_name_is_one_that_users_have() -> None:
    before = table(("a@1", 100), ("b@1", 50), holdout=None)[-1]
    held = planned(new("c@1"), 100, before, holdout=Holdout(percent=5, model_ref="a@1"))
    assert [route["model_ref"] for route in held] == ["a@1", "c@1"]
    with pytest.raises(NotServed, match=r"z@1 cannot be kept for 5 % of the users.*they have a@1, b@1"):
        planned(new("c@1"), 100, before, holdout=Holdout(percent=5, model_ref="z@1"))
    # Another name moves those who are held out to it, and says so in the routes.
    moved = planned(new("d@1"), 100, held, holdout=Holdout(percent=5, model_ref="c@1"))
    assert [route["model_ref"] for route in moved] == ["c@1", "d@1"]


def test_several_models_keep_users_beside_the_new_one_in_equal_parts() -> None:
    tables = table(("a@1", 100), ("b@1", 50), ("c@1", 34), keep_models=2, holdout=None)
    assert shares(tables[-1]) == {"a@1": 33, "b@1": 33, "c@1": 34}
    assert [route["model_ref"] for route in tables[-1]] == ["a@1", "b@1", "c@1"]
    third = planned(new("d@1"), 25, tables[-1], keep_models=2)
    assert shares(third) == {"a@1": 37.5, "c@1": 37.5, "d@1": 25}
    held = planned(new("c@1"), 34, tables[1], keep_models=2, holdout=Holdout(percent=10, model_ref="a@1"))
    assert [round(route["weight"], 6) for route in held] == [10, 29.7, 29.7, 30.6]


class _Model:
    ref, path, content_hash = "desk@2", "/models/desk", "c0ffee"
