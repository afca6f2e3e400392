"""Environments of engines with pins of their own, below one folder: made by `make engines`, run as child processes."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from resources import files
from resources.environment import engine_python, passed_on

REQUIREMENTS = Path(__file__).parents[1] / "images" / "engines"
_MARK = ".installed"


class EngineError(RuntimeError):
    """An engine is not there, could not be made, or failed; the message says what to do, or ends with its log."""


class Engines:
    """The engines below `root`, each described by a folder in `requirements` (requirements.txt, perhaps remove.txt)."""

    def __init__(self, root: Path | str, requirements: Path = REQUIREMENTS) -> None:
        self.root = Path(root).absolute()
        self.requirements = requirements

    def names(self) -> list[str]:
        """The engines that can be made."""
        return sorted(path.parent.name for path in self.requirements.glob("*/requirements.txt"))

    def ready(self, name: str) -> bool:
        """Whether an engine's environment is there, whole, and made from the requirements as they are now."""
        mark = self.root / name / _MARK
        return mark.is_file() and mark.read_text(encoding="utf-8") == digest(self.requirements / name)

    def python(self, name: str) -> Path:
        """The Python of an engine; EngineError says how to get one."""
        if not self.ready(name):
            raise EngineError(
                f"the engine {name} has no environment in {self.root / name}, or one of other versions: make it with "
                f"`make engines ENGINE={name}`"
            )
        return engine_python(self.root, name)

    def install(self, name: str, say: Callable[[str], None] = print) -> bool:
        """Make an engine's environment; True when that was needed. One that was cut off is made anew.

        Raises EngineError with the end of pip's log when it fails; nothing half-made ever counts.
        """
        if name not in self.names():
            raise EngineError(f"there is no engine {name!r}: there are {', '.join(self.names())}")
        with self._exclusively(name):
            if self.ready(name):
                say(f"{name}: is there")
                return False
            folder, described = self.root / name, self.requirements / name
            shutil.rmtree(folder, ignore_errors=True)
            say(f"{name}: making {folder}")
            self._call(name, [sys.executable, "-m", "venv", str(folder)])
            pip = [str(engine_python(self.root, name)), "-m", "pip", "--disable-pip-version-check"]
            self._call(name, [*pip, "install", "--requirement", str(described / "requirements.txt")])
            if left_out := unwanted(described):
                self._call(name, [*pip, "uninstall", "--yes", *sorted(left_out)])
            (folder / _MARK).write_text(digest(described), encoding="utf-8")
        say(f"{name}: done")
        return True

    def run(
        self, name: str, module: str, job: BaseModel, *, work_dir: Path, threads: int | None = None
    ) -> dict[str, Any]:
        """Run `python -m module JOB.json` in an engine's environment and return the result that it writes.

        Job, log and result are kept in `work_dir`. The child sees none of our secrets. Raises EngineError with the end
        of its log when it fails.
        """
        python = self.python(name)
        work_dir.mkdir(parents=True, exist_ok=True)
        files = {kind: work_dir / f"{module.rpartition('.')[2]}.{kind}" for kind in ("json", "log", "result")}
        files["result"].unlink(missing_ok=True)
        written = {**job.model_dump(mode="json"), "result": str(files["result"])}
        files["json"].write_text(json.dumps(written, indent=1), encoding="utf-8")
        environment = passed_on() | {
            "PYTHONPATH": str(REQUIREMENTS.parents[1]),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        with open(files["log"], "wb") as log:
            command = [str(python), "-W", "ignore", "-m", module, str(files["json"])]
            code = subprocess.run(command, env=environment, stdout=log, stderr=log, cwd=work_dir).returncode
        if code != 0 or not files["result"].is_file():
            raise EngineError(f"the engine {name} failed (exit code {code}); {_tail(files['log'])}")
        return json.loads(files["result"].read_text(encoding="utf-8"))

    def _call(self, name: str, command: list[str]) -> None:
        path = self.root / f"{name}.log"
        with open(path, "ab") as log:
            code = subprocess.run(command, stdout=log, stderr=log).returncode
        if code != 0:
            raise EngineError(f"the engine {name} could not be made; {_tail(path)}")

    @contextmanager
    def _exclusively(self, name: str) -> Iterator[None]:
        with files.locked(self.root / f".{name}.lock"):
            yield


def digest(described: Path) -> str:
    """What an environment is marked with that was made from this description of an engine."""
    parts = [path.read_bytes() for path in sorted(described.glob("*.txt"))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def unwanted(described: Path) -> set[str]:
    """Packages that an engine's requirements bring along and that it must not have (`remove.txt`)."""
    file = described / "remove.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return {line.strip() for line in lines if line.strip() and not line.startswith("#")}


def _tail(path: Path, lines: int = 15) -> str:
    last = path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join([f"its log {path} ends with:", *last])
