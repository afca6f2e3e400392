"""Several treatments against one control at an endpoint: by Holm, each harmed arm alone, and the best one promoted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from llmops_assets.experiments.assignment import assign
from llmops_assets.experiments.checks import guardrails, no_sample_ratio_mismatch, sticky_assignment
from llmops_assets.experiments.decision import Decision, model_for
from llmops_assets.experiments.running import status_of
from llmops_assets.experiments.user_sums import UserSums, counted
from llmops_assets.experiments.verdicts import guardrail, sample_ratio
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.experiments import _model_of
from llmops_assets.records.experiments import AbReportRecord
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from tests.experiments.test_assets import NAME, Stack, checks
from tests.experiments.traffic import CONTROL, START, TREATMENT, spec, traffic

OTHER = "desk-other@1"
POLICY = load_policy().experiments
LATER = START + timedelta(hours=40)
ARMS = [CONTROL, TREATMENT, OTHER]


def several(**changes) -> ExperimentSpec:
    return spec(other_treatments=[OTHER], **changes)


def routes(weights: tuple[float, ...] = (33.4, 33.3, 33.3), models: list[str] = ARMS) -> list[dict]:
    return [{"backend_id": f"b-{m}", "model_ref": m, "weight": w} for m, w in zip(models, weights, strict=True)]


def log(
    catalog: Catalog,
    users: int,
    levels: dict[str, float],
    table: list[dict],
    *,
    start: datetime = START,
    failed: dict[str, float] | None = None,
    experiment: str = NAME,
) -> None:
    """Users who come 20 s apart and rate their model at its level; `failed` is the share of failures by model."""
    phase = catalog.endpoint("desk").phase
    for variant, route in enumerate(table):
        ref = route["model_ref"]
        share = (failed or {}).get(ref, 0.0)
        exposures, feedback = traffic(
            users, levels=(levels[ref],) * 2, failed=(share, share), start=start, requests=3, seed=variant
        )
        mine = [u for u in range(users) if assign("salt", f"user-{u}", [r["weight"] for r in table]) == variant]
        names = [f"user-{u}" for u in mine]
        exposures = exposures.filter(pl.col("user").is_in(names)).with_columns(
            pl.lit(variant).cast(pl.Int64).alias("variant"),
            pl.lit(ref).alias("model_ref"),
            pl.lit(experiment).alias("experiment"),
            pl.lit(phase).cast(pl.Int64).alias("phase"),
        )
        known = exposures.select("request_id")
        catalog.add_traffic(exposures.to_dicts(), feedback.join(known, on="request_id", how="semi").to_dicts())


@pytest.fixture
def catalog(tmp_path) -> Catalog:
    from tests.serving.conftest import deployment_spec

    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.want_endpoint(deployment_spec("desk"))
    catalog.set_routes("desk", routes())
    return catalog


def status(catalog: Catalog, now: datetime = LATER, **changes):
    catalog.create_experiment(several(**changes))
    found = replace(catalog.experiment(NAME), started_at=START)
    return status_of(found, catalog, POLICY, None, now)


def test_the_better_of_two_treatments_is_promoted_and_named(catalog: Catalog) -> None:
    log(catalog, 1200, {CONTROL: 3.0, TREATMENT: 3.5, OTHER: 4.2}, routes())
    found = status(catalog)
    assert found.decision.outcome == "promote" and found.decision.winner == OTHER
    assert [c.treatment for c in found.comparisons] == [OTHER, TREATMENT]
    assert "of 2 treatments, by Holm" in found.decision.reason
    assert model_for(found.decision, several()) == OTHER
    assert model_for(found.decision, several(auto_promote=False)) is None
    # The level of each is divided, then Holm's steps give the second its own back.
    assert {c.analysis.plan.alpha for c in found.comparisons} == {0.025, 0.05}


def test_one_that_does_harm_loses_its_users_and_the_others_go_on(catalog: Catalog) -> None:
    log(catalog, 900, {CONTROL: 3.6, TREATMENT: 3.6, OTHER: 2.4}, routes())
    found = status(catalog)
    assert found.decision.outcome == "continue"
    assert list(found.harmful) == [OTHER] and "does harm" in found.harmful[OTHER]
    catalog.dropped_arms.note(
        NAME, OTHER, endpoint="desk", phase=1, reason=found.harmful[OTHER], figures={}, actor="ab_report"
    )
    again = status(catalog)
    assert not again.harmful and list(again.dropped) == [OTHER] and again.decision.outcome == "continue"


def test_when_every_treatment_lost_its_users_the_test_is_over(catalog: Catalog) -> None:
    log(catalog, 900, {CONTROL: 4.0, TREATMENT: 2.6, OTHER: 2.6}, routes())
    found = status(catalog)
    assert found.decision.outcome == "rollback" and not found.harmful
    assert model_for(found.decision, several()) == CONTROL


def test_a_failing_arm_trips_alone(catalog: Catalog) -> None:
    log(catalog, 120, dict.fromkeys(ARMS, 3.6), routes(), failed={OTHER: 0.9})
    found = status(catalog)
    assert found.decision.outcome == "continue" and list(found.harmful) == [OTHER]
    assert f"requests to {OTHER} failed" in found.harmful[OTHER]


def test_lost_users_of_one_arm_are_found_against_the_control(catalog: Catalog) -> None:
    table = routes()
    log(catalog, 2400, dict.fromkeys(ARMS, 3.6), [*table[:2], table[2] | {"weight": 23.0}])
    found = status(catalog)
    assert found.decision.outcome == "invalid" and "sample ratio mismatch" in found.decision.reason
    assert OTHER in found.decision.reason


def test_the_report_and_its_checks_show_every_arm(tmp_path) -> None:
    import dagster as dg

    with dg.DagsterInstance.ephemeral() as instance:
        stack = Stack(tmp_path, instance)
        stack.catalog.decide_experiment(NAME, "inconclusive", "another design", {}, actor="someone")
        stack.catalog.mark_acted(NAME)
        (tmp_path / OTHER).mkdir()
        tags = {"dataset": "desk@v1", "recipe": "r-1", "content_hash": OTHER, "family": "llama", "job_type": "SFT"}
        stack.tracking.register("desk-other", tmp_path / OTHER, None, tags | {"state": "approved"})
        stack.phase = stack.catalog.set_routes("desk", routes())
        stack.catalog.create_experiment(several(name="three"))
        now = datetime.now(UTC)
        log(stack.catalog, 150, dict.fromkeys(ARMS, 3.6), routes(), start=now, failed={OTHER: 0.8}, experiment="three")
        record, result = report_of(stack, instance, "three")
    assert record.decision == "continue"
    others = {TREATMENT, OTHER} - {record.figures["plan"]["treatment"]}
    assert set(record.users) == {"control", "treatment"} | others
    assert set(record.figures["comparisons"]) == {TREATMENT, OTHER}
    assert record.figures["comparisons"][OTHER]["dropped"]
    assert not record.figures["comparisons"][TREATMENT]["dropped"]
    verdict = guardrail(record, "failed_requests")
    assert not verdict.passed and verdict.text.startswith(OTHER)
    assert checks(result)["no_sample_ratio_mismatch"]
    assert list(stack.catalog.dropped_arms.of("three")) == [OTHER]
    assert stack.catalog.experiment("three").decision is None


def report_of(stack: Stack, instance, name: str):
    import dagster as dg

    from llmops_assets.experiments.assets import ab_report
    from llmops_assets.partitions import experiments
    from llmops_assets.records.experiments import AbReportRecord

    instance.add_dynamic_partitions(experiments.name, [name])
    result = dg.materialize(
        [ab_report, no_sample_ratio_mismatch, sticky_assignment, guardrails],
        partition_key=name,
        instance=instance,
        resources={
            "catalog": stack.catalog,
            "records": stack.records,
            "tracking": stack.tracking,
            "policy": load_policy(),
        },
    )
    return stack.records.load(AbReportRecord, name), result


def test_the_spec_of_several() -> None:
    made = several()
    assert made.split == (34, 33, 33) and made.treatments == (TREATMENT, OTHER) and made.models[0] == CONTROL
    assert spec().split == (50, 50) and several(split=(60, 20, 20)).weights == (0.6, 0.2, 0.2)
    for changes, words in (
        ({"split": (50, 50)}, "2 shares for a control and 2 treatments"),
        ({"split": (50, 30, 30)}, "50 \\+ 30 \\+ 30 is 110"),
    ):
        with pytest.raises((SpecError, ValueError), match=words):
            several(**changes)
    with pytest.raises((SpecError, ValueError), match="takes part already"):
        spec(other_treatments=[TREATMENT])
    with pytest.raises((SpecError, ValueError), match="3 shares for a control and a treatment"):
        spec(split=(40, 30, 30))


def test_a_person_names_the_winner_of_several() -> None:
    assert _model_of(several(), OTHER) == OTHER and _model_of(several(), "control") == CONTROL
    assert _model_of(spec(), "treatment") == TREATMENT
    with pytest.raises(Refused, match="has several treatments"):
        _model_of(several(), "treatment")
    with pytest.raises(Refused, match="takes no part"):
        _model_of(several(), "desk-base@9")


def test_a_decision_of_before_is_never_taken_back(catalog: Catalog) -> None:
    log(catalog, 900, {CONTROL: 3.6, TREATMENT: 3.6, OTHER: 2.4}, routes())
    catalog.create_experiment(several())
    made = Decision("promote", "by hand", LATER, TREATMENT)
    found = status_of(catalog.experiment(NAME), catalog, POLICY, made, LATER)
    assert found.decision == made and not found.harmful


def test_the_split_of_a_model_that_lost_its_users_is_not_tested() -> None:
    """The control alone meets new ones from then on, which is no loss of anybody's."""
    arms = {name: {"users": users} for name, users in (("control", 900), ("treatment", 300))}
    figures = {"srm_p": 1e-9, "srm_fixed_p": 1e-9, "plan": {"srm_p": 0.001}, "arms": arms}
    quiet = figures | {"srm_p": 0.6, "srm_fixed_p": 0.6}
    values = {
        "experiment": NAME,
        "decision": "continue",
        "reason": "",
        "users": {},
        "exposures": {},
        "decided_at": None,
    }
    for dropped in (True, False):
        several = {OTHER: figures | {"dropped": dropped}, TREATMENT: quiet | {"dropped": False}}
        record = AbReportRecord(**values, figures=quiet | {"comparisons": several})
        assert sample_ratio(record).passed is dropped
        assert sample_ratio(AbReportRecord(**values, figures=figures | {"dropped": dropped})).passed is dropped


def test_who_comes_from_another_treatment_brings_it_along() -> None:
    """In phase 2 they have the treatment that is compared: to count them from there on would be carry-over."""
    frame = pl.DataFrame(
        {
            "user": ["moved", "moved", "new", "old"],
            "phase": [1, 2, 2, 1],
            "arm": [2, 1, 1, 0],
            "first_at": [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 3, 3, 1)],
        }
    )
    sums = UserSums.of(frame)
    assert sums.arms(0, 1).frame["arm"].to_list() == [2, 1, 1, 0]
    assert sums.arms(2, 1).frame["arm"].to_list() == [0, 1, 1, 2]
    found = counted(sums.arms(0, 1))
    assert sorted(found.rows["user"]) == ["new", "old"]
    assert (found.inconstant, found.movers) == (0, 1)
