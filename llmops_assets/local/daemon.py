"""Runs Dagster's daemon for a code server that stays the same: `python -m llmops_assets.local.daemon run -w FILE`.

Dagster's own reads the whole graph again every minute, a quarter of what it costs while nothing happens. Here the graph
goes with the code server, and both with the platform.
"""

from dagster._daemon import controller
from dagster._daemon.cli import main

from resources.dagster_storage import share_engines

REFRESH_SECONDS = controller.DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE - 30
"""Within what the daemon takes for a graph that it may still go by."""

if __name__ == "__main__":
    share_engines()
    vars(controller)["RELOAD_WORKSPACE_INTERVAL"] = REFRESH_SECONDS
    main()
