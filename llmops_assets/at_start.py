"""Imported before all that makes the graph, keeps the collector from looking for garbage where everything stays.

Every run of Dagster's is a process of its own that loads the graph first: a sixth of that went into the collector.
"""

import gc

gc.disable()


def over() -> None:
    """Have the collector at work again, on what is made from here on."""
    gc.freeze()
    gc.enable()
