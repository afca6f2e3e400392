"""Starts the gateway with the installation's settings."""

import argparse
import contextlib
import signal
import socket
import sys

from images.gateway.access.mode import AccessMisconfigured, access_of
from images.gateway.app import create_app
from images.gateway.server import serve
from images.gateway.shipping import shipping
from images.gateway.telemetry.logs import configure
from images.gateway.workers import supervise
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
    parser.add_argument("--listen-fd", type=int, help="Of a worker: the socket that it shares with the others.")
    parser.add_argument("--admin-socket", help="Of a worker: where it answers for itself.")
    a = parser.parse_args(arguments)
    configure(settings.gateway_log)
    # The thread that masks and writes the log gives way to the event loop after this long, instead of 5 ms.
    sys.setswitchinterval(0.0005)
    settings = settings.model_copy(update={"gateway_host": a.host})
    policy, admin_port = load_policy(settings.policy_file), settings.gateway_admin_port or a.port + 1
    try:
        access_of(settings, policy.access)
    except AccessMisconfigured as error:
        sys.exit(f"the gateway does not start: {error}")
    with contextlib.ExitStack() as held:
        if a.listen_fd is None:
            # Of several workers the one that holds their socket has it shipped for all.
            held.enter_context(shipping(settings, policy))
        if settings.gateway_workers > 1 and a.listen_fd is None:
            sys.exit(supervise(settings, a.host, a.port, admin_port))
        ensure_admin_token(settings)
        rating = policy.experiments.rating
        app = create_app(
            Catalog(settings.catalog),
            settings=settings,
            policy=policy,
            scale=(rating.low, rating.high),
        )
        listener = None if a.listen_fd is None else socket.socket(fileno=a.listen_fd)
        ended_by = serve(app, a.host, a.port, admin_port, listener=listener, admin_socket=a.admin_socket)
    for number in ended_by:
        signal.raise_signal(number)


if __name__ == "__main__":
    main()
