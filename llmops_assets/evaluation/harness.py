"""Suites that lm-evaluation-harness itself runs: their documents become rows, and its verdicts become scored items."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llmops_assets.evaluation.answers import Model, Worker, kept, keys_of
from llmops_assets.evaluation.case import Case, worker_settings
from llmops_assets.evaluation.formats import FormatError
from llmops_assets.evaluation.suites import NO_CATEGORY, Answer, Item, Scored
from llmops_assets.records.jobs import HarnessJob
from llmops_assets.specs.suite import HarnessSpec, SuiteSpec

FORMAT = "lm-eval"


def read_task(path: Path) -> dict[str, Any]:
    """The definition in a task's YAML; raises FormatError for functions of the user's own (`!function`) and no task."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise FormatError(
            f"{path}: {error}. A task is read as data: `!function` and other tags are not run; include a task that "
            "lm-eval ships where you need its functions"
        ) from error
    if not isinstance(config, dict) or not config.get("task"):
        raise FormatError(f"{path} is no task of lm-evaluation-harness: it has no `task`")
    return config


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a task: a JSON Lines file of objects."""
    documents = []
    # Not `splitlines` of a text, which parts lines within strings, at U+2028 and others.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
        except ValueError as error:
            raise FormatError(f"{path}:{number}: {error}: the documents of a task come as JSON lines") from error
        if not isinstance(document, dict):
            raise FormatError(f"{path}:{number}: expected an object, got {type(document).__name__}")
        documents.append(document)
    if not documents:
        raise FormatError(f"{path} holds no documents")
    return documents


def rows_of(
    worker: Worker, config: Mapping[str, Any], documents: list[dict[str, Any]], work_dir: Path
) -> list[dict[str, Any]]:
    """The rows of a suite: what lm-eval makes of every document, and the document itself."""
    work_dir.mkdir(parents=True, exist_ok=True)
    docs, output = work_dir / "documents.jsonl", work_dir / "rendered.jsonl"
    keys = keys_of(worker)
    docs.write_bytes(keys.seal("".join(json.dumps(d, ensure_ascii=False) + "\n" for d in documents).encode()))
    job = HarnessJob(mode="render", config=dict(config), docs_file=str(docs), output_file=str(output), gpus=0)
    worker.run(None, job, work_dir=work_dir)
    rendered = [json.loads(line) for line in keys.open(output.read_bytes(), output).splitlines()]
    return [
        {
            "messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["target"]}],
            # As text: the platform keeps it as it is, whatever its fields are called.
            "metadata": {"category": str(config["task"]), "document": json.dumps(document, ensure_ascii=False)},
        }
        for document, row in zip(documents, rendered, strict=True)
    ]


def spec_of(config: Mapping[str, Any], metric: str | None, *, general: bool) -> SuiteSpec:
    """How a harness suite is described."""
    return SuiteSpec(
        format=FORMAT, as_published=True, general=general, harness=HarnessSpec(config=dict(config), metric=metric)
    )


def run(case: Case, model: Model, suite: str, spec: HarnessSpec) -> tuple[dict[str, Any], list[Scored]]:
    """What lm-eval says of `model` on the suite: its own figures, and every document with its verdict.

    An item is right where the metric gives it 1.
    """
    frame = case.suites[suite].frame
    rows = frame.select("row_id", "extra").to_dicts()
    documents = [json.loads(json.loads(row["extra"])["document"]) for row in rows]
    settings = {
        "mode": "evaluate",
        "config": spec.config,
        "metric": spec.metric,
        "batch_size": case.spec.evaluation.batch_size,
    }
    asked = hashlib.sha256(json.dumps([spec.config, spec.metric, documents], sort_keys=True).encode()).hexdigest()[:16]
    found, result = kept(case.worker, case.context, model, HarnessJob, settings, {}, documents, asked, case.cache)
    by_position = {int(row["id"]): row for row in found}
    scored = []
    for position, row in enumerate(rows):
        answered = by_position.get(position)
        prompt = answered["prompt"] if answered else ""
        item = Item(row["row_id"], suite, NO_CATEGORY, ({"role": "user", "content": prompt},), (_target(answered),))
        answer = Answer(item.key, answered["answer"], 0, "harness") if answered else None
        scored.append(Scored(item, answer, bool(answered) and answered["score"] == 1.0))
    return worker_settings(result), scored


def _target(result: Mapping[str, Any] | None) -> str:
    return str(result["target"]) if result else ""
