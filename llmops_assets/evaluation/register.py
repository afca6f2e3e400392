"""Registers a suite: the user's files become rows, and the rows a dataset version of type eval_suite."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from upath import UPath

from llmops_assets.datasets.versions.register import find_files, is_registered, register
from llmops_assets.evaluation import formats, harness, published
from llmops_assets.evaluation.answers import Worker
from llmops_assets.evaluation.registration import SuiteFaults, checked
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.names import split_versioned
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.suite import SuiteSpec
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Conflict, NotFound

CASES = "cases"
"""Format of a user's own test cases: any file of conversations that `llmops dataset add` reads."""


def add_suite(
    key: str,
    files: Sequence[Path],
    suite: SuiteSpec,
    about: dict[str, Any],
    *,
    artifacts: Artifacts,
    catalog: Catalog,
    policy: Policy,
    worker: Worker,
    actor: str,
    judge_given: bool = True,
) -> tuple[DatasetSpec, bool, tuple[str, ...]]:
    """Register `files` as the suite `key` (NAME@VERSION), in the format that `suite` names; whether it is new, and what
    should be known of it.

    `about` has owner, description and license. The same files and the same `suite` are accepted again. Where no judge
    was given (`judge_given`), the rows may tell it. Raises Conflict for another `suite` under a known version,
    FormatError for files that are not in their format, SuiteFaults for items that cannot be asked or judged.
    """
    name, version = split_versioned(key)
    work = Path(tempfile.mkdtemp(prefix="llmops-suite-"))
    # What is converted is plain text until it is registered: it is kept off the disk.
    memory = UPath(f"memory://{work.name}")
    try:
        converted, suite = _converted(name, files, suite, worker, work, memory)
        spec = DatasetSpec.model_validate(
            {
                "name": name,
                "version": version,
                "type": "eval_suite",
                "files": [str(path) for path in files],
                "suite": suite.model_dump(mode="json"),
                "split": {"ratios": (0.0, 0.0, 1.0)},
                **about,
            }
        )
        spec, notes = asked_and_judged(spec, converted, catalog, policy, judge_given=judge_given)
        _refuse_another(catalog, spec)
        new = register(spec, converted, artifacts=artifacts, catalog=catalog, policy=policy, actor=actor)
        return spec, new, notes
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if memory.exists():
            memory.fs.rm(memory.path, recursive=True)


def asked_and_judged(
    spec: DatasetSpec, files: Sequence[Path | UPath | str], catalog: Catalog, policy: Policy, *, judge_given: bool
) -> tuple[DatasetSpec, tuple[str, ...]]:
    """`spec` with its rule of judging, once every item of its rows can be asked and judged by it, and what should be
    known. Raises SuiteFaults; a version that is registered already stays as it is."""
    try:
        found = checked(spec, find_files(files).data, policy, judge_given=judge_given)
    except SuiteFaults:
        if is_registered(spec, catalog):
            return spec, ()
        raise
    return spec.model_copy(update={"suite": found.suite}), found.notes


def _converted(
    name: str, files: Sequence[Path], suite: SuiteSpec, worker: Worker, work: Path, memory: UPath
) -> tuple[Sequence[Path | UPath], SuiteSpec]:
    if suite.format in (None, CASES):
        if len(files) != 1 or not published.has_no_header(files[0]):
            return list(files), suite
        suite = suite.model_copy(update={"format": "mmlu", "judge": "multiple_choice"})
    if suite.format == harness.FORMAT:
        if len(files) != 2:
            raise formats.FormatError("lm-eval takes two files: the task's YAML and its documents as JSON lines")
        config = harness.read_task(files[0])
        documents = harness.read_documents(files[1])
        metric = suite.harness.metric if suite.harness else None
        suite = harness.spec_of(config, metric, general=suite.general)
        rows = harness.rows_of(worker, config, documents, work / "harness")
    elif len(files) == 1:
        rows = formats.rows_of(suite.format, files[0])
    else:
        raise formats.FormatError(f"{suite.format} reads one file: {len(files)} were given")
    target = memory / f"{name}.jsonl"
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return [target], suite


def _refuse_another(catalog: Catalog, spec: DatasetSpec) -> None:
    """A version never changes: neither its files, which `register` compares, nor how it is judged."""
    try:
        known = catalog.dataset(spec.key)
    except NotFound:
        return
    if known.suite != spec.suite:
        raise Conflict(
            f"{spec.key} is registered already, and asked or judged in another way. A version never changes: register "
            f"it as another version, for example {spec.name}@next"
        )
