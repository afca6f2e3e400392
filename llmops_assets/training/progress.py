"""Where a training is right now: what its worker last wrote into the training's folder, readable while it runs."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmops_assets.training import folders

LIVE = "train.live"
"""File of the worker's last word on its progress, in the folder `work` of a training."""
TASKS = ("plan", "train", "merge")


@dataclass(frozen=True)
class Progress:
    """A moment of a training; times in seconds, memory in bytes, `at` in seconds since the epoch."""

    step: int
    steps: int
    at: float
    loss: float | None = None
    eval_loss: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    eta_seconds: float | None = None
    checkpoint: int | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def read(model_dir: Path, since: float | None = None) -> Progress | None:
    """The last progress in the folder of a training, None before its first step.

    Of a training that has ended, the validation loss is that of the weights that were kept. `since` is when the current
    attempt began, in seconds since the epoch: what an earlier one wrote says nothing of it, and is left out.
    """
    try:
        found = json.loads((model_dir / "work" / LIVE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    known = {name: found.get(name) for name in Progress.__dataclass_fields__}
    # Whether a folder is whole is looked at when it is used: hashing gigabytes is nothing for a glance.
    ended = folders.noted(model_dir / "adapter")
    if ended is not None:
        known["eval_loss"] = ended.get("eval_loss")
    elif since is not None and known["at"] < since:
        return None
    sealed = (step for step, path in folders.checkpoints(model_dir / "checkpoints") if (path / folders.SEAL).exists())
    return Progress(**{**known, "checkpoint": next(sealed, None)})


def failure(model_dir: Path) -> str | None:
    """What the worker said when its last task failed or was stopped, None when it did not."""
    for task in reversed(TASKS):
        path = model_dir / "work" / f"{task}.error"
        if path.exists():
            return str(json.loads(path.read_text(encoding="utf-8"))["message"])
    return None


@dataclass(frozen=True)
class Evaluation:
    """A validation of a training: after how many optimizer steps and passes over the rows, and its loss."""

    step: int
    epoch: float
    loss: float


def evaluations(model_dir: Path) -> list[Evaluation]:
    """Those so far, in order, as the worker wrote them down: of one that was taken up again, since then."""
    return [
        Evaluation(line["step"], line["epoch"], line["eval_loss"])
        for line in _metrics(model_dir)
        if line.get("eval_loss") is not None and "phase" not in line
    ]


def curves(model_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """By metric, its values so far as ``{step, value}``; those of a phase are named ``phase/metric``."""
    found: dict[str, dict[int, float]] = {}
    for line in _metrics(model_dir):
        phase = f"{line['phase']}/" if line.get("phase") else ""
        for name, value in line.items():
            if name not in ("step", "phase", "at") and isinstance(value, (int, float)) and not isinstance(value, bool):
                # A training that was taken up again repeats steps; what it said last holds.
                found.setdefault(f"{phase}{name}", {})[int(line["step"])] = float(value)
    return {name: [{"step": s, "value": values[s]} for s in sorted(values)] for name, values in sorted(found.items())}


def _metrics(model_dir: Path) -> list[dict[str, Any]]:
    path = model_dir / "work" / "train.metrics"
    if not path.exists():
        return []
    lines = path.read_bytes()
    return [json.loads(line) for line in lines[: lines.rfind(b"\n") + 1].splitlines()]


class Tail:
    """Reads what is appended to the logs of a training, in the order of its tasks."""

    def __init__(self, model_dir: Path, tasks: Sequence[str] = TASKS) -> None:
        self._files = [model_dir / "work" / f"{task}.log" for task in tasks]
        self._read = dict.fromkeys(self._files, 0)

    def lines(self) -> Iterator[str]:
        """Whole lines that were not read yet."""
        for path in self._files:
            if not path.exists():
                continue
            if path.stat().st_size < self._read[path]:
                # Another training began the file anew.
                self._read[path] = 0
            with open(path, "rb") as file:
                file.seek(self._read[path])
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] += len(whole)
            yield from whole.decode("utf-8", "replace").splitlines()


def age(progress: Progress, now: float | None = None) -> float:
    """Seconds since the worker last said where it is."""
    return max(0.0, (time.time() if now is None else now) - progress.at)
