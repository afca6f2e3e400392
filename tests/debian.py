"""Programs of Debian's packages that tests run: installed where they are not here already."""

import ctypes.util
import os
import shutil
import subprocess
from collections.abc import Sequence

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def program(names: str | Sequence[str], package: str) -> str:
    """The path of a program, by the first of its names that is here; its package is installed where none is.

    Raises RuntimeError, with what to do by hand, where that fails.
    """
    known = [names] if isinstance(names, str) else names
    if (found := _find(known)) is not None:
        return found
    _install(package, known[0])
    if (found := _find(known)) is None:
        raise RuntimeError(f"the package {package} was installed, and {' or '.join(known)} is not on PATH")
    return found


def font(pattern: str, package: str) -> None:
    """Have a font that fits a pattern of fontconfig (`:lang=ko`); its package is installed where none does."""
    if not subprocess.run(["fc-list", pattern], capture_output=True, text=True, check=True).stdout:
        _install(package, f"a font for {pattern}")


def library(name: str, package: str) -> None:
    """Have a shared library (`pangoft2-1.0`); its package is installed where it is not found."""
    if ctypes.util.find_library(name) is None:
        _install(package, name)


def _install(package: str, name: str) -> None:
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    # Its own service is not started: the tests start theirs.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", package]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise RuntimeError(
                f"these tests need {name}, and `{' '.join(command)}` failed: install the package {package} by "
                f"hand, or run as root on Debian\n{done.stderr[-2000:]}"
            )


def _find(names: Sequence[str]) -> str | None:
    return next((found for name in names if (found := shutil.which(name, path=PATH))), None)
