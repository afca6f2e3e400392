"""Everything that is found in a dataset version, each finding with its row; it changes no data."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from llmops_assets.datasets import duplicates, pii, privacy, quality, schema, texts
from llmops_assets.datasets.split import NO_CATEGORY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FINDINGS = {"row_id": pl.String, "kind": pl.String, "type": pl.String, "column": pl.String, "sample": pl.String}
SAMPLE = 160
"""Characters of a (masked) sample."""


@dataclass(frozen=True)
class Report:
    """`findings`: row_id, kind (pii, toxic, chat_fault, conflict), type, column, and a masked sample."""

    rows: int
    findings: pl.DataFrame
    pii: dict[str, int]
    pii_by_column: dict[str, dict[str, int]]
    pii_rows: int
    duplicates: duplicates.Duplicates
    scores: pl.DataFrame
    toxic: dict[str, int]
    toxic_rows: int
    chat_faults: dict[str, int]
    conflicting_rows: int
    categories: dict[str, int]
    statistics: dict[str, float]

    @property
    def score_mean(self) -> float:
        return float(self.scores["score"].mean() or 0.0)


def analyse(
    rows: pl.DataFrame,
    dataset_type: str,
    *,
    personal: pii.Detector = pii.PATTERNS_ONLY,
    near: duplicates.Near | None = None,
    toxicity: quality.ToxicityScorer | None = None,
) -> Report:
    """Personal data, duplicates, quality, toxicity, chat faults and statistics of canonical rows."""
    ids = rows["row_id"]
    spans = pii.find_in_rows(rows, dataset_type, personal)
    found = _pii_findings(spans, ids, personal)
    toxic = _toxic_findings(rows, dataset_type, toxicity or quality.Lexicon(), personal)
    faults = _faults(rows, dataset_type)
    conflicts = conflicting(rows, dataset_type)
    by_column: dict[str, dict[str, int]] = {}
    for column, type_, count in spans.group_by("column", "type").len().sort("column", "type").iter_rows():
        by_column.setdefault(column, {})[type_] = count
    toxic_by_group = dict(toxic.group_by("type").len().sort("type").iter_rows())
    return Report(
        rows=rows.height,
        findings=pl.concat([found, toxic, faults, conflicts]),
        pii=dict(spans.group_by("type").len().sort("type").iter_rows()),
        pii_by_column=by_column,
        pii_rows=spans["row"].n_unique(),
        duplicates=duplicates.find(rows, dataset_type, near),
        scores=quality.scores(rows, dataset_type),
        toxic=toxic_by_group,
        toxic_rows=toxic["row_id"].n_unique(),
        chat_faults=dict(faults.group_by("type").len().sort("type").iter_rows()),
        conflicting_rows=conflicts.height,
        categories=category_counts(rows),
        statistics=statistics(rows, dataset_type),
    )


def _pii_findings(spans: pl.DataFrame, ids: pl.Series, how: pii.Detector) -> pl.DataFrame:
    """One line for each type in each text, with the whole text masked and cut: a sample shows nobody's data."""
    found = []
    for (row, column, _), part in spans.group_by("row", "column", "part", maintain_order=True):
        text = part["text"][0]
        places = [privacy.Span(s, e, t, p) for s, e, t, p in part.select("start", "end", "type", "score").iter_rows()]
        begin = max(0, places[0].start - 60)
        sample = privacy.replace(text, places, how.placeholders)[begin : begin + SAMPLE]
        found += [(ids[row], "pii", type_, column, sample) for type_ in part["type"].unique(maintain_order=True)]
    return pl.DataFrame(found, schema=FINDINGS, orient="row")


def _toxic_findings(
    rows: pl.DataFrame, dataset_type: str, scorer: quality.ToxicityScorer, personal: pii.Detector
) -> pl.DataFrame:
    whole = rows.select(texts.whole_of(dataset_type)).to_series()
    groups = scorer.groups(whole)
    flagged = (groups.list.len() > 0).arg_true()
    samples = pii.mask_texts(whole.gather(flagged), personal.shown).str.head(SAMPLE)
    found = [
        (rows["row_id"][number], "toxic", group, "", sample)
        for number, sample in zip(flagged, samples, strict=True)
        for group in groups[number]
    ]
    return pl.DataFrame(found, schema=FINDINGS, orient="row")


