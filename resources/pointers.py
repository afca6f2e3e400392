"""Where `resources.catalog.pointers` was before the catalog became a package."""

from resources.catalog.pointers import *  # noqa: F403
