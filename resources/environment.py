"""What the processes that the platform starts may see of its environment, and where engines keep their Python."""

import os
from collections.abc import Mapping
from pathlib import Path

PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LLMOPS_SIMULATED_GPUS",
)  # fmt: skip
"""The variables that a process of ours needs; passwords and tokens of the platform stay outside."""


def is_passed_on(name: str, *prefixes: str) -> bool:
    """Whether a process may see the variable `name`; `prefixes` are those of more that this one needs."""
    return name in PASSED_ON or name.startswith(("LC_", *prefixes))


def passed_on(*prefixes: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What of `environ` a process may see; `prefixes` are those of more that this one needs."""
    return {name: value for name, value in environ.items() if is_passed_on(name, *prefixes)}


def engine_python(engines: Path | str, name: str) -> Path:
    """The Python of the engine `name` in the folder of the engines' environments, whether it is there or not."""
    return Path(engines) / name / "bin" / "python"
