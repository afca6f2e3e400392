"""What embeddings used: by the minute beside the log, and added to the ledger as it comes."""

from collections.abc import Sequence
from datetime import UTC

from resources.catalog import tables as t
from resources.catalog.database import Row, Transaction
from resources.catalog.minutes import add_to_minute
from resources.catalog.usage import Used, add_usage

_SUMS = ("requests", "failed", "prompt_tokens", "estimated_tokens")


def add_embedded(transaction: Transaction, rows: Sequence[Row]) -> int:
    """Add counts to their minutes and to the ledger, each once however often it is shipped; how many were new."""
    columns = set(t.embedded.c.keys())
    new = [
        row
        for row in rows
        if add_to_minute(transaction, t.embedded, {n: v for n, v in row.items() if n in columns}, _SUMS)
    ]
    last_used = {row["key"]: row["at"] for row in new if row["key"]}
    add_usage(transaction, (_used(row) for row in new), last_used)
    return len(new)


def _used(row: Row) -> Used:
    day = row["at"].astimezone(UTC).date().isoformat()
    return Used(day, row["key"], row["team"], row["endpoint"], row["model_ref"], **{name: row[name] for name in _SUMS})
