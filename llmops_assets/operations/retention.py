"""What is taken out of the records after a time, because nobody asks for it any more."""

from datetime import UTC, datetime, timedelta

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring
from resources.run_log_pruning import Pruned
from resources.run_log_pruning import prune as prune_lines

LEAST_DAYS = 1


def prune(wiring: Wiring, actor: str, *, days: int, dry_run: bool = False) -> Pruned:
    """Take the log lines of runs that ended more than `days` ago out of Dagster's storage; `dry_run` only counts.

    What assets and checks have said stays. Raises Refused for less than a day: runs may still be looked at.
    """
    authorise(wiring, actor, "run.prune")
    if days < LEAST_DAYS:
        raise Refused(f"{days} days: lines are kept for {LEAST_DAYS} at least, so that what just failed can be read")
    moment = datetime.now(UTC) - timedelta(days=days)
    found = prune_lines(wiring.run_log, moment.timestamp(), dry_run=dry_run)
    if found.lines and not dry_run:
        wiring.catalog.log(actor, "run.prune", f"{days} days", runs=found.runs, lines=found.lines)
    return found
