"""`ab_report` in a real Dagster instance over a real catalog: the report, its checks, and the decision written once."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from llmops_assets.experiments.assets import ab_report
from llmops_assets.experiments.checks import guardrails, no_sample_ratio_mismatch, sticky_assignment
from llmops_assets.partitions import experiments
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from resources.records import Records
from resources.tracking import Tracking
from tests.experiments.traffic import CONTROL, TREATMENT, routes, spec, traffic

NAME = "base-or-tuned"


class Stack:
    """A catalog with a running experiment, and a Dagster instance to report on it."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.catalog = Catalog(f"sqlite:///{folder}/catalog.db")
        self.records = Records(folder / "records")
        self.tracking = Tracking(f"sqlite:///{folder / 'mlflow.db'}")
        for ref in (CONTROL, "desk-tuned@1", TREATMENT):
            model = folder / ref
            model.mkdir()
            lineage = {"dataset": "desk@v1", "recipe": "r-1", "content_hash": ref}
            tags = lineage | {"family": "llama", "job_type": "SFT", "state": "approved"}
            self.tracking.register(ref.partition("@")[0], model, None, tags)
        self.instance = instance
        deployment = {
            "model_ref": CONTROL,
            "model_family": "llama",
            "job_type": "SFT",
            "serve_target": "GENERATION",
            "endpoint": "desk",
            "environment": "dev",
            "resources": {"gpus": 0},
        }
        self.catalog.want_endpoint(DeploymentSpec.model_validate(deployment))
        self.phase = self.catalog.set_routes("desk", routes())
        self.catalog.create_experiment(spec())
        instance.add_dynamic_partitions(experiments.name, [NAME])

    def log(self, exposures: pl.DataFrame, feedback: pl.DataFrame) -> None:
        self.catalog.add_traffic(exposures.to_dicts(), feedback.to_dicts())

    def report(self) -> tuple[AbReportRecord, dg.ExecuteInProcessResult]:
        result = dg.materialize(
            [ab_report, no_sample_ratio_mismatch, sticky_assignment, guardrails],
            partition_key=NAME,
            instance=self.instance,
            resources={
                "catalog": self.catalog,
                "records": self.records,
                "tracking": self.tracking,
                "policy": load_policy(),
            },
        )
        return self.records.load(AbReportRecord, NAME), result


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Stack(tmp_path, instance)


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def recent(users: int, **changes) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Traffic of users who all came a second ago: their rating windows are open."""
    return traffic(users, start=datetime.now(UTC) - timedelta(seconds=1), gap=timedelta(0), **changes)


def test_a_new_experiment_has_a_report_that_says_what_is_missing(stack: Stack) -> None:
    record, result = stack.report()
    assert record.decision == "continue"
    assert "200 each are needed" in record.reason
    assert checks(result) == {"no_sample_ratio_mismatch": True, "sticky_assignment": True, "guardrails": True}
    assert stack.catalog.experiment(NAME).decision is None


def test_the_report_shows_figures_and_pictures(stack: Stack) -> None:
    stack.log(*recent(30))
    record, result = stack.report()
    metadata = result.asset_materializations_for_node("ab_report")[0].metadata
    assert record.users["control"] + record.users["treatment"] == 30
    assert metadata["difference over users"].value.startswith("![")
    assert metadata["ratings"].value.startswith("![")
    assert "mean rating" in [row.data["figure"] for row in metadata["figures"].records]


def test_a_decision_is_written_once_and_kept(stack: Stack) -> None:
    stack.log(*recent(60, failed=(0.0, 0.95)))
    record, result = stack.report()
    assert record.decision == "rollback"
    entry = stack.catalog.experiment(NAME)
    assert (entry.decision, entry.reason, entry.state) == ("rollback", record.reason, "concluded")
    assert entry.figures == record.figures
    assert checks(result)["no_sample_ratio_mismatch"]

    stack.log(*recent(60, first_user=1000, seed=1))
    again, _ = stack.report()
    assert (again.decision, again.reason) == (record.decision, record.reason)
    assert again.decided_at == entry.decided_at
    assert sum(again.users.values()) > sum(record.users.values())
    assert stack.catalog.experiment(NAME) == entry


def test_a_decision_by_hand_stands(stack: Stack) -> None:
    stack.catalog.decide_experiment(NAME, "inconclusive", "stopped by hand", {}, actor="someone")
    stack.log(*recent(60, failed=(0.0, 0.95)))
    record, _ = stack.report()
    assert (record.decision, record.reason) == ("inconclusive", "stopped by hand")


def test_lost_users_fail_the_check_and_end_the_experiment(stack: Stack) -> None:
    exposures, feedback = recent(1200, requests=1, response_rate=0)
    number = pl.col("user").str.strip_prefix("user-").cast(pl.Int64)
    stack.log(exposures.filter(~((pl.col("variant") == 1) & (number % 4 == 0))), feedback)
    record, result = stack.report()
    assert record.decision == "invalid"
    assert checks(result) == {"no_sample_ratio_mismatch": False, "sticky_assignment": True, "guardrails": True}


def test_the_same_data_have_the_same_data_version(stack: Stack) -> None:
    stack.log(*recent(30))
    versions = set()
    for _ in range(2):
        _, result = stack.report()
        versions.add(result.asset_materializations_for_node("ab_report")[0].tags["dagster/data_version"])
    assert len(versions) == 1
