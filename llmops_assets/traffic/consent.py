"""Whose texts may be used: those of users who agreed, or, where the policy assumes consent, who did not refuse."""

import polars as pl


def agreed(consent: bool | None, *, is_required: bool) -> bool:
    """Whether a user's answer, None for none, lets a text be used."""
    return consent is True if is_required else consent is not False


def has_agreed(*, is_required: bool) -> pl.Expr:
    """The same of each row, by its column `consent`."""
    return pl.col("consent").eq_missing(True) if is_required else pl.col("consent").ne_missing(False)
