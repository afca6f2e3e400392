"""Where `resources.catalog.erasures` was before the catalog became a package."""

from resources.catalog.erasures import *  # noqa: F403
