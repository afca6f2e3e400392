"""Makes a server's storage ready, before its processes start: `python -m llmops_assets.local.server_setup`.

Safe to repeat, and to run while the server is up: what is there already stays as it is.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
import sqlalchemy.exc

from llmops_assets.specs.base import SpecError
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources import mlflow_schema
from resources.backup.make import revision_of

if TYPE_CHECKING:
    from resources.catalog import Catalog

FOLDERS = ("artifacts", "cache", "dagster", "gpus", "incoming", "logs", "pipes", "records", "servers", "spool")
FIRST_KEY = "first-admin.key"
"""File in the home with the first API key, for whoever sets the server up; its owner alone can read it."""
WAIT_SECONDS = 120.0


class NotReady(RuntimeError):
    """A part of the server could not be made ready; the message says which, and what to do."""


def setup(
    settings: Settings, instance_file: Path, password_file: Path | None = None, *, wait_seconds: float = WAIT_SECONDS
) -> list[str]:
    """Make the home, the catalog, Dagster's and MLflow's tables, a first key and user; what was done, a sentence each.

    `instance_file` is the dagster.yaml of the server, `password_file` holds the password of the first user, `admin`. A
    database that does not answer yet is waited for.
    """
    wiring = Wiring(settings)
    settings.root.mkdir(parents=True, exist_ok=True)
    settings.root.chmod(0o700)
    for name in FOLDERS:
        (settings.root / name).mkdir(exist_ok=True)
    _copy(instance_file, settings.dagster_home / "dagster.yaml")
    _patiently("the catalog", wiring.catalog.open, wait_seconds)
    done = [f"the catalog has the schema of this version: {_shown(settings.catalog)}"]
    _patiently("Dagster's database", lambda: _prepare_dagster(settings, wiring.catalog), wait_seconds)
    done.append("Dagster's tables are there, and those of this version")
    with wiring.catalog.database.lock("mlflow storage", timeout=600):
        _patiently("MLflow's database", lambda: _prepare_mlflow(wiring), wait_seconds)
    done.append("MLflow's tables are there, and those of this version")
    if (key := _first_key(wiring)) is not None:
        done.append(f"the first API key is in {key}: give it to nobody, make others with it, and revoke it")
    if password_file is not None and _first_user(wiring, password_file):
        done.append(f"the first user is admin, with the password in {password_file.name}: make others, and disable it")
    return done


def _copy(source: Path, target: Path) -> None:
    """Replace a file by a copy at once: a process that starts meanwhile reads the old or the new one."""
    temporary = target.with_name(f"{target.name}.new")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def _patiently(what: str, prepare: Callable[[], object], seconds: float) -> None:
    """Call `prepare` until its database answers; NotReady with the last error after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            prepare()
            return
        except sqlalchemy.exc.OperationalError as error:
            if time.monotonic() > deadline:
                raise NotReady(
                    f"{what} does not answer after {seconds:.0f} s: {error.orig}. Look whether its server runs, and "
                    "whether PGPASSFILE names a file with its password that its owner alone can read (mode 0600)"
                ) from error
            time.sleep(1.0)


def _prepare_dagster(settings: Settings, catalog: "Catalog") -> None:
    """Create or upgrade Dagster's tables, one process at a time: two that create them at once trip over each other."""
    os.environ["DAGSTER_HOME"] = str(settings.dagster_home)
    import dagster as dg

    with catalog.database.lock("dagster storage", timeout=600), dg.DagsterInstance.get() as instance:
        instance.upgrade()


def _prepare_mlflow(wiring: Wiring) -> None:
    """Create MLflow's tables, or bring those of an earlier MLflow up to date, which it may refuse to open."""
    url = wiring.settings.mlflow
    if not url.startswith(("http://", "https://")) and revision_of(url) not in (None, mlflow_schema.newest()):
        mlflow_schema.upgrade(url)
    wiring.tracking.prepare()


def _first_key(wiring: Wiring) -> Path | None:
    """Make the first API key of an installation that has none; where it is, or None."""
    from llmops_assets.operations.api_keys import KeyWish, create_key, list_keys

    with wiring.catalog.database.lock("first key", timeout=60):
        if list_keys(wiring, "setup"):
            return None
        _key, secret = create_key(wiring, "setup", KeyWish(owner="admin", role="admin", note="made by the setup"))
        file = wiring.settings.root / FIRST_KEY
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as opened:
            opened.write(secret + "\n")
        return file


def _first_user(wiring: Wiring, password_file: Path) -> bool:
    """Make the first user of an installation that has none; False where it has one."""
    from llmops_assets.operations.users import create_user

    with wiring.catalog.database.lock("first user", timeout=60):
        if wiring.catalog.users.any():
            return False
        create_user(wiring, "setup", "admin", ["admin"], password_file.read_text(encoding="utf-8").strip())
        return True


def _shown(url: str) -> str:
    return sa.make_url(url).render_as_string(hide_password=True)


def main() -> None:
    """Set the server of the environment's settings up; exit code 1 with the reason where that fails."""
    settings = Settings()
    try:
        for line in setup(settings, *map(Path, sys.argv[1:3])):
            print(line, flush=True)
    except (NotReady, SpecError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
