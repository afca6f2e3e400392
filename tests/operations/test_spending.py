"""What was used costs what the policy says, and an improvement what all that was tried for it took."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.cli import app, common, guard
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.reviews import feedback_dataset, review
from llmops_assets.operations.spending import improvements, spending_by
from llmops_assets.partitions import endpoints
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import Metric
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.prices import Prices
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.usage.assets import usage_report
from llmops_assets.usage.price import Candidate, Spending, improvement
from llmops_assets.usage.regression import growth, pass_rates, plot
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound, Used
from tests.evaluation.test_beats_base import record as evaluated
from tests.operations.test_retrainings import register
from tests.operations.test_reviews import rating, said
from tests.resources.samples import deployment, experiment
from tests.training.conftest import sft_spec
from tests.training.test_job_verdicts import trained

PRICES = Prices(gpu_hour=2, cpu_hour=0.5, gpu_watts=360, cpu_watts=0, kwh=0.1, human_hour=30, million_tokens=3)
SPEC = TrainJobSpec.model_validate({**sft_spec("hf:/models/x"), "dataset_ref": "desk@v1"})
NAME = SPEC.output.artifact_name


def test_a_cost_is_hours_people_energy_and_tokens():
    spent = Spending(requests=9, tokens=2_000_000, gpu_seconds=7200, cpu_seconds=3600, human_minutes=10)
    assert spent.kwh(PRICES) == pytest.approx(0.72)
    assert spent.cost(PRICES) == pytest.approx(2 * 2 + 0.5 + 5 + 0.072 + 6)
    assert Spending().cost(PRICES) == 0 and (spent + Spending(tokens=1)).tokens == 2_000_001


def test_the_interval_of_a_price_is_that_of_the_gain_turned_round():
    tried = [Candidate("a|r", "promote", Spending(gpu_seconds=3600)), Candidate("b|r", "withheld", Spending())]
    found = improvement("ab", "m@2", (0.2, 0.1, 0.4), tried, Spending(human_minutes=20), PRICES)
    assert found.cost == pytest.approx(2 + 10 + 0.036)
    assert (found.price, found.price_low, found.price_high) == pytest.approx((60.18, 30.09, 120.36))
    # A gain that may be nothing has a price without an upper bound, and one that is a loss has none.
    unsure = improvement("ab", "m@2", (0.1, -0.1, 0.3), tried, Spending(), PRICES)
    assert unsure.price_high is None and unsure.price_low is not None
    assert improvement("ab", "m@2", (-0.2, -0.3, -0.1), tried, Spending(), PRICES).price is None


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    """Two trainings of one model, one of them registered, an endpoint with traffic, a review and a promotion."""
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    w = Wiring(Settings(_env_file=None))
    prepare_home(w.settings)
    w.catalog.want_endpoint(deployment())
    w.catalog.add_recipe(SPEC.recipe_key(), SPEC.recipe())
    for version, seconds in (("v1", 1800.0), ("v2", 600.0), ("v3", 0.0)):
        register(w, version)
        w.catalog.request_training(f"desk@{version}", SPEC.recipe_key(), "kim")
        if seconds:
            adapter = trained().model_copy(update={"seconds": seconds, "dataset": f"desk@{version}"})
            w.records.save(f"desk@{version}|{SPEC.recipe_key()}", adapter)
    registered = {"dataset": "desk@v1", "recipe": SPEC.recipe_key(), "name": NAME, "version": 2, "path": "/m"}
    registered |= {"content_hash": "h", "family": "llama", "job_type": "SFT", "mlflow_run_id": None, "card": ""}
    w.records.save(f"desk@v1|{SPEC.recipe_key()}", RegisteredModelRecord(**registered))
    w.catalog.add_traffic([said(0)], [rating(0, 1, correction="맞는 답")])
    review(w, "lee", "req-0", "accept")
    w.catalog.usage.add([Used("2026-11-30", "k1", "ops", "desk", f"{NAME}@1", 3, 0, 1000, 234)])
    w.catalog.create_experiment(experiment(control=f"{NAME}@1", treatment=f"{NAME}@2"))
    figures = {"rating_difference": 0.5, "rating_low": 0.25, "rating_high": 0.75}
    w.catalog.decide_experiment("base-or-tuned", "promote", "better", figures)
    return w


def test_an_improvement_costs_what_was_tried_for_it_failed_candidates_included(wiring):
    (found,) = improvements(wiring, "kim", "desk")
    outcomes = {one.cell.partition("|")[0]: one.outcome for one in found.candidates}
    assert outcomes == {"desk@v1": "promote", "desk@v2": "withheld", "desk@v3": "failed"}
    prices = wiring.policy.prices
    hours = 2400 / 3600
    people = prices.review_minutes / 60 * prices.human_hour
    expected = hours * (prices.cpu_hour + prices.cpu_watts / 1000 * prices.kwh) + people
    assert found.cost == pytest.approx(expected) and found.price == pytest.approx(expected / 0.5)
    assert (found.price_low, found.price_high) == pytest.approx((expected / 0.75, expected / 0.25))


def test_what_an_earlier_promotion_cost_is_not_counted_again(wiring):
    wiring.catalog.create_experiment(experiment("second", control=f"{NAME}@2", treatment=f"{NAME}@3"))
    figures = {"rating_difference": 0.1, "rating_low": 0.05, "rating_high": 0.2}
    wiring.catalog.decide_experiment("second", "promote", "better", figures)
    first, second = improvements(wiring, "kim", "desk")
    assert len(first.candidates) == 3 and second.candidates == () and second.cost == 0


def test_spending_is_added_up_by_what_one_asks_for(wiring):
    by_model = {row["model"]: row for row in spending_by(wiring, "kim", ["model"])}
    assert by_model[f"{NAME}@1"]["tokens"] == 1234 and by_model[f"{NAME}@1"]["requests"] == 3
    assert by_model[f"{NAME}@2"]["cpu_seconds"] == 1800 and by_model[f"{NAME}@2"]["cost"] > 0
    assert by_model[f"desk@v2|{SPEC.recipe_key()}"]["cpu_seconds"] == 600
    assert by_model["base@1"]["human_minutes"] == wiring.policy.prices.review_minutes
    (total,) = spending_by(wiring, "kim", [])
    assert total["cost"] == pytest.approx(sum(row["cost"] for row in by_model.values()))
    days = spending_by(wiring, "kim", ["day", "endpoint", "team"], since="2026-11-30", until="2026-11-30")
    assert any((row["day"], row["endpoint"], row["team"]) == ("2026-11-30", "desk", "ops") for row in days)
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date().isoformat()
    assert spending_by(wiring, "kim", ["day"], since=tomorrow) == []


def test_who_may_not_see_usage_sees_no_spending(wiring):
    for ask in (lambda who: spending_by(wiring, who, ["model"]), lambda who: improvements(wiring, who, "desk")):
        with pytest.raises(Forbidden):
            ask(Actor("lee", ["viewer"]))
    with pytest.raises(Refused, match="choose of day"):
        spending_by(wiring, "kim", ["key"])
    with pytest.raises(NotFound):
        improvements(wiring, "kim", "gone")


def test_the_command_shows_both(wiring, capsys):
    common.wiring.cache_clear()
    capsys.readouterr()
    assert guard(lambda: app(["usage", "--cost", "--by", "model", "--json"], standalone_mode=False)) == 0
    assert {row["model"] for row in json.loads(capsys.readouterr().out)} >= {f"{NAME}@1", f"{NAME}@2"}
    assert guard(lambda: app(["usage", "--price", "desk", "--json"], standalone_mode=False)) == 0
    assert json.loads(capsys.readouterr().out)[0]["experiment"] == "base-or-tuned"
    assert guard(lambda: app(["usage", "--price", "desk"], standalone_mode=False)) == 0
    assert "+0.500" in capsys.readouterr().out


def test_a_training_that_found_all_done_took_nothing(wiring):
    cell = f"desk@v2|{SPEC.recipe_key()}"
    record = wiring.records.load(AdapterRecord, cell)
    wiring.records.save(cell, record.model_copy(update={"reused": True}))
    (found,) = improvements(wiring, "kim", "desk")
    assert {one.cell: one.spending.cpu_seconds for one in found.candidates}[cell] == 0


def test_the_page_of_an_endpoint_has_its_usage_and_prices(wiring):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(endpoints.name, ["desk"])
        resources = {name: getattr(wiring, name) for name in ("catalog", "records", "policy")}
        result = dg.materialize(
            [usage_report], partition_key="desk", instance=instance, resources=resources, selection=["usage_report"]
        )
    (event,) = result.asset_materializations_for_node("usage_report")
    shown = {name: value.value for name, value in event.metadata.items()}
    assert shown["tokens"] == 1234 and shown["plot"].startswith("![usage and prices](data:image/png")
    assert "desk@v2" in str(event.metadata["improvements"])


def test_the_suite_of_confirmed_failures_grows_and_models_are_held_against_it(wiring):
    made = feedback_dataset(wiring, "kim", endpoint="desk", name="own", version="v1", kind="eval_suite", owner="kim")
    assert growth(wiring.catalog, wiring.records, "desk") == []
    manifests = dict.fromkeys(("train", "validation", "test"), "m")
    rows = {"train": 0, "validation": 0, "test": 7}
    about = {"type": "eval_suite", "stratify_by": None, "group_by": None, "seed": 0, "data_hash": "d"}
    key = made.registered.key
    wiring.records.save(key, SplitsRecord(dataset=key, manifests=manifests, rows=rows, **about))
    suites = growth(wiring.catalog, wiring.records, "desk")
    assert [(one.key, one.items) for one in suites] == [("own@v1", 7)]
    assert growth(wiring.catalog, wiring.records, "other") == []
    metric = Metric(suite="own@v1", name="accuracy", value=0.5, low=0.2, high=0.8, n=7)
    for version, share in (("v2", 0.9), ("v1", 0.5)):
        figures = evaluated(metric.model_copy(update={"value": share, "high": 0.95}))
        cell = {"dataset": f"desk@{version}", "recipe": SPEC.recipe_key()}
        wiring.records.save("|".join(cell.values()), figures.model_copy(update=cell))
    passed = pass_rates(wiring.catalog, wiring.records, suites)
    assert [(one.cell.partition("|")[0], one.share) for one in passed] == [("desk@v1", 0.5), ("desk@v2", 0.9)]
    assert len(plot(suites, passed).axes) == 2
