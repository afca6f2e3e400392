"""`llmops reconciler`: what keeps model servers as they are wanted, as a service of its own."""

from llmops_assets.cli.common import wiring


def reconciler() -> None:
    """Start, stop and restart model servers until SIGTERM. `llmops up` runs one; start more as stand-ins: one acts.

    The model servers go on when this ends, and the next one finds them.

    Example: `LLMOPS_RECONCILER=service llmops reconciler`
    """
    from llmops_assets.local.reconciler import run

    run(wiring().settings)
