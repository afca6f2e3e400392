"""What the gateway costs: processor time and latency a request, against the same model server asked directly.

Run it with ``python -m benchmarks.gateway``; it takes less than three minutes. The model server answers a fixed text at
once, so all that is measured is the gateway with everything on: tokens (JWT), limits, the guards' rules on both sides,
assignment, the log, metrics. Processor time is the figure to compare: it depends least on what else the machine does;
`could answer` is what one core would at that cost. Each line is the round that cost least.

A proxy of Starlette and aiohttp that only passes everything on is measured beside it: what one of these
libraries costs at least on this machine. With `--litellm FOLDER` and `--vllm-router FOLDER`, environments that have
`litellm[proxy]` and `vllm-router`, these are measured too, and with `--router COMMAND` any other proxy, whose command
has `{port}` and `{upstream}` in it: the same model server, the same load, no database. None of them has tokens, limits
or guards on here.

`--only` runs some parts alone; `steady` and `connections` are run only where they are named. The former sends
`--rate` requests a second for `--minutes`.
"""

import argparse
import os
import resource
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks import gateway_parts as parts
from benchmarks.gateway_site import Site

USUAL = ("cost", "workers", "switch", "exposures")
MORE = ("steady", "connections")


def main() -> None:
    """Print the table of each part."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateway", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=2000, help="of one round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--litellm", type=Path, metavar="FOLDER", help="virtual environment with litellm[proxy]")
    parser.add_argument("--vllm-router", type=Path, metavar="FOLDER", help="virtual environment with vllm-router")
    parser.add_argument("--router", metavar="COMMAND", help="command of another proxy, with {port} and {upstream}")
    parser.add_argument("--only", nargs="+", choices=(*USUAL, *MORE), default=USUAL)
    parser.add_argument("--minutes", type=float, default=10.0, help="of `steady`")
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second of `steady`")
    parser.add_argument("--connections", type=int, default=10_000, help="of `connections`")
    arguments = parser.parse_args()
    # Stopped from outside, it takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(parts.about_the_machine())
    for part in arguments.only:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            site = Site(Path(name), secrets.token_hex(24))
            try:
                getattr(parts, part)(site, arguments)
            finally:
                site.stop()
        sys.stdout.flush()
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
