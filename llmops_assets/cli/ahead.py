"""Starts what a command waits for longest before the rest of the command line is imported.

A scan looks for names by an analyser that takes as long to load as everything else that it imports.
"""

import os
import sys
from collections.abc import Sequence


def wants_names(arguments: Sequence[str], cores: int) -> bool:
    """Whether a command line is a scan that looks for names, on a machine that can do two things at once."""
    rest = arguments[2:]
    return tuple(arguments[:2]) == ("dataset", "scan") and cores > 1 and len(rest) > 0 and _NOT.isdisjoint(rest)


_NOT = {"--no-names", "--help", "-h"}

if wants_names(sys.argv[1:], os.cpu_count() or 1):
    from llmops_assets.privacy import name_process

    name_process.start()
