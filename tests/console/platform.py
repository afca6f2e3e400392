"""A running platform that is driven from outside: its processes, its rows, its environment."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import yaml

from llmops_assets.local.stack import REPOSITORY, free_port
from llmops_assets.specs.policy import DEFAULT_POLICY

TOPICS = ["환불", "영수증", "단말기", "통행료", "하이패스", "미납", "주소변경", "분실", "면제", "할인"]
PLACES = ["서울", "대전", "부산", "광주", "춘천", "강릉", "제주", "수원", "전주", "포항", "울산", "목포"]
DEADLINE = 600.0
FEW = {"learning_rate": 2e-3, "batch_size": 16, "num_epochs": 40, "max_steps": 40, "max_seq_length": 128}
"""Hyperparameters of a training that takes seconds."""


def write_rows(path: Path, columns: tuple[str, str, str] = ("question", "answer", "category")) -> Path:
    """Questions about each topic at each place, with the answer of both: a CSV as a spreadsheet writes it."""
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for topic in TOPICS:
            for place in PLACES:
                question = f"{place} 영업소에서 {topic} 어떻게 하나요?"
                writer.writerow([question, f"{topic}: {place} 창구에서 신분증을 보여 주세요.", topic])
    return path


def environment_of(folder: Path) -> dict[str, str]:
    """A home of its own in `folder`, whose gate lets a model pass that was trained for seconds."""
    policy = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    policy["gates"]["SFT"] |= {"at_least": 0.0, "n_at_least": 1}
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMOPS_", "DAGSTER_"))}
    ports = {f"LLMOPS_{name}_PORT": str(free_port("127.0.0.1")) for name in ("GATEWAY", "GATEWAY_ADMIN", "CONSOLE")}
    more = {
        "LLMOPS_HOME": str(folder / "home"),
        "LLMOPS_POLICY_FILE": str(folder / "policy.yaml"),
        "LLMOPS_SENSOR_INTERVAL_SECONDS": "1",
        "OMP_NUM_THREADS": "1",
        "LLM_OPS_USER_ID": "kim",
        "LLM_OPS_USER_ROLES": "llm-ops-user",
    }
    api = {"LLM_OPS_API_BASE_URL": f"http://127.0.0.1:{ports['LLMOPS_CONSOLE_PORT']}/llm-ops/v1"}
    return {**kept, **ports, **more, **api}


@contextmanager
def running(environment: dict[str, str], folder: Path) -> Iterator[Path]:
    """`llmops up`, and the console beside it; their log."""
    log = folder / "platform.log"
    commands = (["llmops_assets.cli", "up", "--no-pages"], ["images.console"])
    with open(log, "ab") as out:
        processes = [
            subprocess.Popen([sys.executable, "-m", *command], env=environment, stdout=out, stderr=out, cwd=REPOSITORY)
            for command in commands
        ]
    ask = build_opener(ProxyHandler({})).open
    deadline = time.monotonic() + DEADLINE
    try:
        while True:
            assert all(process.poll() is None for process in processes), log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            try:
                if ask(f"{environment['LLM_OPS_API_BASE_URL']}/health", timeout=5).status == 200:
                    break
            except (URLError, OSError):
                time.sleep(0.2)
        yield log
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(120)


def example(environment: dict[str, str], folder: Path, model: Path) -> subprocess.CompletedProcess[str]:
    """`examples/complete_workflow.py`, carried out: a model trained and served at the endpoint `customer-support`."""
    rows = write_rows(folder / "support.csv")
    command = [sys.executable, "examples/complete_workflow.py", "--data", str(rows), "--model", str(model)]
    command += ["--hyperparameters", json.dumps(FEW), "--hours", "0.3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=REPOSITORY, timeout=1500)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done
