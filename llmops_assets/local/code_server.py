"""The code location of a server: `python -m llmops_assets.local.code_server --host H --port P`.

Runs are its children. Where one starts there is none, so runs that are on record as going on were cut off: they are put
right first, and the daemon takes them up again.
"""

import argparse
import os
import sys

from llmops_assets.local.settle import settle
from llmops_assets.specs.settings import Settings
from llmops_assets.with_parent import ALONE, MODULE


def main() -> None:
    """Put right what an earlier code location left, and become Dagster's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--runs-elsewhere", action="store_true", help="runs are no children of this process")
    a = parser.parse_args()
    settings = Settings()
    cut_off = settle(settings, ours=not a.runs_elsewhere)
    for run in cut_off:
        print(f"run {run} was cut off: it is taken up again", flush=True)
    served = ["dagster", "api", "grpc", "-m", "llmops_assets.definitions", "--location-name", "llmops"]
    served += ["-h", a.host, "-p", str(a.port), "--log-level", "warning"]
    os.execv(sys.executable, [sys.executable, "-m", MODULE, ALONE, *served])


if __name__ == "__main__":
    main()
