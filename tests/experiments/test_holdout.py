"""The users who are held out: no part of any test, and what the others' models gained over theirs."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from llmops_assets.experiments import holdout
from llmops_assets.experiments.assignment import assign
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from tests.experiments.traffic import CONTROL, START, TREATMENT, spec, traffic
from tests.serving.conftest import deployment_spec

POLICY = load_policy().experiments
OLD = "desk-old@1"
LATER = START + timedelta(days=40)


def route(ref: str, weight: float, **more) -> dict:
    return {"backend_id": f"b-{ref}", "model_ref": ref, "weight": weight, **more}


HELD = route(OLD, 20, holdout=True)


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.want_endpoint(deployment_spec("desk"))
    return catalog


def ask(
    catalog: Catalog, table: list[dict], phase: int, levels: dict[str, float], users: range, experiment=None
) -> None:
    weights = [r["weight"] for r in table]
    for variant, one in enumerate(table):
        level = levels[one["model_ref"]]
        exposures, feedback = traffic(
            len(users),
            levels=(level, level),
            first_user=users.start,
            phase=phase,
            requests=2,
            seed=phase * 10 + variant,
        )
        mine = [f"user-{u}" for u in users if assign("salt", f"user-{u}", weights) == variant]
        exposures = exposures.filter(pl.col("user").is_in(mine)).with_columns(
            pl.lit(variant).cast(pl.Int64).alias("variant"),
            pl.lit(experiment, pl.String).alias("experiment"),
            pl.lit(one["model_ref"]).alias("model_ref"),
            (pl.col("at") + timedelta(days=phase)).alias("at"),
        )
        known = exposures.select("request_id")
        rated = feedback.join(known, on="request_id", how="semi").with_columns(pl.col("at") + timedelta(days=phase))
        catalog.add_traffic(exposures.to_dicts(), rated.to_dicts())


def test_without_a_holdout_there_is_no_gain_to_know(catalog: Catalog) -> None:
    assert holdout.gain(catalog, "desk", POLICY, LATER) is None
    catalog.set_routes("desk", [HELD, route(CONTROL, 80)])
    assert holdout.gain(catalog, "desk", POLICY, LATER) is None


def test_the_gain_is_over_all_that_was_served_since_experiments_included(catalog: Catalog) -> None:
    """Better and better models for the others, one of them by a test; those who were held out rate as ever."""
    levels = {OLD: 3.0, CONTROL: 3.4, TREATMENT: 4.0}
    first = [HELD, route(CONTROL, 80)]
    ask(catalog, first, catalog.set_routes("desk", first), levels, range(0, 500))
    second = [HELD, route(CONTROL, 40), route(TREATMENT, 40)]
    phase = catalog.set_routes("desk", second)
    catalog.create_experiment(spec(duration_hours=2000))
    ask(catalog, second, phase, levels, range(0, 900), experiment="base-or-tuned")
    third = [HELD, route(TREATMENT, 80)]
    ask(catalog, third, catalog.set_routes("desk", third), levels, range(900, 1500))
    found = holdout.gain(catalog, "desk", POLICY, LATER)
    figures = holdout.figures(found)
    assert figures["users_held_out"] + figures["other_users"] == 1500
    assert figures["low"] > 0.3 and figures["high"] < 1.1 and figures["srm_p"] > 0.01
    assert figures["users_who_moved"] == 0
    assert (figures["models_held_out"], figures["models_of_others"]) == ([OLD], [CONTROL, TREATMENT])
    assert f"on {OLD}" in holdout.sentence(found)


def test_who_is_held_out_takes_part_in_no_test(catalog: Catalog) -> None:
    """Also where the old model is the control: its users there are those who were drawn for the test."""
    from llmops_assets.experiments.running import status_of

    table = [route(CONTROL, 20, holdout=True), route(CONTROL, 40), route(TREATMENT, 40)]
    phase = catalog.set_routes("desk", table)
    catalog.create_experiment(spec(duration_hours=2000))
    ask(catalog, table, phase, {CONTROL: 3.6, TREATMENT: 3.6}, range(1000), experiment="base-or-tuned")
    found = replace(catalog.experiment("base-or-tuned"), started_at=START)
    analysis = status_of(found, catalog, POLICY, None, LATER - timedelta(days=20)).deciding
    expected = [sum(assign("salt", f"user-{u}", [20, 40, 40]) == n for u in range(1000)) for n in (1, 2)]
    assert [arm.users for arm in analysis.arms] == expected
    assert analysis.srm_p > 0.05 and analysis.other_requests > 0


def test_a_gain_on_a_broken_split_is_not_to_be_trusted(catalog: Catalog) -> None:
    table = [HELD, route(CONTROL, 80)]
    phase = catalog.set_routes("desk", table)
    ask(catalog, [HELD | {"weight": 45}, route(CONTROL, 55)], phase, {OLD: 3.0, CONTROL: 4.0}, range(600))
    assert "not to be trusted" in holdout.sentence(holdout.gain(catalog, "desk", POLICY, LATER))
