"""What differs between two versions of rows: added, removed and changed ones, found by reading only unshared chunks."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from resources.dataset_manifest import Chunk, Manifest
from resources.dataset_store import DatasetStore
from resources.row_upgrade import upgraded_types

_EXCERPT = 120
"""Characters shown of a text, around the first one that differs."""

_NOT_CONTENT = ("row_id", "file", "line")


@dataclass
class Diff:
    """Counts of rows. `changed` have other content in the same place (or the same key); `relabelled` have the same
    content and other metadata; `moved` stand elsewhere in the order. `examples` are a few rows of each kind."""

    before: str
    after: str
    rows_before: int
    rows_after: int
    added: int = 0
    removed: int = 0
    changed: int = 0
    relabelled: int = 0
    moved: int = 0
    shared_chunks: int = 0
    new_bytes: int = 0
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def unchanged(self) -> int:
        return self.rows_after - self.added - self.changed - self.relabelled - self.moved


def diff(store: DatasetStore, before: Manifest, after: Manifest, *, key: str | None = None, limit: int = 20) -> Diff:
    """Compare two versions. Rows are the same when their content is (`row_id`); a removed and an added row are one
    changed row when they stand between the same neighbours, or, with `key`, when that metadata field is equal in both.

    Memory holds a few columns of the rows of unshared chunks; whole rows are read for `limit` examples of each kind.
    Raises ValueError when the two have not the same columns or no `row_id`.
    """
    if upgraded_types(before.columns) != upgraded_types(after.columns) or "row_id" not in before.columns:
        raise ValueError(
            f"{before.dataset} ({before.kind}) and {after.dataset} ({after.kind}) are not rows of one type: "
            "compare two versions of the same step and dataset type"
        )
    shared = {chunk.sha256 for chunk in before.chunks} & {chunk.sha256 for chunk in after.chunks}
    result = Diff(before.id, after.id, before.rows, after.rows)
    result.shared_chunks = sum(chunk.sha256 in shared for chunk in after.chunks)
    result.new_bytes = sum(chunk.bytes for chunk in after.chunks if chunk.sha256 not in shared)
    old, new = _unshared(store, before, after, key)
    both = old.join(new, on="row_id", suffix="_new")
    relabelled = both.filter(pl.col("rest") != pl.col("rest_new"))
    same = both.filter(pl.col("rest") == pl.col("rest_new"))
    moved = same.filter(pl.col("hunk") != pl.col("hunk_new"))
    removed, added = _anchored(old, both["row_id"]), _anchored(new, both["row_id"])
    pairs = _pairs(removed, added, by_key=key is not None)
    removed = removed.filter(~pl.col("row_id").is_in(pairs["row_id"].implode()))
    added = added.filter(~pl.col("row_id").is_in(pairs["row_id_new"].implode()))
    result.added, result.removed, result.changed = added.height, removed.height, pairs.height
    result.relabelled, result.moved = relabelled.height, moved.height
    wanted = {
        "changed": pairs.head(limit).select("row_id", "row_id_new"),
        "relabelled": relabelled.head(limit).select("row_id", row_id_new="row_id"),
        "removed": removed.head(limit).select("row_id", row_id_new=pl.lit(None, pl.String)),
        "added": added.head(limit).select(row_id=pl.lit(None, pl.String), row_id_new="row_id"),
    }
    result.examples = list(_examples(store, before, after, wanted))
    return result


def _unshared(
    store: DatasetStore, before: Manifest, after: Manifest, key: str | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Of the rows outside of shared stretches of chunks: row_id, a hash of the metadata, the key, and the number of
    their hunk, as in a diff of text whose lines are chunks."""
    matcher = difflib.SequenceMatcher(
        None, [chunk.sha256 for chunk in before.chunks], [chunk.sha256 for chunk in after.chunks], autojunk=False
    )
    tables: tuple[list[pl.DataFrame], list[pl.DataFrame]] = ([], [])
    for number, (kind, a, b, c, d) in enumerate(matcher.get_opcodes()):
        if kind != "equal":
            for table, chunks in zip(tables, (before.chunks[a:b], after.chunks[c:d]), strict=True):
                table += [_slim(store, chunk, key, number) for chunk in chunks]
    empty = pl.DataFrame(schema={"row_id": pl.String, "rest": pl.UInt64, "key": pl.String, "hunk": pl.Int64})
    return pl.concat([empty, *tables[0]]), pl.concat([empty, *tables[1]])


def _slim(store: DatasetStore, chunk: Chunk, key: str | None, hunk: int) -> pl.DataFrame:
    rows = store.chunk(chunk)
    rest = [name for name in rows.columns if name not in _NOT_CONTENT and not rows.schema[name].is_nested()]
    found = _metadata(rows, key) if key else pl.lit(None, pl.String)
    return rows.select(
        "row_id",
        rest=(pl.struct(rest).hash() if rest else pl.lit(0, pl.UInt64)),
        key=found,
        hunk=pl.lit(hunk, pl.Int64),
    )


