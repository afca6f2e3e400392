"""Registering evaluation suites, archiving them, and using them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.evaluation import formats, harness
from llmops_assets.evaluation.register import CASES, add_suite
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.suite import HarnessSpec, SuiteSpec
from llmops_assets.wiring import Wiring
from resources.catalog import pointers


@dataclass(frozen=True)
class SuiteState:
    """A suite that was archived or restored: whether that changed anything, and the job types that are asked it."""

    key: str
    changed: bool
    asked_of: tuple[str, ...]


@dataclass(frozen=True)
class RegisteredSuite:
    """A registered suite: whether this call made it, whether its items are there already, and what should be known."""

    key: str
    new: bool
    split: bool
    notes: tuple[str, ...] = ()


def register_suite(
    wiring: Wiring,
    actor: str,
    version: str,
    files: Sequence[Path],
    *,
    format: str,
    given: Mapping[str, Any],
    about: Mapping[str, Any],
) -> RegisteredSuite:
    """Register files as the suite `version` in a format: cases of one's own, a benchmark's, or lm-eval's.

    `given` are the settings of the suite that go before those of its format (None: as the format has it); `about` has
    owner, license and description. Raises Refused for an unknown format, Conflict for another suite of that version,
    SuiteFaults with every item that could not be asked or judged.
    """
    authorise(wiring, actor, "dataset.register")
    if format in formats.FORMATS:
        base = formats.FORMATS[format].spec
    elif format in (CASES, harness.FORMAT):
        base = SuiteSpec(format=format)
    else:
        raise Refused(f"there is no format {format!r}: known are cases, {', '.join(formats.FORMATS)}, lm-eval")
    settings = {name: value for name, value in given.items() if value is not None}
    if format == harness.FORMAT:
        # What lm-eval calls a metric is its own, and no further figure of ours.
        metric = settings.pop("metrics", [None])[0]
        settings["harness"] = HarnessSpec(config={}, metric=metric)
    spec = SuiteSpec.model_validate(base.model_dump() | settings)
    described = about.get("description") or f"{format} from {', '.join(path.name for path in files)}"
    registered, new, notes = add_suite(
        version,
        list(files),
        spec,
        {**about, "description": described},
        artifacts=wiring.artifacts,
        catalog=wiring.catalog,
        policy=wiring.policy,
        worker=wiring.trainer(),
        actor=actor,
        judge_given=format != CASES or "judge" in settings,
    )
    split = wiring.records.find(SplitsRecord, registered.key) is not None
    return RegisteredSuite(registered.key, new, split, notes)


def archive_suite(wiring: Wiring, actor: str, version: str) -> SuiteState:
    """Ask no new model the suite `version`; what was measured with it stays, and so do its rows.

    Raises NotFound for an unknown version, Refused for what is no suite, or was erased.
    """
    authorise(wiring, actor, "suite.archive")
    key = _suite(wiring, version)
    return _state(wiring, key, wiring.catalog.archive_suite(key, actor))


def restore_suite(wiring: Wiring, actor: str, version: str) -> SuiteState:
    """Ask new models an archived suite again. Raises as `archive_suite`."""
    authorise(wiring, actor, "suite.restore")
    key = _suite(wiring, version)
    return _state(wiring, key, wiring.catalog.restore_suite(key, actor))


def _suite(wiring: Wiring, version: str) -> str:
    key = pointers.resolve(wiring.catalog, version)
    entry = wiring.catalog.dataset_entry(key)
    if entry.spec.type != "eval_suite":
        raise Refused(f"{key} is a dataset of type {entry.spec.type}, and no suite")
    if entry.status == "erased":
        raise Refused(f"{key} was erased on a person's request")
    return key


def _state(wiring: Wiring, key: str, changed: bool) -> SuiteState:
    asked_of = (job for job, suites in wiring.policy.evaluation.suites.items() if key in suites)
    return SuiteState(key, changed, tuple(asked_of))
