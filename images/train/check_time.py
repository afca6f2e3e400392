"""Adds up what a worker spends on looking whether a training is what it should be, beside the training itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class _Spent:
    """Seconds of this process, which works on one task."""

    seconds = 0.0


@contextmanager
def counted() -> Iterator[None]:
    """Count the body's wall time as time of checks."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        _Spent.seconds += time.perf_counter() - begun


def seconds() -> float:
    """What was counted so far."""
    return _Spent.seconds
