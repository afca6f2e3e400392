"""`llmops up`: the platform in the foreground."""

import signal
import time
from typing import Annotated

import typer

from llmops_assets.cli.common import out, say, wiring


class _Stop(Exception):
    """A signal asked the platform to end."""


def _stop(_signal: int, _frame: object) -> None:
    raise _Stop


def up(
    pages: Annotated[
        bool, typer.Option(help="Leave out the pages of Dagster and MLflow and the console: --no-pages.")
    ] = True,
) -> None:
    """Start the Dagster pages and daemon, the MLflow pages, the console and the gateway; Ctrl-C or SIGTERM stops them.

    What ends on its own is started again; what it started ends with it, even when it is killed.

    Example: `llmops up`
    """
    from llmops_assets.local.stack import platform

    settings = wiring().settings
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        with platform(settings, pages=pages) as stack:
            if stack is None:
                say(f"a platform is running on {settings.root} already")
                return
            if pages:
                out.print(f"Dagster  {settings.dagster_url}")
                out.print(f"MLflow   {settings.mlflow_url}")
                out.print(f"console  {settings.console_url}/llm-ops/v1")
            out.print(f"gateway  {settings.gateway_url}/v1")
            out.print(f"state    {settings.root} (logs in {settings.root / 'logs'})")
            out.print("Ctrl-C stops them all.")
            while True:
                stack.check()
                time.sleep(1)
    except _Stop:
        say("stopped")
