"""Starts the gateway with the installation's settings."""

import argparse
import logging
import sys

import uvicorn

from images.gateway.app import create_app
from llmops_assets.privacy.masking import mask_text
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog


def main(arguments: list[str] | None = None) -> None:
    """Serve the gateway until it is stopped."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m images.gateway", description=__doc__)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=settings.gateway_port)
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The thread that masks and writes the log gives way to the event loop after this long, instead of 5 ms.
    sys.setswitchinterval(0.0005)
    rating = load_policy(settings.policy_file).experiments.rating
    app = create_app(Catalog(settings.catalog), lambda text: mask_text(text)[0], scale=(rating.low, rating.high))
    # On SIGTERM new connections are refused and what is in flight is answered, then the log is written out.
    uvicorn.run(app, host=a.host, port=a.port, access_log=False, server_header=False, timeout_graceful_shutdown=30)


if __name__ == "__main__":
    main()
