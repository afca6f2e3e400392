"""Writes what a server needs before its containers start: secrets, settings, folders (`make server-folder`).

Needs Python 3.11 and openssl, nothing else. What is there already stays: a second run changes no secret.
"""

import argparse
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Callable, Collection
from ipaddress import ip_address, ip_network
from pathlib import Path

DEPLOY = Path(__file__).resolve().parent
_RELEASE = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
DATABASES = ("catalog", "dagster", "mlflow")
"""Each is a database and its owner, and one line of the password file."""
FOLDERS = ("alertmanager", "home", "home/import", "home/spool", "policy", "postgres", "prometheus", "qdrant", "secrets")
NOBODY = 65534
DEFAULTS = {
    "LLMOPS_BASE": "python:3.11-slim-bookworm",
    "LLMOPS_CERBOS_URL": "",
    "LLMOPS_ENGINE_SOCKET": "/var/run/docker.sock",
    "LLMOPS_EXTRAS": "train,serve",
    "LLMOPS_GATEWAY_WORKERS": "2",
    "LLMOPS_GRAFANA_IMAGE": "docker.io/grafana/grafana:12.2.0",
    "LLMOPS_HTTPS_ADDRESS": "0.0.0.0",
    "LLMOPS_HTTPS_PORT": "8443",
    "LLMOPS_IMAGES": "localhost/",
    "LLMOPS_OMP_THREADS": "",
    "LLMOPS_POLICY_FILE": "",
    "LLMOPS_PROMETHEUS_RETENTION": "30d",
    "LLMOPS_PROMETHEUS_SIZE": "5GB",
    "LLMOPS_PROXY": "172.28.44.2",
    "LLMOPS_QDRANT_IMAGE": "docker.io/qdrant/qdrant:v1.16.0",
    "LLMOPS_QDRANT_URL": "",
    "LLMOPS_SERVER_NAME": socket.gethostname(),
    "LLMOPS_SUBNET": "172.28.44.0/24",
    "LLMOPS_VERSION": _RELEASE,
}
"""What `deploy/compose.yaml` asks for, and what it is where nobody says otherwise."""
GIVEN = "LLMOPS_GIVEN"
"""Variable with the names of those that somebody gave, which no release changes."""
SETTINGS = """\
# Settings of the platform (docs/settings.md) that are none of `make server`, a NAME=VALUE a line: logins, tokens,
# where alerts go. The engine shows what is here to whoever may ask it: a secret goes into a file in policy/ beside this
# one, and here is LLMOPS_…_FILE=/etc/llmops/policy/NAME. Then: make server
"""
"""What is said in the file of the operator's own settings until there are some."""
_STRANGE = re.compile(r"[\s$#'\"\\]")
"""What ends a value, or is put in or read anew, in the file of variables that compose reads."""


def render(folder: Path, given: dict[str, str]) -> list[str]:
    """Make the folder of a server; what was made, a sentence each. `given` are variables of `DEFAULTS` by name.

    Raises ValueError for a variable that compose.yaml does not ask for.
    """
    if unknown := given.keys() - DEFAULTS.keys():
        raise ValueError(f"{', '.join(sorted(unknown))}: no variable of a server; there are {', '.join(DEFAULTS)}")
    for name, value in (*given.items(), ("the folder", str(folder))):
        if strange := _STRANGE.search(value):
            raise ValueError(
                f"{name}: compose takes {strange[0]!r} in {value!r} for something else; name another value"
            )
    if ":" in str(folder):
        raise ValueError(f"the folder {folder}: engines part a mount at a colon; name another folder")
    # Docker's users need not be root. Root itself owns nothing that a container writes.
    uid, gid = (os.getuid(), os.getgid()) if os.getuid() else (NOBODY, NOBODY)
    for name in FOLDERS:
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        _own(folder / name, uid, gid)
    said = _said(folder / "env") | given
    # The name of a machine may change, and certificate and links are to the one that it had.
    settings = DEFAULTS | _read(folder / "env", ["LLMOPS_SERVER_NAME"]) | said
    # As browsers send it: MLflow and the console compare names letter by letter.
    server_name = settings["LLMOPS_SERVER_NAME"].lower()
    others = _others(settings["LLMOPS_SUBNET"], settings["LLMOPS_PROXY"])
    settings |= {"LLMOPS_DATA": str(folder), "LLMOPS_USER": f"{uid}:{gid}", "LLMOPS_SERVER_NAME": server_name}
    settings |= {"LLMOPS_OTHERS": others, GIVEN: " ".join(sorted(said))}
    _write(folder / "env", "".join(f"{name}={value}\n" for name, value in sorted(settings.items())), uid, gid)
    users = f"root:x:0:0::/root:/bin/sh\nllmops:x:{uid}:{gid}::/tmp:/bin/sh\n"
    _write(folder / "passwd", users, uid, gid, mode=0o644)
    if not (folder / "settings.env").exists():
        _write(folder / "settings.env", SETTINGS, uid, gid)
    if not (folder / "alertmanager.yml").exists():
        shutil.copyfile(DEPLOY / "prometheus" / "alertmanager.yml", folder / "alertmanager.yml")
        _own(folder / "alertmanager.yml", uid, gid)
    return _secrets(folder / "secrets", server_name, uid, gid)