def _faults(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    found = [
        (rows["row_id"][index], "chat_fault", rule.name, rule.field, rule.reason)
        for index, rule in schema.faults(rows, dataset_type).items()
    ]
    return pl.DataFrame(found, schema=FINDINGS, orient="row")


def conflicting(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """Rows whose prompt is answered differently by another row (after normalisation), as findings."""
    table = rows.select(
        "row_id",
        duplicates.normalised(texts.prompt_of(dataset_type)).alias("prompt"),
        duplicates.normalised(texts.answer_of(dataset_type)).alias("answer"),
    ).drop_nulls("prompt")
    several = table.filter(pl.col("answer").n_unique().over("prompt") > 1)
    return several.select(
        "row_id",
        pl.lit("conflict").alias("kind"),
        pl.lit("conflicting_answers").alias("type"),
        pl.lit("").alias("column"),
        pl.lit("the same prompt has another answer elsewhere").alias("sample"),
    )


def category_counts(rows: pl.DataFrame) -> dict[str, int]:
    """Rows by category, the commonest first."""
    counts = (
        rows.group_by(pl.col("category").fill_null(NO_CATEGORY))
        .len()
        .sort(["len", "category"], descending=[True, False])
    )
    return dict(counts.iter_rows())


def statistics(rows: pl.DataFrame, dataset_type: str) -> dict[str, float]:
    """Lengths: characters and words of whole rows and of answers; turns of chats."""
    lengths = rows.select(
        texts.whole_of(dataset_type).str.len_chars().alias("chars"),
        texts.whole_of(dataset_type).str.count_matches(r"\S+").alias("words"),
        texts.answer_of(dataset_type).str.len_chars().alias("answer_chars"),
    )
    figures: dict[str, float] = {}
    for name in lengths.columns:
        values = lengths[name]
        for label, value in (
            ("mean", values.mean()),
            ("p50", values.quantile(0.5)),
            ("p95", values.quantile(0.95)),
            ("max", values.max()),
        ):
            figures[f"{name}_{label}"] = round(float(value or 0.0), 2)
    if "messages" in rows.columns:
        figures["turns_mean"] = round(float(rows["messages"].list.len().mean() or 0.0), 2)
    return figures


def lengths(rows: pl.DataFrame, dataset_type: str) -> list[int]:
    """Characters of each row, for a histogram."""
    return rows.select(texts.whole_of(dataset_type).str.len_chars()).to_series().to_list()


def preview(
    rows: pl.DataFrame,
    dataset_type: str,
    personal: pii.Detector,
    count: int = 5,
) -> list[dict[str, str]]:
    """Some rows spread over the table, as short texts with personal data masked."""
    step = max(1, rows.height // count)
    table = (
        rows.gather_every(step)
        .head(count)
        .select(
            pl.col("row_id").alias("row"),
            pl.col("category").fill_null(NO_CATEGORY),
            texts.prompt_of(dataset_type),
            texts.answer_of(dataset_type).alias("answer"),
        )
    )
    shown = [name for name in ("prompt", "answer") if table[name].null_count() < max(table.height, 1)]
    masked = [pii.mask_texts(table[name], personal.shown).str.head(SAMPLE) for name in shown]
    return table.select("row", "category", *masked).to_dicts()


def worst(
    rows: pl.DataFrame,
    dataset_type: str,
    scores: pl.DataFrame,
    personal: pii.Detector,
    count: int = 10,
) -> list[dict[str, Any]]:
    """The rows with the lowest scores: where they are, what their weakest part is, and the masked answer."""
    answers = rows.select("row_id", "file", "line", texts.answer_of(dataset_type).alias("answer"))
    table = scores.sort("score", "row_id").head(count).join(answers, on="row_id", how="left", maintain_order="left")
    masked = pii.mask_texts(table["answer"], personal.shown).str.head(80)
    return [
        {
            "row": line["row_id"],
            "file": f"{line['file']}:{line['line']}",
            "score": line["score"],
            "weakest": min(quality.PARTS, key=lambda part: line[part]),
            "answer": answer,
        }
        for line, answer in zip(table.iter_rows(named=True), masked, strict=True)
    ]


def figures(rows: pl.DataFrame, dataset_type: str, report: Report) -> dict[str, "Figure"]:
    """The pictures of the report by name."""
    from llmops_assets import plots

    shown = {
        "lengths": plots.histogram(lengths(rows, dataset_type), "Characters a row", "characters"),
        "categories": plots.bars(dict(report.categories), "Rows by category", "rows"),
        "scores": plots.histogram(report.scores["score"].to_list(), "Quality score", "score"),
    }
    if report.pii:
        shown["pii"] = plots.bars(dict(report.pii), "Personal data by type", "spans")
    return shown


def markdown_table(lines: list[dict[str, Any]]) -> str:
    """Lines of equal keys as a Markdown table; cells are kept to one line."""
    if not lines:
        return "(none)"
    columns = list(lines[0])
    body = [[str(line.get(name, "")).replace("|", "\\|").replace("\n", " ⏎ ") for name in columns] for line in lines]
    head = [columns, ["---"] * len(columns)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in head + body)


def html(
    dataset: str,
    rows: pl.DataFrame,
    dataset_type: str,
    report: Report,
    personal: pii.Detector,
    *,
    quarantine: pl.DataFrame | None = None,
) -> str:
    """The report as one file that needs no other: figures inside, samples masked, nothing fetched."""
    import jinja2

    from llmops_assets import plots

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    refused = []
    if quarantine is not None and quarantine.height:
        refused = quarantine.head(20).select("file", "line", "field", "reason").to_dicts()
    return environment.get_template("report.html").render(
        dataset=dataset,
        type=dataset_type,
        report=report,
        rows=report.rows,
        quarantined=0 if quarantine is None else quarantine.height,
        refused=refused,
        figures={name: plots.data_uri(figure) for name, figure in figures(rows, dataset_type, report).items()},
        worst=worst(rows, dataset_type, report.scores, personal),
        samples=samples(report.findings),
    )


def samples(findings: pl.DataFrame, each: int = 3) -> list[dict[str, Any]]:
    shown = findings.filter(pl.col("kind").is_in(["pii", "toxic"]))
    return shown.group_by("kind", "type", maintain_order=True).head(each).sort("kind", "type").to_dicts()
