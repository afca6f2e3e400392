"""The worker's task "harness": a task of lm-evaluation-harness, run by lm-eval itself on documents of ours, offline.

The task's definition is the content of its YAML, which may include one that lm-eval ships. It is data: functions
(`!function`) of the user's own, remote data sets and code in data sets are refused before lm-eval sees it.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from images.ask.generate import write_jsonl
from images.control_tokens import control_tokens
from images.train import sealed
from images.train.reporter import Reporter
from llmops_assets.records.jobs import HarnessJob
from resources import files

_SET_BY_US = ("dataset_path", "dataset_name", "dataset_kwargs", "test_split", "validation_split", "training_split")


def run(job: HarnessJob, reporter: Reporter | None = None) -> dict[str, Any]:
    """Render or evaluate the documents of `docs_file` (JSONL) by the task `config` and write to `output_file`.

    `job`: mode (render | evaluate), config (the task's YAML as a mapping), docs_file, output_file; to evaluate also
    model_dir and optionally batch_size (16), precision (fp32) and metric (the task's first).

    A rendered line is {doc, prompt, choices, target}. An evaluated one is {id, prompt, target, answer, score}: what the
    metric says of this document. The result has lm-eval's own figures under settings.results.
    """
    folder = Path(job.output_file).absolute().parent
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # lm-eval reads plain files only: they, and what `datasets` makes of them, are there for as long as this takes.
    with files.plain_folder(folder) as scratch:
        documents = scratch / "documents.jsonl"
        documents.write_bytes(sealed.read_bytes(job.docs_file))
        # Before `datasets` is imported.
        os.environ["HF_DATASETS_CACHE"] = str(scratch / "datasets")
        name, tasks = _task(job.config, str(documents), folder)
        if job.mode == "render":
            return _render(tasks.load([name])["tasks"][name], job.output_file)
        return _evaluate(name, tasks, job)


def _task(config: dict[str, Any], docs_file: str, folder: Path) -> tuple[str, Any]:
    """The task's name, and a task manager that knows it and nothing else."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    if unsafe := [text for text in _strings(config) if "__" in text]:
        raise ValueError(
            f"{unsafe[0][:80]!r} holds '__': the templates of a task may reach fields of its documents only"
        )
    name = config.get("task")
    if not isinstance(name, str) or not name:
        raise ValueError("the task's YAML has no `task`, which is its name")
    wanted = {key: value for key, value in config.items() if key not in _SET_BY_US}
    shipped = Path(lm_eval.__file__).parent / "tasks"
    if include := wanted.get("include"):
        path = (shipped / str(include)).resolve()
        if not path.is_relative_to(shipped.resolve()) or not path.is_file():
            raise ValueError(f"include: {include} is no task that lm-eval ships: name one like kobest/kobest_copa.yaml")
        wanted["include"] = str(path)
    wanted |= {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(docs_file)}},
        "test_split": "test",
        "validation_split": None,
        "training_split": None,
        "fewshot_split": "test" if wanted.get("num_fewshot") else None,
    }
    definitions = folder / "definition"
    definitions.mkdir(parents=True, exist_ok=True)
    # JSON is YAML, and holds no tag that could name a function.
    (definitions / "task.yaml").write_text(json.dumps(wanted, ensure_ascii=False), encoding="utf-8")
    return name, TaskManager(include_path=str(definitions), include_defaults=False)


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in (*_strings(key), *_strings(part))]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


def _render(task: Any, output: str) -> dict[str, Any]:
    rows = []
    for doc in task.test_docs():
        choices = [str(c) for c in task.doc_to_choice(doc)] if task.config.doc_to_choice is not None else []
        target = task.doc_to_target(doc)
        if choices and isinstance(target, int):
            target = choices[target]
        if isinstance(target, list):
            target = target[0] if target else ""
        rows.append({"doc": doc, "prompt": str(task.doc_to_text(doc)), "choices": choices, "target": str(target)})
    write_jsonl(output, rows)
    return {"items": len(rows)}


def _evaluate(name: str, tasks: Any, job: HarnessJob) -> dict[str, Any]:
    import lm_eval
    import torch

    model_dir = Path(job.model_dir)
    chat = (model_dir / "chat_template.jinja").exists() or "chat_template" in json.loads(
        (model_dir / "tokenizer_config.json").read_text(encoding="utf-8")
    )
    _refuse_control_tokens(job)
    started = time.monotonic()
    found = lm_eval.simple_evaluate(
        model="hf",
        model_args={
            "pretrained": str(model_dir),
            "dtype": {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}[job.precision],
            "trust_remote_code": False,
        },
        tasks=[name],
        task_manager=tasks,
        batch_size=job.batch_size,
        device="cuda:0" if torch.cuda.is_available() else "cpu",
        apply_chat_template=chat,
        log_samples=True,
        bootstrap_iters=0,
    )
    samples = found["samples"][name]
    metric = job.metric or samples[0]["metrics"][0]
    # A task with several filters has a sample of every document for each: the first one counts.
    first = {sample["doc_id"]: sample for sample in reversed(samples)}
    rows = [_row(sample, metric, name) for _, sample in sorted(first.items())]
    write_jsonl(job.output_file, rows)
    seconds = time.monotonic() - started
    results = {key: value for key, value in found["results"][name].items() if isinstance(value, int | float)}
    return {
        "items": len(rows),
        "seconds": seconds,
        "tokens_per_second": 0.0,
        "settings": {
            "engine": f"lm_eval {lm_eval.__version__}, torch {torch.__version__}",
            "metric": metric,
            "chat_template": chat,
            "results": results,
        },
    }


def _refuse_control_tokens(job: HarnessJob) -> None:
    """lm-eval tokenises by itself, so that a control token in a document would forge a turn of the conversation."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model_dir, trust_remote_code=False)
    pattern = control_tokens(tokenizer, str(tokenizer.chat_template or "")).any
    for number, line in enumerate(sealed.read_bytes(job.docs_file).splitlines(), start=1):
        if found := next((m for text in _strings(json.loads(line)) if (m := pattern.search(text))), None):
            raise ValueError(
                f"document {number} holds {found.group()}, a control token of this model, which lm-eval would take for "
                "one: take it out of the document, or make the task a suite of ours, where it is text"
            )


def _row(sample: dict[str, Any], metric: str, name: str) -> dict[str, Any]:
    if metric not in sample:
        raise ValueError(f"task {name} has no metric {metric!r}; it has {', '.join(sample['metrics'])}")
    score = sample[metric]
    if not isinstance(score, int | float):
        raise ValueError(f"the metric {metric} of task {name} has no figure for a single item: name another one")
    arguments = sample["arguments"]
    responses = sample["filtered_resps"]
    if len(responses) > 1 and isinstance(responses[0], list | tuple):
        best = max(range(len(responses)), key=lambda i: float(responses[i][0]))
        answer = str(arguments[best][1]).strip()
    else:
        first = responses[0]
        answer = str(first[0] if isinstance(first, list | tuple) else first)
    return {
        "id": str(sample["doc_id"]),
        "prompt": str(arguments[0][0]),
        "target": str(sample["target"]),
        "answer": answer,
        "score": float(score),
    }
