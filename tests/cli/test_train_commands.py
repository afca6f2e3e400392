"""`llmops train status|logs|stop|resume` on a home without a running platform."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from images.train.reporter import Reporter
from llmops_assets.cli import common
from llmops_assets.records.training import PlanRecord
from llmops_assets.training import progress
from tests.cli.test_commands import home, llmops  # noqa: F401
from tests.training.conftest import sft_spec

ROW = {"messages": [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]}


@pytest.fixture
def spec(home: Path) -> Path:  # noqa: F811
    """A spec whose dataset is registered."""
    data = home / "desk.jsonl"
    data.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", encoding="utf-8")
    assert llmops("dataset", "add", "desk@v1", data, "--type", "sft_pair")[0] == 0
    path = home / "job.yaml"
    path.write_text(yaml.safe_dump({**sft_spec("hf:/models/x"), "dataset_ref": "desk@v1"}), encoding="utf-8")
    return path


def status_of(*arguments: object) -> list[dict]:
    code, out, errors = llmops("train", "status", *arguments, "--json")
    assert code == 0, errors
    return json.loads(out)


def test_a_training_is_asked_for_withdrawn_and_asked_for_again(spec: Path) -> None:
    assert status_of() == []
    code, out, _ = llmops("train", spec, "--json")
    cell = json.loads(out)["partition"]
    assert code == 0 and cell.startswith("desk@v1|tiny-desk-")
    (now,) = status_of("tiny-desk")
    assert (now["partition"], now["state"]) == (cell, "requested")
    assert "llmops up" in now["detail"]
    assert llmops("train", "resume", cell)[0] == 1
    code, out, _ = llmops("train", "stop", spec)
    assert code == 0 and "withdrawn" in out
    assert common.wiring().catalog.open_training_requests() == []
    assert llmops("train", "start", spec)[0] == 0
    assert len(common.wiring().catalog.open_training_requests()) == 1
    code, _, errors = llmops("train", "stop", "nothing")
    assert code == 1 and "no training 'nothing'" in errors


HEAVY = {"dagster", "mlflow", "pandas", "polars", "pandera", "torch", "transformers", "alembic"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [(("train", "{spec}"), "requested: desk@v1|"), (("train", "status"), "requested"), (("model", "list"), "")],
)
def test_a_command_loads_nothing_that_it_does_not_need(spec: Path, arguments: tuple[str, ...], line: str) -> None:
    assert llmops("train", spec)[0] == 0
    if arguments[0] == "model":
        common.wiring().tracking.prepare()
    given = ["llmops", *(argument.format(spec=spec) for argument in arguments)]
    code = (
        "import sys; from llmops_assets.cli import main\n"
        f"sys.argv = {given!r}\n"
        "try: main()\n"
        f"finally: print({HEAVY} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and line in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_progress_and_logs_are_what_the_worker_wrote(spec: Path, tmp_path: Path) -> None:
    cell = json.loads(llmops("train", spec, "--json")[1])["partition"]
    folder = tmp_path / "model"
    (folder / "work").mkdir(parents=True)
    numbers = ("tokens", "trainable_tokens", "rows_without_trainable_tokens", "truncated_rows", "cut_answers")
    plan = PlanRecord(
        dataset="desk@v1",
        recipe=cell.split("|")[1],
        training_key="k",
        spec={},
        base=None,
        model_dir=str(folder),
        rows={"train": 1},
        **dict.fromkeys((*numbers, "double_bos_rows", "memory_bytes", "memory_available"), 0),
        stop_token=None,
        stop_token_trained=True,
        chat_template_hash=None,
        prefix_preserving=True,
        packing_efficiency=1.0,
        failures={},
        steps=40,
        precision="fp32",
        gradient_checkpointing=False,
        memory_advice=None,
        seconds=None,
        device="cpu",
        example="",
    )
    common.wiring().records.save(cell, plan)
    work = {name: str(folder / "work" / f"train.{name}") for name in ("log", "live", "metrics")}
    reporter = Reporter(work)
    reporter.progress({"step": 12, "steps": 40, "loss": 0.5, "memory_bytes": 3 << 30, "eta_seconds": 75.0})
    reporter.metrics({"step": 10, "epoch": 2.5, "eval_loss": 0.75})
    reporter.metrics({"step": 10, "eval_loss": 9.0, "phase": "reward model"})
    reporter.log.info("step 12/40, loss 0.5000")
    assert progress.evaluations(folder) == [progress.Evaluation(10, 2.5, 0.75)]
    (now,) = status_of(cell)
    assert now["progress"]["step"] == 12 and now["progress"]["memory_bytes"] == 3 << 30
    assert progress.age(progress.read(folder)) < 60
    out = llmops("train", "status")[1]
    assert "12/40" in out and "3.0 GiB" in out
    assert "step 12/40, loss 0.5000" in llmops("train", "logs", cell)[1]
