"""Which of an endpoint's last requests are asked again: consented, masked, of many users, and within a budget."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from llmops_assets.replay.conversations import earlier_turns, with_conversations
from llmops_assets.specs.serving_rules import Replay
from llmops_assets.traffic import days
from llmops_assets.traffic.consent import has_agreed
from resources.artifacts import Artifacts
from resources.traffic.context import Sent, sent_of


@dataclass(frozen=True)
class Asked:
    """A request of a user with the answer that was given then; `correction` is what that user says is right, `messages`
    all that was sent, or without them the question alone."""

    request_id: str
    user: str
    query: str
    answer: str
    model_ref: str
    finish_reason: str | None
    latency_ms: float
    prompt_tokens: int
    correction: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if not self.messages:
            object.__setattr__(self, "messages", Sent.alone(self.query).messages)

    @property
    def conversation(self) -> str:
        """The same as text: the request alone, where nothing came before it."""
        return Sent(self.messages).conversation

    @property
    def is_lone(self) -> bool:
        """Whether nothing was sent but the question."""
        return len(self.messages) == 1


@dataclass(frozen=True)
class Sample:
    """Requests to ask again, the days they are of, how many were left out by reason, and the tokens they may cost."""

    requests: tuple[Asked, ...]
    days: tuple[str, ...]
    left_out: Counter[str] = field(default_factory=Counter)
    tokens: int = 0


def recent_traffic(
    artifacts: Artifacts, endpoint: str, last: int, today: date
) -> tuple[pl.DataFrame | None, list[str]]:
    """The compacted days of an endpoint in the last `last` days, as one table, and which days these are."""
    first = (today - timedelta(days=last)).isoformat()
    found = [day for _, day in days.days_of(artifacts, endpoint) if day >= first]
    frames = [days.read(artifacts, endpoint, day) for day in found]
    return (pl.concat(frames, how="diagonal_relaxed") if frames else None), found


def sample(traffic: pl.DataFrame | None, of_days: Iterable[str], candidate: str, rules: Replay, consent: str) -> Sample:
    """Choose from a table of traffic (`traffic.days.compact`).

    Every user gives a request before any gives a second, and which of a user's come first is drawn by their ids: the
    same traffic gives the same sample. A request that went on a conversation comes with the turns before it, and is
    left out where one of them is not on record. Left out is what nobody agreed to (`consent` of the policy: assumed,
    required), what was not answered, what the candidate itself answered, and questions that are there already. The
    token budget counts each prompt and the longest answer that is allowed.
    """
    left_out: Counter[str] = Counter()
    if traffic is None or traffic.is_empty():
        return Sample((), tuple(of_days), left_out)
    agreed = has_agreed(is_required=consent == "required")
    rules_of_rows = (
        ("no consent", ~agreed),
        ("no question or no answer on record", pl.col("query").is_null() | pl.col("response").is_null()),
        ("was not answered", (pl.col("status") >= 400) | (pl.col("response").str.strip_chars() == "")),
        ("answered by the candidate itself", pl.col("model_ref") == candidate),
        ("what came before it is not on record", pl.col("missing") | pl.col("broken").fill_null(False)),
        ("asked with tools, which nobody runs here", pl.col("tools")),
        ("no question", pl.col("query").str.strip_chars() == ""),
    )
    traffic = days.complete(traffic)
    # What an earlier release logged has no turns: they are found by the tokens.
    in_order = with_conversations(traffic)
    inferred = in_order.filter(pl.col("turns").is_null()).select("request_id", "conversation", "turn", "broken")
    rows = traffic.join(inferred, on="request_id", how="left", maintain_order="left")
    sent = [sent_of(row) for row in rows.iter_rows(named=True)]
    by_request = dict(zip(rows["request_id"], sent, strict=True))
    rows = rows.with_columns(
        pl.Series("missing", [one.missing is not None for one in sent], dtype=pl.Boolean),
        pl.Series("tools", [_has_tools(one) for one in sent], dtype=pl.Boolean),
    )
    for reason, applies in rules_of_rows:
        hit = rows.select(applies.fill_null(True)).to_series()
        left_out[reason] += int(hit.sum())
        rows = rows.filter(~hit)
    drawn = pl.Series("drawn", [hashlib.sha256(id.encode()).hexdigest() for id in rows["request_id"]], dtype=pl.String)
    rows = rows.with_columns(drawn).sort("drawn")
    whole = rows.height
    # The same words later in another conversation ask something else.
    alone = pl.when(pl.col("turn") > 0).then(pl.col("conversation"))
    rows = rows.with_columns(pl.col("query").str.to_lowercase().str.strip_chars().alias("words"), alone.alias("alone"))
    rows = rows.unique(["words", "alone", "context"], keep="first", maintain_order=True)
    left_out["asked already, by somebody else or the same"] += whole - rows.height
    place = pl.int_range(pl.len()).over("user").alias("place")
    rows = rows.with_columns(place).sort("place", "drawn")
    earlier = earlier_turns(in_order, rows.filter(pl.col("turn") > 0)["request_id"].to_list())
    chosen: list[Asked] = []
    tokens = 0
    for row in rows.iter_rows(named=True):
        # Where no server counted, a token is taken for two characters: more than it is in most languages.
        prompt = int(row["prompt_tokens"] or len(row["query"]) // 2 + 1)
        cost = prompt + rules.max_new_tokens
        if len(chosen) == rules.requests or tokens + cost > rules.token_budget:
            break
        tokens += cost
        turns = earlier.get(row["request_id"])
        whole_prompt = Sent.after(turns, row["query"]) if turns else by_request[row["request_id"]]
        chosen.append(_asked(row, prompt, whole_prompt))
    if rest := rows.height - len(chosen):
        left_out["beyond the budget of requests or tokens"] += rest
    return Sample(tuple(chosen), tuple(of_days), +left_out, tokens)


def _has_tools(sent: Sent) -> bool:
    return bool(sent.tools) or any(one["role"] == "tool" or one.get("tool_calls") for one in sent.messages)


def _asked(row: dict, prompt_tokens: int, sent: Sent) -> Asked:
    return Asked(
        row["request_id"],
        row["user"],
        row["query"],
        row["response"],
        row["model_ref"],
        row.get("finish_reason"),
        float(row["latency_ms"] or 0.0),
        prompt_tokens,
        row.get("correction"),
        tuple(sent.messages),
    )


def today() -> date:
    """The day in UTC, by which traffic is kept."""
    return datetime.now(UTC).date()
