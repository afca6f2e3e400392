"""Which requests went on a conversation: what was asked and answered before them, as the model was shown it then."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import polars as pl

Turn = tuple[str, str]
"""What was asked, and what was answered."""
LONGEST_PAUSE = timedelta(hours=1)
"""Between two requests of one user without a session, of which the second may go on what the first began."""
_TOKENS_A_CHARACTER, _TEMPLATE_TOKENS = 4, 64
_WITHIN = ["user", "session"]


def with_conversations(traffic: pl.DataFrame) -> pl.DataFrame:
    """Requests with `conversation`, `turn` (from 0) and `broken`: whether a turn before them is not on record.

    A log has a request's last message alone. That another came before it in the same prompt shows in its tokens: they
    are those of the request before, of its answer, and hardly more than the new message has. What failed was shown to
    no later request. Order of the rows: by user, session and time.
    """
    query, tokens = pl.col("query"), pl.col("prompt_tokens")
    rows = traffic.filter(pl.col("status") < 400).sort(*_WITHIN, "at", "request_id")
    shown = (tokens + pl.col("completion_tokens")).shift(1).over(_WITHIN)
    longest = query.str.len_chars().fill_null(0) * _TOKENS_A_CHARACTER + _TEMPLATE_TOKENS
    soon = pl.col("session").is_not_null() | (pl.col("at") - pl.col("at").shift(1).over(_WITHIN) <= LONGEST_PAUSE)
    goes_on = ((tokens >= shown) & (tokens - shown <= longest) & soon).fill_null(False)
    rows = rows.with_columns((~goes_on).cum_sum().alias("conversation"))
    lost = query.is_null() | pl.col("response").is_null()
    before = lost.cast(pl.Int64).cum_sum() - lost.cast(pl.Int64)
    return rows.with_columns(
        pl.int_range(pl.len()).over("conversation").alias("turn"),
        (before.over("conversation") > 0).alias("broken"),
    )


def earlier_turns(rows: pl.DataFrame, requests: Sequence[str]) -> Mapping[str, tuple[Turn, ...]]:
    """What came before each of some requests, oldest first, from rows `with_conversations`."""
    chosen = rows.filter(pl.col("request_id").is_in(list(requests)))
    known = rows.join(chosen.select("conversation").unique(), on="conversation", how="semi")
    turns: dict[int, list[Turn]] = {}
    for conversation, query, response in known.select("conversation", "query", "response").iter_rows():
        turns.setdefault(conversation, []).append((query, response))
    places = chosen.select("request_id", "conversation", "turn").iter_rows()
    return {request: tuple(turns[conversation][:turn]) for request, conversation, turn in places}
