"""Checks of one asset share a step, and nothing about them is otherwise than if each had its own."""

import dagster as dg
import pytest

from llmops_assets.check_steps import asset_check, by_asset
from llmops_assets.definitions import defs
from llmops_assets.evaluation import checks as evaluation_checks
from llmops_assets.training import checks as training_checks

KEYS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(partitions_def=KEYS)
def rows() -> int:
    return 1


@dg.asset(partitions_def=KEYS, deps=[rows])
def model() -> int:
    return 2


def check_of(name: str, answer: bool | None, *, blocking: bool = True) -> dg.AssetChecksDefinition:
    """A check that answers so, with the resource `limit`; None raises."""

    @asset_check(asset=rows, name=name, blocking=blocking, partitions_def=KEYS, description=f"About {name}.")
    def check(context: dg.AssetCheckExecutionContext, limit: dg.ResourceParam[int]) -> dg.AssetCheckResult:
        if answer is None:
            raise LookupError(f"no record of {context.partition_key}")
        warn = dg.AssetCheckSeverity.WARN if not blocking else dg.AssetCheckSeverity.ERROR
        return dg.AssetCheckResult(passed=answer, description=f"at most {limit}", severity=warn, metadata={"n": 3})

    return check


def run(*checks: dg.AssetChecksDefinition, only: str | None = None) -> dg.ExecuteInProcessResult:
    every = dg.AssetSelection.assets(rows, model)
    selection = every if only is None else dg.AssetSelection.checks(dg.AssetCheckKey(rows.key, only))
    job = dg.define_asset_job("job", selection=selection)
    graph = dg.Definitions(
        assets=[rows, model], asset_checks=by_asset(checks), jobs=[job], resources={"limit": 7},
        executor=dg.in_process_executor,
    )  # fmt: skip
    return graph.resolve_job_def("job").execute_in_process(
        raise_on_error=False,
        partition_key="a" if only is None else None,
        tags={"dagster/partition": "a"} if only is not None else None,
    )


def evaluated(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def steps(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.step_key for event in result.all_events if event.is_step_start}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return event.step_failure_data.error.to_string()


def test_all_are_evaluated_in_one_step_as_each_was_written() -> None:
    result = run(check_of("whole", True), check_of("few", True), check_of("noted", False, blocking=False))
    assert result.success and steps(result) == {"rows", "rows_checks", "rows_noted", "model"}
    found = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert {n: (e.passed, e.blocking, e.severity.value) for n, e in found.items()} == {
        "whole": (True, True, "ERROR"), "few": (True, True, "ERROR"), "noted": (False, False, "WARN"),
    }  # fmt: skip
    assert found["few"].description == "at most 7" and found["few"].metadata["n"].value == 3
    assert {e.partition for e in found.values()} == {"a"}


def test_one_that_fails_holds_what_comes_after_and_the_others_are_evaluated() -> None:
    result = run(check_of("first", False), check_of("second", True), check_of("third", False))
    assert evaluated(result) == {"first": False, "second": True, "third": False}
    assert not result.success and "model" not in steps(result) and "first,third" in failure(result)


def test_one_that_raises_holds_what_comes_after_and_the_others_are_evaluated() -> None:
    result = run(check_of("first", None), check_of("second", False), check_of("third", None))
    assert evaluated(result) == {"second": False}
    assert not result.success and "model" not in steps(result)
    said = failure(result)
    both = ("first", "third")
    assert all(f"{name}: LookupError no record of a" in said for name in both) and "checks of rows" in said


def test_remarks_that_raise_hold_nothing() -> None:
    noted = [check_of(name, None, blocking=False) for name in ("noted", "aside")]
    result = run(check_of("whole", True), check_of("few", True), *noted)
    assert evaluated(result) == {"whole": True, "few": True} and "model" in steps(result)


def test_one_can_be_asked_alone() -> None:
    result = run(check_of("whole", True), check_of("few", False), only="whole")
    assert result.success and evaluated(result) == {"whole": True}


@pytest.mark.parametrize("module", [training_checks, evaluation_checks])
def test_the_graph_has_every_check_as_its_module_wrote_it(module: object) -> None:
    graph = defs.resolve_asset_graph()
    for check in dg.load_asset_checks_from_modules([module]):  # type: ignore[list-item]
        for spec in check.check_specs:
            node = graph.get(spec.key)
            assert (node.blocking, node.description, node.partitions_def) == (
                spec.blocking, spec.description, spec.partitions_def,
            )  # fmt: skip
