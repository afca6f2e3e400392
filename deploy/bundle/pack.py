"""Packs all that a machine without the internet needs into one folder with a list of checksums (`make bundle`)."""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL = Path(__file__).with_name("install.sh")
SUMS = "SHA256SUMS"


def pack(folder: Path, wheels: Sequence[str], images: Sequence[str] = (), engine: str = "docker") -> None:
    """Make the folder: wheels of what pip is asked for, the sources as committed, images by name, install.sh, sums.

    `wheels` are arguments of `pip wheel`. Raises FileExistsError for a folder with something in it, and
    CalledProcessError where a program that packs fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name another folder, or remove it")
    _sources(folder / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--wheel-dir", str(folder / "wheels"), "--constraint", "constraints.txt", *wheels]
    with tempfile.TemporaryDirectory() as work:
        # Of what is committed alone: an earlier build leaves modules that are gone since.
        shutil.copytree(folder / "source", Path(work) / "source")
        subprocess.run(command, cwd=Path(work) / "source", check=True)
    (folder / "requirements.txt").write_text(requirements(folder / "wheels"), encoding="utf-8")
    for image in images:
        (folder / "images").mkdir(exist_ok=True)
        file = folder / "images" / f"{image.replace('/', '_').replace(':', '_')}.tar"
        subprocess.run([engine, "save", "--output", str(file), image], check=True)
    shutil.copy(INSTALL, folder / INSTALL.name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  ./{path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def requirements(wheels: Path) -> str:
    """A requirement for every wheel of a folder, by its version and its hash."""
    lines = []
    for wheel in sorted(wheels.glob("*.whl")):
        name, version = wheel.name.split("-")[:2]
        lines.append(f"{name.replace('_', '-')}=={version} --hash=sha256:{_sha256(wheel)}\n")
    return "".join(lines)


def _sources(folder: Path) -> None:
    """The files of the repository as they are committed: nothing that lies beside them, and no history."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=REPOSITORY, stdout=subprocess.PIPE, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Pack the project with some of its extras, and the images that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--extras", default="train,serve", help="with commas; empty for the control plane alone")
    parser.add_argument("--image", action="append", default=[], help="of a server, again for more")
    parser.add_argument("--engine", default="docker", help="docker or podman, which saves them")
    a = parser.parse_args()
    try:
        pack(a.folder.absolute(), [f".[{a.extras}]" if a.extras else "."], a.image, a.engine)
    except (FileExistsError, subprocess.CalledProcessError) as error:
        sys.exit(f"nothing was packed: {error}")
    print(f"packed {a.folder}: carry it over, and run ./install.sh there")


if __name__ == "__main__":
    main()
