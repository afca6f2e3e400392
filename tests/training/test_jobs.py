"""The worker's jobs: what is written is what is read, and what is wrong is named by its field on either side."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from images.job_process import main
from llmops_assets.records.jobs import JOBS, GenerateJob, JobError, PlanJob, module_of, read_job
from llmops_assets.specs.training import TrainJobSpec
from tests.training.conftest import sft_spec

GENERATE = {"model_dir": "m", "prompts_file": "p", "output_file": "o", "max_new_tokens": 4}


def test_what_is_written_is_what_is_read() -> None:
    spec = TrainJobSpec.from_recipe(sft_spec("hf:x"), "desk@v1")
    plan = PlanJob(spec=spec, store="s", manifests={"train": "a"}, plan_dir="p")
    for job in (plan, GenerateJob(**GENERATE)):
        assert read_job(job.model_dump_json()) == job


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_new_token": 4}, "max_new_token: Extra inputs are not permitted"),
        ({"max_new_tokens": 0}, "max_new_tokens: Input should be greater than or equal to 1"),
        ({"model_dir": None}, "model_dir: Input should be a valid string"),
        ({"precision": "fp8"}, "precision: Input should be 'fp32', 'bf16' or 'fp16'"),
        ({"task": "fly"}, "unknown task 'fly': there are plan, train, merge, generate"),
        ({"task": "plan"}, "spec: Field required"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError) as caught:
        read_job(json.dumps({"task": "generate", **GENERATE, **change}))
    assert message in str(caught.value)


def test_a_job_is_refused_where_it_is_made_too() -> None:
    with pytest.raises(ValidationError, match="max_new_token\n"):
        GenerateJob(**GENERATE, max_new_token=5)


def test_the_worker_says_what_is_wrong_with_its_job_file(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("error", "log", "result")}
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"task": "generate", **GENERATE, **files, "temperature": 1}))
    assert main(str(path), "images.ask") == 1
    error = json.loads((tmp_path / "error").read_text())
    assert error["type"] == "JobError" and "temperature: Extra inputs are not permitted" in error["message"]
    path.write_text(json.dumps({"task": "generate", **GENERATE, **files}))
    assert main(str(path), "images.train") == 1
    assert "run `python -m images.ask" in json.loads((tmp_path / "error").read_text())["message"]
    assert "JobError" in (tmp_path / "log").read_text() and not (tmp_path / "result").exists()


def test_every_task_has_a_module_that_does_it() -> None:
    for task, kind in JOBS.items():
        assert hasattr(importlib.import_module(f"{module_of(task)}.{task}"), "run"), kind
        assert importlib.util.find_spec(f"{module_of(task)}.__main__")


def test_reading_a_job_loads_no_library_that_trains() -> None:
    code = (
        "import sys; from llmops_assets.records.jobs import read_job\n"
        f"read_job({json.dumps({'task': 'generate', **GENERATE})!r})\n"
        "print({'dagster', 'torch', 'transformers', 'polars', 'mlflow', 'sqlalchemy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
