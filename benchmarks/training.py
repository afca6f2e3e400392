"""What the platform adds to a training: the whole `adapter` step against the same training as a plain script.

Run it with ``python -m benchmarks.training``. Both are processes of their own with the same rows, base, batch, steps
and checkpoints, on one thread; the script is given what the platform chooses by itself (no activation checkpointing,
batches of like length). Beside it: how long a request takes to be accepted, and how late a line of the worker's log is
in the run's log. CPU seconds, of the process and its children, stand beside the clock's: on a machine that others
use too they are the steadier figure, but they do not show what runs at the same time.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.bench import SIZES, conversations, make_base, run_plain, sft_spec, write_rows

LIMITS = {"share": 0.05, "seconds": 5.0}


def prepare(home: Path, base: Path, hyper: dict[str, Any]) -> tuple[Any, str]:
    """An installation whose dataset is split and whose training is planned: its definitions, and the cell."""
    import dagster as dg

    from llmops_assets.definitions import build
    from llmops_assets.local.stack import prepare_home
    from llmops_assets.partitions import dataset_versions, recipes
    from llmops_assets.records.datasets import SplitsRecord
    from llmops_assets.specs.dataset import DatasetSpec
    from llmops_assets.specs.settings import Settings
    from llmops_assets.wiring import Wiring

    settings = Settings(home=home, omp_threads=1, _env_file=None)
    prepare_home(settings)
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    wiring = Wiring(settings)
    rows = conversations(hyper.pop("rows"), hyper.pop("words"))
    (home / "bench").mkdir()
    write_rows(home / "bench", rows)
    import polars as pl

    frame = pl.DataFrame({"row_id": [f"row-{i}" for i in range(len(rows))], "messages": rows})
    manifests = {
        split: wiring.store.write(part, kind="rows", dataset="benchmark@v1", step="splits", config_hash="0")
        for split, part in {"train": frame, "validation": frame.head(0), "test": frame.head(0)}.items()
    }
    ref = f"hf:{base}"
    spec = sft_spec("lora", "cpu", "fp32", **hyper).model_copy(update={"base_model_ref": ref})
    entry = {"name": "benchmark", "version": "v1", "type": "sft_pair", "files": ["rows.jsonl"], "owner": "team:bench"}
    wiring.catalog.register_dataset(DatasetSpec.model_validate({**entry, "description": "made up"}), "0")
    wiring.catalog.register_base(ref, family="llama", path=str(base), content_hash=None, license=None)
    wiring.catalog.approve_base(ref, "benchmark")
    key = spec.recipe_key()
    wiring.catalog.add_recipe(key, spec.recipe())
    wiring.records.save(
        "benchmark@v1",
        SplitsRecord(
            dataset="benchmark@v1",
            type="sft_pair",
            manifests=manifests,
            rows={"train": len(rows), "validation": 0, "test": 0},
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash="benchmark",
        ),
    )
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["benchmark@v1"])
        instance.add_dynamic_partitions(recipes.name, [key])
    import yaml

    (home / "spec.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
    return build(settings), f"benchmark@v1|{key}"


def cpu_seconds() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(u.ru_utime + u.ru_stime for u in used)


def step(defs: Any, cell: str, asset: str) -> tuple[float, float, list[Any]]:
    """Wall and CPU seconds of one asset's step on a cell, and its run's log entries."""
    import dagster as dg

    job = dg.Definitions(
        assets=list(defs.assets),
        resources=defs.resources,
        executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("step", selection=dg.AssetSelection.assets(asset).without_checks())],
    ).resolve_job_def("step")
    with dg.DagsterInstance.get() as instance:
        before = cpu_seconds()
        quiet = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}
        result = job.execute_in_process(instance=instance, partition_key=cell, run_config=quiet)
        events = [e for e in result.all_events if e.step_key == asset and e.event_type_value.startswith("STEP_")]
        used = cpu_seconds() - before
        entries = instance.all_logs(result.run_id)
    at = {
        e.dagster_event.event_type_value: e.timestamp
        for e in entries
        if e.dagster_event is not None and e.step_key == asset
    }
    assert events
    return at["STEP_SUCCESS"] - at["STEP_START"], used, entries


def delays(entries: list[Any], log: Path) -> list[float]:
    """Seconds between a line's being written by the worker and its being in the run's log."""
    written: dict[str, float] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        moment, _, rest = line.partition(" INFO ")
        if rest.startswith("step "):
            written[rest] = datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp()
    return [e.timestamp - written[e.user_message] for e in entries if e.user_message in written]


def accepted(home: Path) -> tuple[float, float]:
    """Wall and CPU seconds of `llmops train SPEC`."""
    environment = {**os.environ, "LLMOPS_HOME": str(home)}
    # As a user's Python does, keep what was compiled: the second time finds it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began, before = time.monotonic(), cpu_seconds()
    command = [sys.executable, "-m", "llmops_assets.cli", "train", str(home / "spec.yaml"), "--json"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began, cpu_seconds() - before


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    os.environ["OMP_NUM_THREADS"] = "1"
    hyper = {
        "batch_size": arguments.batch,
        "max_steps": arguments.steps,
        "save_steps": max(1, arguments.steps // 3),
        "max_seq_len": 512,
        "lora_rank": 16,
    }
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary) / "home"
        home.mkdir()
        base = make_base(Path(temporary) / "base", SIZES["tiny"], device="cpu", precision="fp32")
        defs, cell = prepare(home, base, {**hyper, "rows": arguments.rows, "words": arguments.words})
        step(defs, cell, "training_plan")
        ours, ours_cpu, entries = step(defs, cell, "adapter")
        (log,) = (home / "artifacts").rglob("train.log")
        late = sorted(delays(entries, log))
        spec = sft_spec("lora", "cpu", "fp32", **hyper)
        began, before = time.monotonic(), cpu_seconds()
        options = {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length"}
        plain = run_plain(home / "bench" / "plain", spec, base, "cpu", **options)
        theirs, theirs_cpu = time.monotonic() - began, cpu_seconds() - before
        requests = sorted(accepted(home) for _ in range(3))
        found = {
            "adapter_seconds": ours,
            "plain_seconds": theirs,
            "overhead_seconds": ours - theirs,
            "allowed_seconds": LIMITS["share"] * theirs + LIMITS["seconds"],
            "adapter_cpu_seconds": ours_cpu,
            "plain_cpu_seconds": theirs_cpu,
            "accepted_seconds": requests[0][0],
            "accepted_cpu_seconds": requests[0][1],
            "load": os.getloadavg()[0],
            "log_delay_median": late[len(late) // 2],
            "log_delay_largest": late[-1],
            "plain": plain,
        }
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    more_cpu = ours_cpu - theirs_cpu
    print("| what | seconds | CPU seconds | at most |\n|---|---|---|---|")
    print(f"| the whole `adapter` step, {arguments.steps} steps | {ours:.1f} | {ours_cpu:.1f} | |")
    print(f"| the same as a plain SFTTrainer script | {theirs:.1f} | {theirs_cpu:.1f} | |")
    print(f"| what the platform adds | {ours - theirs:.1f} | {more_cpu:.1f} | {found['allowed_seconds']:.1f} |")
    print(f"| a training accepted (best of 3) | {requests[0][0]:.2f} | {requests[0][1]:.2f} | 2 |")
    median, largest = found["log_delay_median"], found["log_delay_largest"]
    print(f"| a line of the worker in the run's log | median {median:.2f}, largest {largest:.2f} | | 1 |")
    print(f"\nload of the machine: {found['load']:.0f} on {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
