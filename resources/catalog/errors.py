"""What the catalog answers when it cannot do what was asked."""


class NotFound(LookupError):
    """What was asked for is not in the catalog."""


class Conflict(ValueError):
    """What was asked for contradicts what is in the catalog."""


class Busy(TimeoutError):
    """Somebody else holds the lock that was waited for."""


class CatalogTooNew(RuntimeError):
    """The catalog was written by a later version of the platform, whose schema this one does not know."""


class CatalogDamaged(ValueError):
    """A value in the catalog is none of its column's: somebody else than the platform wrote it.

    A ValueError, as its parser's: whoever reads records one by one goes on with the others.
    """