def _others(subnet: str, proxy: str) -> str:
    """The upper half of a network: addresses for containers that ask for none.

    Raises ValueError where the proxy's own is not in the lower half.
    """
    lower, upper = ip_network(subnet).subnets(prefixlen_diff=1)
    if ip_address(proxy) not in lower:
        raise ValueError(f"LLMOPS_PROXY={proxy}: name an address of {lower}, the lower half of LLMOPS_SUBNET={subnet}")
    return str(upper)


def _secrets(folder: Path, server_name: str, uid: int, gid: int) -> list[str]:
    made: list[str] = []

    def once(name: str, text: Callable[[], str]) -> Path:
        """A secret's file, made where there is none; mode 0600, so that its owner alone reads it."""
        if not (folder / name).exists():
            _write(folder / name, text(), uid, gid)
            made.append(f"{folder / name}")
        return folder / name

    passwords = once("pgpass", lambda: "".join(f"*:*:{d}:{d}:{secrets.token_hex(24)}\n" for d in DATABASES))
    # The gateway reads the catalog and nothing else.
    catalog = next(line for line in passwords.read_text().splitlines() if ":catalog:" in line)
    once("pgpass-catalog", lambda: f"{catalog}\n")
    once("encryption.key", lambda: f"{secrets.token_hex(32)}\n")
    once("gateway-admin.token", lambda: f"{secrets.token_urlsafe(32)}\n")
    once("admin.password", lambda: f"{secrets.token_urlsafe(18)}\n")
    if not (folder / "tls.crt").exists():
        _self_signed(folder, server_name)
        for name in ("tls.crt", "tls.key"):
            (folder / name).chmod(0o600)
            _own(folder / name, uid, gid)
        made.append(f"{folder / 'tls.crt'}, signed by nobody: put one of your house there, and its key beside it")
    return made


def _self_signed(folder: Path, name: str) -> None:
    subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(folder / "tls.key")]
    _openssl("req", "-x509", "-days", "365", *key, *subject, "-out", str(folder / "tls.crt"))


def _openssl(*arguments: str, data: str = "") -> str:
    """What openssl prints; secrets go in by its standard input, where no list of processes shows them."""
    done = subprocess.run(["openssl", *arguments], input=data, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def _said(file: Path) -> dict[str, str]:
    """What somebody said of a server, this time or before: all else is as this release has it.

    A file that does not tell is of a time when all was kept; of that the version of the images alone is this release's.
    """
    told = _read(file, [GIVEN])
    names = told[GIVEN].split() if GIVEN in told else DEFAULTS.keys() - {"LLMOPS_VERSION"}
    return _read(file, DEFAULTS.keys() & set(names))


def _read(file: Path, names: Collection[str]) -> dict[str, str]:
    """The variables of these names in a file as it was written."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return {name: value for name, _, value in (line.partition("=") for line in lines) if name in names}


def _write(file: Path, text: str, uid: int, gid: int, *, mode: int = 0o600) -> None:
    """Replace a file at once by one that nobody could read meanwhile."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as opened:
        opened.write(text)
    _own(temporary, uid, gid)
    temporary.replace(file)


def _own(path: Path, uid: int, gid: int) -> None:
    if os.getuid() == 0:
        os.chown(path, uid, gid)


def main() -> None:
    """Render the folder that is named; `NAME=VALUE` arguments are settings of the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    a = parser.parse_args()
    try:
        given = dict(one.split("=", 1) for one in a.settings)
    except ValueError:
        sys.exit(f"each setting should be NAME=VALUE: {' '.join(a.settings)}")
    try:
        for line in render(a.folder.expanduser().absolute(), given):
            print(f"made {line}")
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"the server's folder could not be made: {error}")


if __name__ == "__main__":
    main()
