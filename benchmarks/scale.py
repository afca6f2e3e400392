"""Runs the whole datasets stage over many invented rows: `python -m benchmarks.scale --rows 1000000`.

Rows are chats of about 1.2 kB with personal data, exact and near duplicates and bad lines planted. Each asset and
each check runs as the platform runs it, in this one process, without Dagster around it unless `--graph` is given.
Prints wall and CPU seconds and the largest resident memory after each step.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.datasets import personal, sentence

CATEGORIES = ("toll", "refund", "lost", "device", "area", "receipt")


def lines(rows: int, seed: int = 0) -> Iterator[str]:
    """JSON lines: of a hundred rows two repeat another exactly and three nearly; one in a thousand cannot be read."""
    rng = random.Random(seed)
    recent: list[tuple[str, str]] = []
    for number in range(rows):
        kind = rng.random()
        if recent and kind < 0.02:
            asked, answered = rng.choice(recent)
        elif recent and kind < 0.05:
            asked, answered = rng.choice(recent)
            at = rng.randrange(len(answered))
            answered = answered[:at] + rng.choice("가나다라마") + answered[at + 1 :]
        else:
            asked = sentence(rng, 32) + (" " + personal(rng) if rng.random() < 0.05 else "")
            answered = " ".join(sentence(rng, 20) for _ in range(5))
            if len(recent) < 5_000:
                recent.append((asked, answered))
            else:
                recent[rng.randrange(5_000)] = (asked, answered)
        row = {
            "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}],
            "metadata": {"category": rng.choice(CATEGORIES), "source": "made", "conversation": f"c{number // 2}"},
        }
        line = json.dumps(row, ensure_ascii=False)
        yield line if rng.random() > 0.001 else line[: len(line) // 2]


class Meter:
    """Seconds and memory since it was last asked."""

    def __init__(self) -> None:
        self.began = self.wall = time.monotonic()
        self.cpu = self.cpu_began = self._cpu()

    @staticmethod
    def _cpu() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    def __call__(self, label: str) -> None:
        wall, cpu = time.monotonic(), self._cpu()
        print(f"{label:<52} {wall - self.wall:8.1f} s  {cpu - self.cpu:8.1f} CPU-s  peak {peak():,.0f} MB", flush=True)
        self.wall, self.cpu = wall, cpu

    def total(self) -> None:
        wall, cpu = time.monotonic() - self.began, self._cpu() - self.cpu_began
        print(f"{'in all':<52} {wall:8.1f} s  {cpu:8.1f} CPU-s  peak {peak():,.0f} MB", flush=True)


def peak() -> float:
    """The largest resident memory of this process so far and of the largest one that it started, in MB, together."""
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    return (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def run(folder: Path, rows: int, names: bool) -> None:
    """The four assets and all their checks, one after another, as one run of the graph does."""
    import dagster as dg

    from llmops_assets.datasets import assets, checks
    from llmops_assets.partitions import dataset_versions
    from llmops_assets.specs.dataset import DatasetSpec
    from llmops_assets.specs.policy import load_policy
    from resources.artifacts import Artifacts
    from resources.catalog import Catalog
    from resources.dataset_store import DatasetStore
    from resources.records import Records

    artifacts = Artifacts(folder / "artifacts")
    policy = load_policy()
    pii = policy.datasets.pii.model_copy(update={"names": names})
    policy = policy.model_copy(update={"datasets": policy.datasets.model_copy(update={"pii": pii})})
    spec = DatasetSpec.model_validate(
        {
            "name": "scale", "version": "v1", "type": "sft_pair", "files": ["rows.jsonl"], "owner": "bench",
            "description": "invented", "schema_ref": "sft_pair@1", "split": {"group_by": "conversation"},
        }
    )  # fmt: skip
    uploads = artifacts.path("uploads", spec.key)
    uploads.mkdir(parents=True)
    with (uploads / "rows.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines(rows))
    print(f"{rows:,} rows, {(uploads / 'rows.jsonl').stat().st_size / 1e6:,.0f} MB, names {'on' if names else 'off'}")
    resources = {
        "artifacts": artifacts,
        "store": DatasetStore(artifacts.upath("datasets")),
        "records": Records(folder / "records"),
        "catalog": Catalog(f"sqlite:///{folder / 'catalog.db'}"),
        "policy": policy,
    }
    resources["catalog"].register_dataset(spec, "digest")
    graph = [*dg.load_assets_from_modules([assets]), *dg.load_asset_checks_from_modules([checks])]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, [spec.key])
        meter = Meter()
        for name in ("dataset", "quality_report", "clean_dataset", "splits"):
            key = dg.AssetKey(name)
            done = dg.materialize(
                graph, selection=dg.AssetSelection.assets(key), partition_key=spec.key, instance=instance,
                resources=resources,
            )  # fmt: skip
            judged = done.get_asset_check_evaluations()
            failed = [event.check_name for event in judged if not event.passed]
            meter(f"{name}, {len(judged)} checks" + (f", failed: {failed}" if failed else ""))
        meter.total()
    for name in ("train", "validation", "test"):
        from llmops_assets.records.datasets import SplitsRecord

        print(name, f"{resources['records'].load(SplitsRecord, spec.key).rows[name]:,}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--names", action="store_true", help="look for names too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), options.rows, options.names)


if __name__ == "__main__":
    main()
