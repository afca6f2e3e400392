"""Where `resources.catalog.tables` was before the catalog became a package."""

from resources.catalog.tables import *  # noqa: F403
