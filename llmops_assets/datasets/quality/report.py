"""Everything that is found in a dataset version, each finding with its row; it changes no data."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, schema, texts
from llmops_assets.datasets.quality import bias, control_tokens, personal_data, score
from llmops_assets.datasets.quality.features import estimated_tokens, features
from llmops_assets.datasets.quality.findings import (
    SAMPLE,
    as_findings,
    as_unexamined,
    of_conflicts,
    of_personal_data,
    of_toxicity,
)
from llmops_assets.datasets.similarity import duplicates, examples
from llmops_assets.datasets.split import NO_CATEGORY
from llmops_assets.privacy import pii
from llmops_assets.toxicity import scorers

WORST = 20
"""Rows of the table of the worst."""

CLUSTERS_SHOWN, MEMBERS_SHOWN = 8, 3

Tokens = Callable[[pl.Series], np.ndarray]
"""Counts the tokens of each text: a tokenizer."""


@dataclass(frozen=True)
class Report:
    """What was found.

    `findings`: row_id, kind (pii, toxic, chat_fault, control_token, length, conflict), type, column, a masked sample,
    file and line.
    One of kind `UNEXAMINED` is a row that a detector failed on, with the reason: nothing else is known of it, and
    neither scores nor lengths have it.
    `spans`: where personal data is (`personal_data.SPANS`), for all who mask it or must know of it.
    `chars` and `tokens` are lengths of whole rows, int32 of shape (rows,); `worst` and `cluster_samples` are rows to
    look at, masked; `dropped_pairs` and `shared_text` are those of `similarity.examples`.
    `bias` has a line for each group that rows mention (`bias.disparity`).
    """

    rows: int
    findings: pl.DataFrame
    spans: pl.DataFrame
    pii: dict[str, int]
    pii_by_column: dict[str, dict[str, int]]
    pii_rows: int
    duplicates: duplicates.Duplicates
    scores: pl.DataFrame
    toxic: dict[str, int]
    toxic_rows: int
    bias: list[dict[str, Any]]
    chat_faults: dict[str, int]
    control_tokens: dict[str, int]
    too_long: int
    unexamined_rows: int
    conflicting_rows: int
    categories: dict[str, int]
    statistics: dict[str, float]
    chars: np.ndarray
    tokens: np.ndarray
    tokens_counted_by: str
    worst: list[dict[str, Any]] = field(default_factory=list)
    cluster_samples: list[dict[str, Any]] = field(default_factory=list)
    dropped_pairs: list[dict[str, Any]] = field(default_factory=list)
    shared_text: list[dict[str, Any]] = field(default_factory=list)

    @property
    def score_mean(self) -> float:
        return float(self.scores["score"].mean() or 0.0)

    @property
    def score_parts(self) -> dict[str, float]:
        """The mean of each part of the score."""
        return {part: float(self.scores[part].mean() or 0.0) for part in score.PARTS}


@dataclass(frozen=True)
class _Part:
    """What one batch adds to the report."""

    findings: pl.DataFrame
    spans: pl.DataFrame
    pii: Counter[tuple[str, str]]
    pii_rows: int
    mentions: pl.DataFrame
    scores: pl.DataFrame
    worst: pl.DataFrame
    where: pl.DataFrame
    categories: Counter[str]
    lengths: pl.DataFrame


def analyse(
    rows: pl.DataFrame | batches.Batches,
    dataset_type: str,
    *,
    personal: pii.Detector = pii.PATTERNS_ONLY,
    near: duplicates.Near | None = None,
    flagging: scorers.ToxicityScorer | None = None,
    tokens: Tokens | None = None,
    tokens_counted_by: str = "estimate",
    max_tokens: int | None = None,
) -> Report:
    """Personal data, duplicates, quality, toxicity, chat faults and statistics of canonical rows.

    The rows are gone through once for everything that a row shows by itself and for its keys, and again, in part, for
    the texts of duplicate candidates. With `max_tokens`, longer rows are findings of kind ``length``.
    """
    near = near or duplicates.Near()
    scorer = flagging or scorers.Lexicon()
    again = batches.of(rows)

    def examine(batch: pl.DataFrame) -> tuple[_Part, duplicates.Keys]:
        def look_at(spans: Callable[[], pl.DataFrame] | None = None) -> _Part:
            spans = spans or (lambda: personal_data.find_in_rows(batch, dataset_type, personal))
            return _look(batch, dataset_type, personal, spans, scorer, tokens, max_tokens)

        if workers != 1:
            return look_at(), duplicates.keys(batch, dataset_type, near)
        # One batch at a time: everything else is found while the analyser of names is at work.
        with ThreadPoolExecutor(2) as pool:
            spans = pool.submit(personal_data.find_in_rows, batch, dataset_type, personal)
            keys = pool.submit(duplicates.keys, batch, dataset_type, near)
            return look_at(spans.result), keys.result()

    def look(batch: pl.DataFrame) -> tuple[_Part, duplicates.Keys, pl.DataFrame]:
        (part, keys), failed = batches.isolated(examine, batch)
        return part, keys, failed.join(batch.select("row_id", "file", "line"), on="row_id", maintain_order="left")

    # The morphological analyser that finds names is one object with threads of its own.
    workers = 1 if personal.names is not None else None
    parts: list[_Part] = []
    kept = duplicates.Gathered()
    failed: list[pl.DataFrame] = []
    found_in, categories = Counter[tuple[str, str]](), Counter[str]()
    for part, keys_of_part, failed_of_part in batches.mapped(look, batches.regrouped(again(None)), workers):
        parts.append(part)
        failed.append(failed_of_part)
        kept.add(keys_of_part)
        found_in.update(part.pii)
        categories.update(part.categories)
    where = pl.concat([part.where for part in parts], rechunk=True)
    lengths = pl.concat([part.lengths for part in parts], rechunk=True)
    scores = pl.concat([part.scores for part in parts], rechunk=True)
    conflicts = of_conflicts(kept.table, where)
    unexamined = pl.concat(failed)
    again = batches.without(again, unexamined["row_id"])
    findings = pl.concat([part.findings for part in parts] + [conflicts, as_unexamined(unexamined)])
    spans = pl.concat([part.spans for part in parts], rechunk=True)
    worst = pl.concat([part.worst for part in parts]).sort("score", "row_id").head(WORST)
    pii_rows = sum(part.pii_rows for part in parts)
    disparity = bias.disparity(part.mentions for part in parts)
    del parts
    by_type = Counter[str]()
    by_column: dict[str, dict[str, int]] = {}
    for (column, type_), count in sorted(found_in.items()):
        by_type[type_] += count
        by_column.setdefault(column, {})[type_] = count
    found = duplicates.clusters(kept, again, dataset_type, near)
    kinds = {kind: part for (kind,), part in findings.group_by("kind")}
    toxic, faults = (kinds.get(kind, findings.clear()) for kind in ("toxic", "chat_fault"))
    return Report(
        rows=where.height + unexamined.height,
        findings=findings,
        spans=spans,
        pii=dict(sorted(by_type.items())),
        pii_by_column=by_column,
        pii_rows=pii_rows,
        duplicates=found,
        scores=scores,
        toxic=dict(toxic.group_by("type").len().sort("type").iter_rows()),
        toxic_rows=toxic["row_id"].n_unique(),
        bias=disparity,
        chat_faults=dict(faults.group_by("type").len().sort("type").iter_rows()),
        control_tokens=control_tokens.rows_by_token(findings),
        too_long=kinds["length"].height if "length" in kinds else 0,
        unexamined_rows=unexamined.height,
        conflicting_rows=conflicts.height,
        categories=dict(sorted(categories.items(), key=lambda item: (-item[1], item[0]))),
        statistics=_statistics(lengths, scores),
        chars=lengths["chars"].to_numpy(),
        tokens=lengths["tokens"].to_numpy(),
        tokens_counted_by=tokens_counted_by if tokens else "estimate",
        worst=_shown(worst, personal),
        cluster_samples=_cluster_samples(found.clusters, again, dataset_type, personal),
        dropped_pairs=examples.pairs(found, again, dataset_type, near, personal),
        shared_text=examples.shared_text(found, again, dataset_type, personal),
    )


def _look(
    batch: pl.DataFrame,
    dataset_type: str,
    personal: pii.Detector,
    find_personal: Callable[[], pl.DataFrame],
    scorer: scorers.ToxicityScorer,
    tokens: Tokens | None,
    max_tokens: int | None,
) -> _Part:
    where = batch.select("row_id", "file", "line")
    whole, answers = batch.select(texts.whole_of(dataset_type), texts.answer_of(dataset_type).alias("answer"))
    scores = score.scores(batch, dataset_type)
    counted = features(whole)
    length = pl.Series("tokens", tokens(whole), dtype=pl.Int32) if tokens else estimated_tokens(counted)
    lengths = pl.DataFrame(
        {
            "chars": counted["chars"],
            "tokens": length,
            "words": whole.str.count_matches(r"\S+").cast(pl.Int32),
            "answer_chars": answers.str.len_chars().fill_null(0).cast(pl.Int32),
            "turns": batch["messages"].list.len().cast(pl.Int32)
            if "messages" in batch.columns
            else pl.zeros(batch.height, pl.Int32, eager=True),
        }
    )
    offended = scorer.groups(whole)
    mentions = bias.count(whole, offended.list.len() > 0)
    spans = find_personal()
    found = [
        *of_personal_data(spans, personal),
        *of_toxicity(whole, offended, personal),
        *((index, control_tokens.KIND, token, "", f"{token}, {count} times")
          for index, token, count in control_tokens.found_in(whole)),
        *((index, "chat_fault", rule.name, rule.field, rule.reason)
          for index, rule in schema.faults(batch, dataset_type).items()),
    ]  # fmt: skip
    if max_tokens is not None:
        found += [
            (int(index), "length", "over_max_seq_len", "", f"{count:,} tokens are more than {max_tokens:,}")
            for index, count in enumerate(length)
            if count > max_tokens
        ]
    lowest = scores.with_row_index("number").sort("score", "row_id").head(WORST)
    at = lowest["number"].to_list()
    return _Part(
        findings=as_findings(found, where),
        spans=personal_data.recorded(spans, batch),
        pii=Counter(dict(zip(*_pairs_and_counts(spans), strict=True))),
        pii_rows=spans["row"].n_unique(),
        mentions=mentions,
        scores=scores,
        worst=pl.concat([lowest.drop("number"), where[at].drop("row_id"), _copied(answers, at)], how="horizontal"),
        where=where,
        categories=Counter(dict(batch.group_by(pl.col("category").fill_null(NO_CATEGORY)).len().iter_rows())),
        lengths=lengths,
    )


def _copied(texts_of_batch: pl.Series, at: list[int]) -> pl.DataFrame:
    """A few texts that do not keep the batch alive: gathered ones are views of its buffers."""
    return pl.Series(texts_of_batch.name, texts_of_batch[at].to_list(), dtype=pl.String).to_frame()


def _pairs_and_counts(spans: pl.DataFrame) -> tuple[list[tuple[str, str]], list[int]]:
    table = spans.group_by("column", "type").len()
    return list(table.select("column", "type").iter_rows()), table["len"].to_list()


def _statistics(lengths: pl.DataFrame, scores: pl.DataFrame) -> dict[str, float]:
    """Lengths of whole rows and of answers, turns of chats, diversity of answers."""
    figures: dict[str, float] = {}
    for name in ("chars", "words", "tokens", "answer_chars"):
        values = lengths[name]
        for label, value in (
            ("mean", values.mean()),
            ("p50", values.quantile(0.5)),
            ("p95", values.quantile(0.95)),
            ("max", values.max()),
        ):
            figures[f"{name}_{label}"] = round(float(value or 0.0), 2)
    figures["tokens_total"] = float(lengths["tokens"].cast(pl.Int64).sum())
    if lengths["turns"].max():
        figures["turns_mean"] = round(float(lengths["turns"].mean() or 0.0), 2)
    for name in score.MEASURES:
        # Short answers have no compression ratio; a dataset of them has no mean of it.
        if (mean := scores[name].mean()) is not None:
            figures[f"{name}_mean"] = round(float(mean), 4)
    return figures


def _shown(worst: pl.DataFrame, personal: pii.Detector) -> list[dict[str, Any]]:
    """The rows with the lowest scores: where they are, what their weakest part is, and the masked answer."""
    masked = pii.mask_texts(worst["answer"].fill_null(""), personal.shown).str.head(80)
    return [
        {
            "row": line["row_id"],
            "file": f"{line['file']}:{line['line']}",
            "score": line["score"],
            "weakest": min(score.PARTS, key=lambda part: line[part]),
            "answer": answer,
        }
        for line, answer in zip(worst.iter_rows(named=True), masked, strict=True)
    ]


def _cluster_samples(
    clusters: pl.DataFrame, again: batches.Batches, dataset_type: str, personal: pii.Detector
) -> list[dict[str, Any]]:
    """The largest clusters: how many rows, and the first of them with file, line and masked text."""
    if not clusters.height:
        return []
    sizes = clusters.group_by("cluster", maintain_order=True).agg(
        pl.len().alias("size"), pl.col("exact").sum(), pl.col("row_id").head(MEMBERS_SHOWN)
    )
    largest = sizes.sort("size", descending=True, maintain_order=True).head(CLUSTERS_SHOWN)
    wanted = largest["row_id"].explode().to_list()
    found = {row["row_id"]: row for row in _rows_by_id(again, wanted, dataset_type, personal)}
    return [
        {
            "size": line["size"],
            "exact": line["exact"],
            "rows": [found[row_id] for row_id in line["row_id"]],
        }
        for line in largest.iter_rows(named=True)
    ]


def _rows_by_id(
    again: batches.Batches, ids: list[str], dataset_type: str, personal: pii.Detector
) -> Iterable[dict[str, Any]]:
    columns = ["row_id", "file", "line", *texts.content_columns(dataset_type)]
    missing = set(ids)
    for batch in again(columns):
        some = batch.filter(pl.col("row_id").is_in(list(missing)))
        if some.height:
            whole = pii.mask_texts(some.select(texts.whole_of(dataset_type)).to_series(), personal.shown)
            for row_id, file, line, text in zip(
                some["row_id"], some["file"], some["line"], whole.str.head(SAMPLE), strict=True
            ):
                yield {"row_id": row_id, "where": f"{file}:{line}", "text": text}
            missing.difference_update(some["row_id"])
        if not missing:
            return


def category_counts(rows: pl.DataFrame) -> dict[str, int]:
    """Rows by category, the commonest first."""
    counts = (
        rows.group_by(pl.col("category").fill_null(NO_CATEGORY))
        .len()
        .sort(["len", "category"], descending=[True, False])
    )
    return dict(counts.iter_rows())


def preview(some: pl.DataFrame, dataset_type: str, personal: pii.Detector) -> list[dict[str, str]]:
    """Some rows as short texts with personal data masked."""
    table = some.select(
        pl.col("row_id").alias("row"),
        pl.col("category").fill_null(NO_CATEGORY),
        texts.prompt_of(dataset_type),
        texts.answer_of(dataset_type).alias("answer"),
    )
    shown = [name for name in ("prompt", "answer") if table[name].null_count() < max(table.height, 1)]
    masked = [pii.mask_texts(table[name], personal.shown).str.head(SAMPLE) for name in shown]
    return table.select("row", "category", *masked).to_dicts()


def markdown_table(lines: list[dict[str, Any]]) -> str:
    """Lines of equal keys as a Markdown table; cells are kept to one line."""
    if not lines:
        return "(none)"
    columns = list(lines[0])
    body = [[str(line.get(name, "")).replace("|", "\\|").replace("\n", " ⏎ ") for name in columns] for line in lines]
    head = [columns, ["---"] * len(columns)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in head + body)