def _metadata(rows: pl.DataFrame, name: str) -> pl.Expr:
    if name in rows.columns and not rows.schema[name].is_nested():
        return pl.col(name).cast(pl.String)
    if "extra" not in rows.columns:
        return pl.lit(None, pl.String)
    return pl.Series([_leaf(text, name) for text in rows["extra"]], dtype=pl.String)


def _leaf(text: str, name: str) -> str | None:
    value = json.loads(text).get(name)
    return None if value is None else str(value)


def _anchored(rows: pl.DataFrame, common: pl.Series) -> pl.DataFrame:
    """Rows that only one table has, each with the last row before it that both have, and its number behind that one."""
    known = pl.col("row_id").is_in(common.implode())
    return (
        rows.with_columns(anchor=pl.when(known).then("row_id").forward_fill().over("hunk").fill_null(""))
        .filter(~known)
        .with_columns(rank=pl.int_range(pl.len()).over("hunk", "anchor"))
    )


def _pairs(removed: pl.DataFrame, added: pl.DataFrame, *, by_key: bool) -> pl.DataFrame:
    """row_id and row_id_new of rows that became another; each row in one pair at most."""
    columns = ["row_id", "row_id_new"]
    found = []
    if by_key:
        # A key that several rows share says nothing about which of them changed.
        left, right = (
            table.filter(pl.col("key").is_not_null() & pl.col("key").is_unique()) for table in (removed, added)
        )
        found.append(left.join(right, on="key", suffix="_new").select(columns))
        removed = removed.filter(pl.col("key").is_null())
        added = added.filter(pl.col("key").is_null())
    found.append(
        removed.join(added, on=["hunk", "anchor", "rank"], suffix="_new", maintain_order="left").select(columns)
    )
    return pl.concat(found)


def _examples(
    store: DatasetStore, before: Manifest, after: Manifest, wanted: dict[str, pl.DataFrame]
) -> Iterator[dict[str, Any]]:
    pairs = pl.concat(list(wanted.values()))
    shared = {chunk.sha256 for chunk in before.chunks} & {chunk.sha256 for chunk in after.chunks}
    old = _fetch(store, before, set(pairs["row_id"].drop_nulls()), shared)
    new = _fetch(store, after, set(pairs["row_id_new"].drop_nulls()), shared)
    for kind, rows in wanted.items():
        for was, now in rows.select("row_id", "row_id_new").iter_rows():
            left, right = old.get(was, {}), new.get(now, {})
            place = right or left
            yield {
                "change": kind,
                "row_id": now or was,
                **({"was": was} if kind == "changed" else {}),
                "file": place.get("file"),
                "line": place.get("line"),
                "fields": _fields(left, right),
            }


def _fetch(store: DatasetStore, manifest: Manifest, ids: set[str], shared: set[str]) -> dict[str, dict[str, Any]]:
    """The rows of those ids, whole; chunks are read until all are found, those that differ first."""
    found: dict[str, dict[str, Any]] = {}
    for chunk in sorted(manifest.chunks, key=lambda c: c.sha256 in shared):
        if len(found) == len(ids):
            break
        for row in store.chunk(chunk).filter(pl.col("row_id").is_in(list(ids))).to_dicts():
            found[row["row_id"]] = row
    return found


def _fields(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, str | None]]:
    """The paths at which two rows differ, with excerpts around the first character that does."""
    left, right = dict(_leaves(before)), dict(_leaves(after))
    changes = {}
    for path in [*left, *(path for path in right if path not in left)]:
        was, now = left.get(path), right.get(path)
        if was != now:
            changes[path] = {"before": _excerpt(was, now), "after": _excerpt(now, was)}
    return changes


def _leaves(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in row.items():
        if name not in _NOT_CONTENT:
            yield from _walk(name, value)


def _walk(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _walk(f"{path}.{name}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(f"{path}[{index}]", item)
    elif value is not None and not (path == "extra" and value == "{}"):
        yield path, str(value)


def _excerpt(text: str | None, other: str | None) -> str | None:
    if text is None or len(text) <= _EXCERPT:
        return text
    differs = next(
        (i for i, (a, b) in enumerate(zip(text, other or "", strict=False)) if a != b), min(len(text), len(other or ""))
    )
    start = max(0, min(differs - _EXCERPT // 3, len(text) - _EXCERPT))
    return ("…" if start else "") + text[start : start + _EXCERPT] + ("…" if start + _EXCERPT < len(text) else "")
