"""The key that a model server of somebody else's wants."""

import os

from images.gateway.events import BackendFailed
from images.gateway.routes import Replica


def key_of(replica: Replica) -> str | None:
    """From the variable of the environment that its spec names; BackendFailed where it is not set."""
    if replica.key_variable is None:
        return None
    key = os.environ.get(replica.key_variable, "").strip()
    if not key:
        raise BackendFailed(f"backend {replica.backend} wants a key: set the variable {replica.key_variable}")
    return key
