"""The JSON in canonical rows (metadata, calls, tools) as documents whose values are searched and masked one by one."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import count

import msgspec
import polars as pl

from llmops_assets.datasets import schema, texts
from llmops_assets.records.conversation import TOOLS

EXTRA = "extra"
CALLS = "tool_calls"


def columns_of(dataset_type: str) -> list[str]:
    """Names of the columns that hold JSON; ``messages.tool_calls`` is a field of the messages."""
    content = schema.CONTENT[dataset_type]
    calls = [f"{name}.{CALLS}" for name, dtype in content.items() if dtype == schema.MESSAGES]
    return [EXTRA, *calls, *([TOOLS] if TOOLS in content else [])]


def documents(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """Every document: columns `row` (number), `column`, `text`.

    Of calls these are their arguments, of tools all but the name of the function: names and ids have to match each
    other, and are no texts.
    """
    number = pl.int_range(pl.len(), dtype=pl.UInt32).alias("row")
    frames = []
    for column in columns_of(dataset_type):
        if column == EXTRA:
            frames.append(rows.select(number, pl.lit(EXTRA).alias("column"), pl.col(EXTRA).alias("text")))
            continue
        given = rows.select(number, _raw(column).alias("text")).filter(pl.col("text").is_not_null())
        if given.height:
            of = _without_names if column == TOOLS else _arguments
            found = pl.Series("text", [of(text) for text in given["text"]], dtype=pl.String)
            frames.append(given.select("row", pl.lit(column).alias("column"), found))
    return pl.concat(frames)


def _raw(column: str) -> pl.Expr:
    """The JSON itself: tools as they are, the calls of a row as a list with an item a message."""
    if column == TOOLS:
        return pl.col(TOOLS)
    calls = pl.element().struct.field(CALLS)
    messages = pl.col(column.removesuffix(f".{CALLS}"))
    joined = pl.format("[{}]", messages.list.eval(calls.fill_null("null")).list.join(","))
    return pl.when(messages.list.eval(calls.is_not_null()).list.any()).then(joined)


@lru_cache(256)
def _without_names(tools: str) -> str:
    # Most rows of a dataset share a few lists of tools.
    return msgspec.json.encode([_described(tool) for tool in msgspec.json.decode(tools)]).decode()


def _described(tool: dict) -> dict:
    return {key: value for key, value in tool["function"].items() if key != "name"}


def _arguments(calls: str) -> str:
    found = [[call["function"]["arguments"] for call in turn or ()] for turn in msgspec.json.decode(calls)]
    return msgspec.json.encode(found).decode()


def leaves(value: object, key: str = "") -> Iterable[tuple[str, str]]:
    """Every text and whole number in a document with the key that it stands under; keys are no data."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, key)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield key, str(value)


def _with_leaves(value: object, changed: Mapping[int, str], number: Iterator[int]) -> object:
    if isinstance(value, dict):
        return {name: _with_leaves(item, changed, number) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_leaves(item, changed, number) for item in value]
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return changed.get(next(number), value)
    return value


def with_leaves(rows: pl.DataFrame, column: str, changed: Mapping[int, Mapping[int, str]]) -> pl.DataFrame:
    """The rows with other values in one column of documents: by row, and by the number of the value among `leaves`."""
    if column == EXTRA:
        done = [
            msgspec.json.encode(
                _with_leaves(msgspec.json.decode(rows[EXTRA][row]), values, count()), order="sorted"
            ).decode()
            for row, values in changed.items()
        ]
        return rows.with_columns(rows[EXTRA].scatter(list(changed), done))
    if column == TOOLS:
        done = [_with_tools(rows[TOOLS][row], values) for row, values in changed.items()]
        return rows.with_columns(rows[TOOLS].scatter(list(changed), done))
    return _with_calls(rows, column.removesuffix(f".{CALLS}"), changed)


def _with_tools(text: str, changed: Mapping[int, str]) -> str:
    tools = msgspec.json.decode(text)
    described = _with_leaves([_described(tool) for tool in tools], changed, count())
    for tool, new in zip(tools, described, strict=True):
        tool["function"] = {key: new.get(key, value) for key, value in tool["function"].items()}
    return msgspec.json.encode(tools).decode()


def _with_calls(rows: pl.DataFrame, name: str, changed: Mapping[int, Mapping[int, str]]) -> pl.DataFrame:
    messages = rows.select(pl.col(name).list.explode(empty_as_null=False).alias("m"))["m"].struct.unnest()
    lengths = rows[name].list.len()
    starts = (lengths.cum_sum() - lengths).to_list()
    places, done = [], []
    for row, values in changed.items():
        number = count()
        for place in range(starts[row], starts[row] + lengths[row]):
            text = messages[CALLS][place]
            if text is None:
                continue
            calls = msgspec.json.decode(text)
            for call in calls:
                call["function"]["arguments"] = _with_leaves(call["function"]["arguments"], values, number)
            places.append(place)
            done.append(msgspec.json.encode(calls).decode())
    messages = messages.with_columns(messages[CALLS].scatter(places, done))
    return rows.with_columns(texts.nested(rows[name], messages.to_struct("m").to_arrow(), schema.MESSAGES))
