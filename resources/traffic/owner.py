"""Whose log a folder of spools is: that of one catalog, so that no other one gets what was logged for it."""

import json
import logging
from pathlib import Path

import sqlalchemy as sa

from resources import files

log = logging.getLogger("gateway.spool")

_NAME = "catalog.json"


class ForeignSpool(RuntimeError):
    """The spools in a folder are another catalog's."""


def claim(root: Path, identity: str, url: str) -> None:
    """See that the spools under `root` are those of the catalog that has an `identity`, and note it where nothing does.

    Raises ForeignSpool where they are another's: its gateways would serve this one's routes, and each would ship what
    the other logged. `url` is where the catalog is now, for people: one that is moved stays the same.
    """
    # By the home that it lies in: nothing that is kept names a path of the machine.
    here = sa.make_url(url).render_as_string(hide_password=True).replace(f"{root.absolute().parent}/", "home:")
    known = _read(root)
    if known is None or (known["identity"] == identity and known["url"] != here):
        known = _note(root, identity, here)
    if known is not None and known["identity"] != identity:
        raise ForeignSpool(
            f"the spool {root} belongs to the catalog {known['url']}, and this process has {here}, which is another "
            "one. Two catalogs cannot share a home: give this one a LLMOPS_HOME of its own, or set LLMOPS_CATALOG_URL "
            "to that of the home. If the home is to have this catalog from now on, ship what lies there first with "
            f"the old address (`python -m images.gateway.ship --once`), and then remove {root / _NAME}"
        )


def _read(root: Path) -> dict[str, str] | None:
    try:
        found = json.loads((root / _NAME).read_text())
        return {"identity": str(found["identity"]), "url": str(found["url"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ForeignSpool(
            f"{root / _NAME} cannot be read ({error}): it says whose log the spool is. Remove it if only one catalog "
            "ever used this home"
        ) from error


def _note(root: Path, identity: str, url: str) -> dict[str, str] | None:
    """Write whose the spools are, unless another catalog was faster; what stands there then."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with files.locked(root / f".{_NAME}.lock"):
            known = _read(root)
            if known is not None and known["identity"] != identity:
                return known
            mine = {"identity": identity, "url": url}
            files.write_text(root / _NAME, json.dumps(mine, indent=1), mode=0o600)
            return mine
    except OSError as error:
        # A full disk is made room on by shipping.
        log.warning("%s cannot be written: %s", root / _NAME, error)
        return None
