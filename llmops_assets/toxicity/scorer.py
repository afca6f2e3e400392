"""What a toxicity scorer is: it tells of each text whom it offends. It flags; it deletes nothing."""

from typing import Protocol

import polars as pl

UNNAMED = "toxic"
"""The group of a text that offends nobody in particular."""


class ToxicityError(RuntimeError):
    """A scorer cannot be made or used: its file is missing, of another kind, or unsafe."""


class ToxicityScorer(Protocol):
    """Judges texts: for each the groups that it offends, empty where it offends none."""

    def groups(self, values: pl.Series) -> pl.Series:
        """A list of group names a text, in the order given."""
        ...
