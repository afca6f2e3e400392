"""Packs all that a machine without the internet needs into one folder with a list of checksums (`make bundle`)."""

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from packaging.utils import canonicalize_name

from resources.engines import REQUIREMENTS, Engines, digest, unwanted

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALL = Path(__file__).with_name("install.sh")
SUMS = "SHA256SUMS"
_PIP_WHEEL = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]


def pack(
    folder: Path,
    wheels: Sequence[str],
    images: Sequence[str] = (),
    engine: str = "docker",
    environments: Mapping[str, Path] | None = None,
) -> None:
    """Make the folder: wheels of what pip is asked for, the sources as committed, images by name, install.sh, sums.

    `wheels` are arguments of `pip wheel`. `environments` are engines with pins of their own: the folder that describes
    each, by its name. Raises FileExistsError for a folder with something in it, and CalledProcessError where a program
    that packs fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: name another folder, or remove it")
    _sources(folder / "source")
    with tempfile.TemporaryDirectory() as work:
        # Of what is committed alone: an earlier build leaves modules that are gone since.
        shutil.copytree(folder / "source", Path(work) / "source")
        asked = [*_PIP_WHEEL, "--wheel-dir", str(folder / "wheels"), "--constraint", "constraints.txt", *wheels]
        subprocess.run(asked, cwd=Path(work) / "source", check=True)
    (folder / "requirements.txt").write_text(requirements((folder / "wheels").glob("*.whl")), encoding="utf-8")
    for name, described in sorted((environments or {}).items()):
        _environment(folder, name, described)
    for image in images:
        (folder / "images").mkdir(exist_ok=True)
        file = folder / "images" / f"{image.replace('/', '_').replace(':', '_')}.tar"
        subprocess.run([engine, "save", "--output", str(file), image], check=True)
    shutil.copy(INSTALL, folder / INSTALL.name)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  ./{path.relative_to(folder)}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def _environment(folder: Path, name: str, described: Path) -> None:
    """An engine's wheels beside all others, and what it needs of them with hashes in `engines/NAME.txt`."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        asked = [*_PIP_WHEEL, "--wheel-dir", work, "--requirement", str(described / "requirements.txt")]
        subprocess.run(asked, check=True)
        left_out = {canonicalize_name(package) for package in unwanted(described)}
        wheels: list[Path] = []
        for made in sorted(Path(work).glob("*.whl")):
            if canonicalize_name(made.name.split("-")[0]) in left_out:
                continue
            # One that is there under this name is of the same release: torch is packed once for all environments.
            wheels.append(folder / "wheels" / made.name)
            if not wheels[-1].exists():
                shutil.move(made, wheels[-1])
    (folder / "engines").mkdir(exist_ok=True)
    (folder / "engines" / f"{name}.txt").write_text(requirements(wheels), encoding="utf-8")
    (folder / "engines" / f"{name}.digest").write_text(digest(described), encoding="utf-8")


def requirements(wheels: Iterable[Path]) -> str:
    """A requirement for every wheel, by its version and its hash."""
    lines = []
    for wheel in sorted(wheels):
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
    named = Engines(".engines").names()
    parser.add_argument(
        "--environment", action="append", default=[], choices=named, help="of an engine, again for more"
    )
    a = parser.parse_args()
    environments = {name: REQUIREMENTS / name for name in a.environment}
    try:
        pack(a.folder.absolute(), [f".[{a.extras}]" if a.extras else "."], a.image, a.engine, environments)
    except (FileExistsError, subprocess.CalledProcessError) as error:
        sys.exit(f"nothing was packed: {error}")
    print(f"packed {a.folder}: carry it over, and run ./install.sh there")


if __name__ == "__main__":
    main()
