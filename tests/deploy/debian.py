"""Programs of Debian's packages that these tests run: installed where they are not here already."""

import os
import shutil
import subprocess

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"


def program(name: str, package: str) -> str:
    """The path of a program; its package is installed where there is none, and RuntimeError raised where that fails."""
    if (found := shutil.which(name, path=PATH)) is not None:
        return found
    apt = ["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300"]
    # Its own service is not started: the tests start theirs.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in ([*apt, "update"], [*apt, "install", "--no-install-recommends", package]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise RuntimeError(
                f"these tests need {name}, and `{' '.join(command)}` failed: install the package {package} by hand, or "
                f"run as root on Debian\n{done.stderr[-2000:]}"
            )
    if (found := shutil.which(name, path=PATH)) is None:
        raise RuntimeError(f"the package {package} was installed, and {name} is not on PATH")
    return found
