"""Which alias of the registry follows what users get."""

import pytest

from llmops_assets.serving.rollout import alias_moves

ALL, BOTH = [{"model_ref": "desk@2", "weight": 100}], [{"model_ref": f"desk@{n}", "weight": 50} for n in (1, 2)]


@pytest.mark.parametrize(
    ("environment", "routes", "moved"),
    [("production", ALL, "desk@2"), ("staging", ALL, "desk@2"), ("dev", ALL, None), ("production", BOTH, None)],
)
def test_an_alias_moves_to_the_model_that_has_all_users(environment, routes, moved):
    assert alias_moves(environment, routes) == moved
