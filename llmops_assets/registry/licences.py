"""Under which licence a model falls that others are made from."""

from contextlib import suppress

from resources.catalog import Catalog, NotFound
from resources.tracking import Tracking


def base_license(catalog: Catalog, tracking: Tracking, ref: str) -> str | None:
    """The licence of a base where the catalog knows it; of an earlier training of ours, that of its data."""
    with suppress(NotFound):
        # Else it is no registered base, and its data are looked at.
        return catalog.base_model(ref).license
    if "|" in ref:
        origin = ref.partition("|")[0]
    else:
        try:
            origin = tracking.model(ref).dataset
        except (LookupError, ValueError):
            return None
    try:
        return catalog.dataset(origin).license
    except NotFound:
        return None
