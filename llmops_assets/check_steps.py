"""Evaluates the checks of an asset in one step of a run: each step takes Dagster a tenth of a second."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import dagster as dg

_FUNCTIONS: WeakKeyDictionary[dg.OpDefinition, Callable[..., dg.AssetCheckResult]] = WeakKeyDictionary()
"""The function of each check by its op, which a definition keeps whatever else is changed of it."""


def asset_check(
    **options: Any,
) -> Callable[[Callable[..., dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Dagster's `asset_check` with these options, of a check that may be evaluated in one step with others."""

    def define(function: Callable[..., dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        check = dg.asset_check(**options)(function)
        _FUNCTIONS[check.op] = function
        return check

    return define


class NotEvaluated(RuntimeError):
    """Checks that raised instead of answering; the message names each and what it raised."""


def by_asset(checks: Iterable[dg.AssetChecksDefinition]) -> list[dg.AssetChecksDefinition]:
    """The same checks, those of an asset that block in one step and those that don't in another.

    The checks are those of `asset_check` here. Each keeps its name, its severity, what it blocks and its place on the
    asset's page, and can be run alone. Where one raises, the others of its step are evaluated all the same before the
    step fails.
    """
    groups: dict[tuple[dg.AssetKey, bool], list[dg.AssetChecksDefinition]] = defaultdict(list)
    for check in checks:
        (spec,) = check.check_specs
        groups[spec.asset_key, spec.blocking].append(check)
    return [_as_one(*key, group) if len(group) > 1 else group[0] for key, group in groups.items()]


def _as_one(asset: dg.AssetKey, blocking: bool, group: list[dg.AssetChecksDefinition]) -> dg.AssetChecksDefinition:
    resources: dict[dg.AssetCheckKey, list[str]] = {}
    functions: dict[dg.AssetCheckKey, Any] = {}
    for check in group:
        (key,) = check.check_keys
        functions[key] = _FUNCTIONS[check.op]
        _, *resources[key] = inspect.signature(functions[key]).parameters

    @dg.multi_asset_check(
        name=f"{asset.to_python_identifier()}_{'checks' if blocking else 'remarks'}",
        description=f"{'What must hold' if blocking else 'What is looked at'} of `{asset.to_user_string()}`.",
        specs=[spec for check in group for spec in check.check_specs],
        required_resource_keys={name for names in resources.values() for name in names},
        can_subset=True,
    )
    def checks(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        errors: list[tuple[str, Exception]] = []
        for key in (key for key in functions if key in context.selected_asset_check_keys):
            needed = {name: getattr(context.resources, name) for name in resources[key]}
            try:
                result = functions[key](context, **needed)
            except Exception as error:  # noqa: BLE001  the others are to be evaluated first
                errors.append((key.name, error))
            else:
                yield dg.AssetCheckResult(
                    passed=result.passed,
                    asset_key=key.asset_key,
                    check_name=key.name,
                    metadata=result.metadata,
                    severity=result.severity,
                    description=result.description,
                )
        if errors:
            words = "; ".join(f"{name}: {type(error).__name__} {error}" for name, error in errors)
            raise NotEvaluated(f"checks of {asset.to_user_string()} could not be evaluated: {words}") from errors[0][1]

    return checks
