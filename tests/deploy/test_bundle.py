"""A folder that is carried over installs on a machine without a network, and only as it was packed."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.utils import canonicalize_name

from deploy.bundle.pack import pack
from deploy.bundle.sbom import bill
from llmops_assets.local.stack import REPOSITORY
from resources.engines import Engines

ALONE = ["unshare", "--net", "--map-root-user"]
"""A network namespace of its own: no route, not even a loopback that is up."""


def wheel(folder: Path, name: str, version: str) -> None:
    """A wheel of one module that has its version."""
    about = f"{name}-{version}.dist-info"
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"version = {version!r}\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The description of an engine with pins of its own, and of what it must not have."""
    root = tmp_path_factory.mktemp("engines")
    (root / "index").mkdir()
    (root / "solver").mkdir()
    for name in ("solver", "cuda_build"):
        wheel(root / "index", name, "1.0")
    lines = ["--no-index", f"--find-links {root / 'index'}", "cuda-build==1.0", "solver==1.0"]
    (root / "solver" / "requirements.txt").write_text("\n".join(lines) + "\n")
    (root / "solver" / "remove.txt").write_text("# Breaks imports.\ncuda_build\n")
    return root


@pytest.fixture(scope="module")
def bundle(engines: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own wheel, packed as all others are, and an engine."""
    folder = tmp_path_factory.mktemp("bundle") / "llmops"
    # Built by what is installed here: no index is asked.
    pack(folder, ["--no-deps", "--no-build-isolation", "."], environments={"solver": engines / "solver"})
    return folder


def install(bundle: Path, target: Path, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [*ALONE, str(bundle / "install.sh"), str(target)]
    environment = {
        "PATH": f"{first or '/usr/sbin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHON": sys.executable,
        "PIP_INDEX_URL": "https://192.0.2.1/",
    }
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_installs_where_nothing_can_be_reached(bundle: Path, engines: Path, tmp_path: Path) -> None:
    done = install(bundle, tmp_path / "opt")
    assert done.returncode == 0, done.stderr
    made = Engines(tmp_path / "opt" / "engines", engines)
    asked = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
    told = subprocess.run([made.python("solver"), "-c", asked], capture_output=True, text=True, check=True).stdout
    assert "solver==1.0" in told and "cuda" not in told
    assert f"LLMOPS_ENGINES={tmp_path / 'opt' / 'engines'}" in done.stdout
    python = tmp_path / "opt" / "venv" / "bin" / "python"
    asked = "import llmops_assets, images, importlib.metadata as m; print(llmops_assets.__file__, m.version('llmops'))"
    told = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.startswith(str(tmp_path)) and told.split()[1] == "0.1.0"
    assert (tmp_path / "opt" / "venv" / "bin" / "llmops").exists()
    installed = tmp_path / "opt" / "source"
    assert (installed / "deploy" / "compose.yaml").exists() and (installed / "docs" / "operate.md").exists()
    # What a wheel carries beside its modules.
    package = Path(told.split()[0]).parent
    assert (package / "specs" / "policy.yaml").exists()


@pytest.mark.parametrize("change", ["a wheel", "the list", "another file"])
def test_what_is_not_as_it_was_packed_is_refused_before_anything_is_installed(
    bundle: Path, tmp_path: Path, change: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    if change == "a wheel":
        (wheel,) = (copy / "wheels").glob("llmops-*.whl")
        wheel.write_bytes(wheel.read_bytes() + b"x")
    elif change == "the list":
        (copy / "requirements.txt").write_text("evil==1.0\n")
    else:
        (copy / "wheels" / "evil-1.0-py3-none-any.whl").write_bytes(b"x")
    done = install(copy, tmp_path / "opt")
    assert done.returncode == 1
    assert ("evil-1.0" if change == "another file" else "fetch it again") in done.stderr
    assert not (tmp_path / "opt").exists()


def test_a_client_without_an_engine_is_no_engine(bundle: Path, tmp_path: Path) -> None:
    copy, clients = tmp_path / "copy", tmp_path / "bin"
    shutil.copytree(bundle, copy)
    shutil.rmtree(copy / "engines")
    (copy / "images").mkdir()
    (copy / "images" / "one.tar").write_bytes(b"x")
    names = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    sums = subprocess.run(
        ["sha256sum", *(f"./{n.relative_to(copy)}" for n in names)], cwd=copy, capture_output=True, check=True
    )
    (copy / "SHA256SUMS").write_bytes(sums.stdout)
    clients.mkdir()
    for name in ("docker", "podman"):
        (clients / name).write_text("#!/bin/sh\necho no daemon >&2\nexit 1\n")
        (clients / name).chmod(0o755)
    done = install(copy, tmp_path / "opt", first=clients)
    assert done.returncode == 0 and "no engine answers" in done.stderr and "one.tar" in done.stderr
    assert "installed:" in done.stdout


def test_every_wheel_is_asked_for_by_its_hash_and_no_state_is_packed(bundle: Path) -> None:
    lists = [bundle / "requirements.txt", *sorted((bundle / "engines").glob("*.txt"))]
    lines = [line for file in lists for line in file.read_text().splitlines()]
    assert len(lists) == len(lines) == len(list((bundle / "wheels").glob("*.whl"))) == 2
    assert all("==" in line and " --hash=sha256:" in line for line in lines)
    tracked = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    packed = {str(path.relative_to(bundle / "source")) for path in (bundle / "source").rglob("*") if path.is_file()}
    assert packed == set(tracked.stdout.splitlines()) & packed and len(packed) > 500


def test_the_bill_of_materials_has_every_package_with_its_version_and_what_it_needs() -> None:
    found = list(metadata.distributions())
    made = bill(found)
    assert made == bill(found), "the same for the same versions"
    parts = {part["name"]: part for part in made["components"]}
    assert made["metadata"]["component"]["name"] == "llmops"
    installed = {canonicalize_name(one.metadata["Name"]) for one in found}
    assert parts.keys() == installed - {"llmops"} and len(parts) > 150
    assert parts["dagster"]["purl"] == "pkg:pypi/dagster@1.13.27"
    needs = {entry["ref"]: entry["dependsOn"] for entry in made["dependencies"]}
    assert any(ref.startswith("pkg:pypi/dagster-pipes@") for ref in needs["pkg:pypi/dagster@1.13.27"])
    refs = {part["bom-ref"] for part in (*made["components"], made["metadata"]["component"])}
    assert {ref for of in needs.values() for ref in of} <= refs == needs.keys()
