"""Sealing everything that holds rows with another key."""

from collections.abc import Callable, Sequence

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring
from resources import at_rest
from resources.traffic.spool import spool_keys, spool_root
from resources.traffic.spool_lag import under_other_keys


def rotate_keys(
    wiring: Wiring,
    actor: str,
    platform_keys: Sequence[str] | None,
    progress: Callable[[int], None] = lambda count: None,
) -> at_rest.Resealed:
    """Seal every file that holds rows with the first key, whatever it is under now; cut off, the same call goes on.

    `platform_keys` are the ids of the keys that the platform which runs on this home has, None when none runs. Raises
    Refused, before anything is changed, when it could not read what is sealed; EncryptionError without a key.
    """
    authorise(wiring, actor, "keys.rotate")
    if platform_keys is not None and wiring.keys and wiring.keys.ids[0] not in platform_keys:
        has = f"has the keys {', '.join(platform_keys)}" if platform_keys else "has no key"
        raise Refused(
            f"the platform that runs on {wiring.settings.root} {has}, and could not read what is sealed with key "
            f"{wiring.keys.ids[0]}: stop it, start it with this key (and the old one behind it), then rotate"
        )
    done = at_rest.reseal(wiring.artifacts, wiring.records, wiring.keys, progress)
    spool = spool_root(wiring.settings)
    # The spool's own key, where it has one, is beside it and stays.
    own = spool_keys(spool, wiring.keys).ids[len(wiring.keys.ids) :] if spool.exists() else ()
    done.waiting = under_other_keys(spool, [wiring.keys.ids[0], *own])
    wiring.catalog.log(actor, "keys.rotate", wiring.keys.ids[0], sealed=done.sealed, changed=done.changed)
    return done
