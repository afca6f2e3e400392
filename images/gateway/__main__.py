"""Starts the gateway with the installation's settings."""

import argparse
import logging
import sys

from images.gateway.access.mode import AccessMisconfigured
from images.gateway.app import create_app
from images.gateway.server import serve
from llmops_assets.privacy.masking import mask_text
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.gateway_token import ensure_admin_token


def main(arguments: list[str] | None = None) -> None:
    """Serve the gateway until it is stopped."""
    settings = Settings()
    parser = argparse.ArgumentParser(prog="python -m images.gateway", description=__doc__)
    parser.add_argument("--host", default=settings.gateway_address)
    parser.add_argument("--port", type=int, default=settings.gateway_port)
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The thread that masks and writes the log gives way to the event loop after this long, instead of 5 ms.
    sys.setswitchinterval(0.0005)
    ensure_admin_token(settings)
    policy = load_policy(settings.policy_file)
    rating = policy.experiments.rating
    try:
        app = create_app(
            Catalog(settings.catalog),
            lambda text: mask_text(text)[0],
            settings=settings.model_copy(update={"gateway_host": a.host}),
            policy=policy,
            scale=(rating.low, rating.high),
        )
    except AccessMisconfigured as error:
        sys.exit(f"the gateway does not start: {error}")
    serve(app, a.host, a.port, settings.gateway_admin_port or a.port + 1)


if __name__ == "__main__":
    main()
