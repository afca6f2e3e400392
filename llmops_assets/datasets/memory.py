"""Memory that nothing uses any more, back to the system."""

import ctypes
import gc


def give_back() -> None:
    """Hand freed memory back: glibc keeps what lies between blocks in use, and the next asset of a run asks for more.

    Takes some milliseconds; does nothing with another C library.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
