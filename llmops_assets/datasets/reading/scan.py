"""Looks at any file as the platform would (ingest, report, cleaning), with no platform behind it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from upath import UPath

from llmops_assets.datasets import batches, clean, schema
from llmops_assets.datasets.quality import findings, page, report
from llmops_assets.datasets.reading import accounting, cards, hub
from llmops_assets.datasets.reading.described import columns_beside
from llmops_assets.datasets.reading.fates import Fates, unlearned
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.datasets.reading.readers import all_files
from llmops_assets.datasets.reading.recognise import any_decoded, guess
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.datasets.versions import checkout
from llmops_assets.privacy import pii
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.datasets import FileAccount, KeyFate
from llmops_assets.specs.policy import Policy
from llmops_assets.toxicity import scorers
from resources.files import replacing

CLEAN, QUARANTINE, DUPLICATES, PAGE = "clean.jsonl", "quarantine.jsonl", "duplicates.jsonl", "report.html"


KNOWN_SHAPES = (
    "expected messages, conversations, instruction/output, prompt/completion, question/answer, chosen/rejected, "
    "anchor/positive, premise/hypothesis/label or text, or a mapping"
)
"""What rows of any type may have, for a file whose rows have none of it."""


class ScanError(ValueError):
    """Nothing could be scanned: there is no such file, or none of it can be read."""


@dataclass(frozen=True)
class Scan:
    """What was found in the files and what cleaning would do with them. `report` is None when there is no row."""

    files: list[str]
    type: str | None
    recognised: bool
    rows: int
    quarantine: pl.DataFrame
    report: report.Report | None
    dropped: dict[str, int]
    masked: dict[str, int]
    kept: int
    lowest_score: float
    accounts: Sequence[FileAccount] = ()
    key_fates: Sequence[KeyFate] = ()
    notes: Sequence[str] = ()

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the files that `out` receives."""
        return (CLEAN, QUARANTINE, DUPLICATES, PAGE) if self.rows else (CLEAN, QUARANTINE, DUPLICATES)

    def summary(self) -> dict[str, Any]:
        """The figures alone, for a program."""
        found = self.report
        return {
            "files": self.files,
            "lines": accounting.in_words(self.accounts),
            "accounts": [account.model_dump() for account in self.accounts],
            "keys": [fate.model_dump() for fate in self.key_fates],
            "notes": list(self.notes),
            "type": self.type,
            "recognised": self.recognised,
            "rows": self.rows,
            "quarantined": self.quarantine.height,
            "quarantine_reasons": _counts(self.quarantine, "reason"),
            "pii": found.pii if found else {},
            "pii_rows": found.pii_rows if found else 0,
            "pii_by_column": found.pii_by_column if found else {},
            "duplicates": {
                "exact": found.duplicates.exact if found else 0,
                "near": found.duplicates.near if found else 0,
                "clusters": found.duplicates.count if found else 0,
            },
            "scores": _scores(found, self.lowest_score) if found else {},
            "toxicity": {"rows": found.toxic_rows if found else 0, "groups": found.toxic if found else {}},
            "bias": found.bias if found else [],
            "chat_faults": found.chat_faults if found else {},
            "conflicting_rows": found.conflicting_rows if found else 0,
            "too_long": found.too_long if found else 0,
            "categories": dict(list(found.categories.items())[:50]) if found else {},
            "statistics": found.statistics if found else {},
            "tokens_counted_by": found.tokens_counted_by if found else None,
            "dropped": self.dropped,
            "masked": self.masked,
            "kept": self.kept,
        }


def _counts(table: pl.DataFrame, column: str, most: int = 20) -> dict[str, int]:
    return dict(table.group_by(column).len().sort(["len", column], descending=[True, False]).head(most).iter_rows())


def _scores(found: report.Report, lowest: float) -> dict[str, Any]:
    values = found.scores["score"]
    quantiles = {f"p{int(share * 100):02}": round(float(values.quantile(share) or 0), 4) for share in (0.05, 0.5, 0.95)}
    return {
        "mean": round(found.score_mean, 4),
        **quantiles,
        "limit": lowest,
        "below_limit": int((values < lowest).sum()),
        "parts": {name: round(value, 4) for name, value in found.score_parts.items()},
    }


def scan(
    path: str,
    policy: Policy,
    *,
    dataset_type: str | None = None,
    mapping: Mapping[str, str] | None = None,
    out: Path | None = None,
    tokens: report.Tokens | None = None,
    tokens_counted_by: str = "estimate",
    max_tokens: int | None = None,
) -> Scan:
    """Ingest, report and clean a file, a folder or an fsspec URL; with `out`, write what comes of it there.

    Rows are kept in a temporary folder meanwhile, so that memory does not grow with them; it is gone afterwards.
    Raises ScanError when there is no such file, or when nothing in it can be decoded. Rows that are decoded and
    refused are no error: they are in the quarantine.
    """
    folder = _files(path)
    files = folder.data
    described = columns_beside([path], [name for name, _ in files])
    mapping = mapping or described.mapping
    limits = Limits(line=policy.limits.max_line_bytes, file=policy.limits.max_decompressed_bytes)
    guessed = None if dataset_type else guess(files, mapping, limits)
    found_type = dataset_type or guessed.type
    if found_type is None:
        if guessed is not None and guessed.refused:
            raise ScanError(f"{path} tells no type: {guessed.refused}")
        nothing = _unrecognised(path, folder, limits, policy)
        if out is not None:
            _write_empty(out, nothing.quarantine, policy)
        return nothing
    rows = batches.Spill()
    try:
        refused = []
        accounts: dict[str, FileAccount] = {}
        fates = Fates()
        for batch in ingest(
            files,
            found_type,
            mapping,
            limits=limits,
            require_category=policy.datasets.require_category,
            accounts=accounts,
            fates=fates,
        ):
            refused.append(batch.quarantine)
            rows.add(batch.rows)
        quarantine = pl.concat(refused)
        common = {
            "files": [name for name, _ in files],
            "type": found_type,
            "recognised": dataset_type is None,
            "accounts": list(accounts.values()),
            "key_fates": fates.records(),
            "notes": [
                *([f"recognised as {guessed.words()}"] if guessed else []),
                *folder.words(),
                *described.notes,
                *accounting.notes(accounts.values()),
                *filter(None, [unlearned(fates.records(), mapping or ())]),
            ],
        }
        if not rows.rows:
            if quarantine.height and not any_decoded(files, limits):
                raise ScanError(_unreadable(path, quarantine.row(0, named=True)))
            empty = Scan(
                **common, rows=0, quarantine=quarantine, report=None, dropped={}, masked={}, kept=0,
                lowest_score=policy.datasets.min_quality_score,
            )  # fmt: skip
            if out is not None:
                _write_empty(out, quarantine, policy)
            return empty
        personal = pii.detector(policy.datasets.pii, "scan")
        found = report.analyse(
            rows,
            found_type,
            personal=personal,
            flagging=scorers.scorer(policy.datasets.toxicity),
            near=duplicates.Near.of(policy.datasets.minhash),
            tokens=tokens,
            tokens_counted_by=tokens_counted_by,
            max_tokens=max_tokens,
        )
        quarantine = pl.concat([quarantine, _unexamined(found)])
        work = clean.cleaning(
            batches.without(rows, findings.unexamined(found.findings)["row_id"]),
            found_type,
            clusters=found.duplicates.clusters,
            scores=found.scores,
            lowest_score=policy.datasets.min_quality_score,
            personal=personal,
            spans=found.spans,
        )
        if out is None:
            for _ in work.frames():
                pass
        else:
            _write_rows(out, work, found_type)
        result = Scan(
            **common,
            rows=rows.rows - found.unexamined_rows,
            quarantine=quarantine,
            report=found,
            dropped=work.dropped_by_reason,
            masked=dict(sorted(work.masked.items())),
            kept=work.kept,
            lowest_score=policy.datasets.min_quality_score,
        )
        if out is not None:
            _write_findings(out, result, found, rows, policy)
        return result
    finally:
        rows.close()


def _unexamined(found: report.Report) -> pl.DataFrame:
    """Rows that a detector failed on, for the quarantine; without their text, which nobody has masked."""
    failed = found.findings.filter(pl.col("kind") == findings.UNEXAMINED)
    reason = pl.format("it could not be examined: {}", "sample").alias("reason")
    return failed.select("file", "line", pl.lit("").alias("field"), reason, pl.lit("").alias("raw")).cast(
        schema.QUARANTINE
    )


def _files(path: str) -> hub.Folder:
    root = UPath(path)
    try:
        if root.is_dir():
            try:
                folder = hub.sort_out(all_files(root))
            except cards.SeveralConfigurations as error:
                raise ScanError(
                    f"the folder {path} is several datasets: {error}. Scan the files of one of them"
                ) from error
            if not folder.data:
                why = f": {'; '.join(folder.words())}" if folder.left_out else ""
                raise ScanError(f"the folder {path} holds no files{' of data' if why else ''}{why}")
            return folder
        if not root.exists():
            raise ScanError(f"there is no file {path}")
        with root.open("rb") as stream:
            stream.read(1)
    except PermissionError as error:
        raise ScanError(f"{path} may not be read: {error.strerror}") from error
    if reason := hub.not_data(root.name):
        raise ScanError(f"{path} is no data: {reason}")
    return hub.Folder([(root.name, root)])


def _unrecognised(path: str, folder: hub.Folder, limits: Limits, policy: Policy) -> Scan:
    """Either there are no rows at all, which is a finding, or none of them tells what it is, which is an error."""
    files = folder.data
    for batch in ingest(files, "pretrain_corpus", limits=limits):
        for first in batch.quarantine.iter_rows(named=True):
            if not any_decoded(files, limits):
                raise ScanError(_unreadable(path, first))
            raise ScanError(
                f"no row of {path} tells what type it is, the first at {first['file']}:{first['line']}: "
                f"{_fault(first).replace('expected text, or a mapping', KNOWN_SHAPES)}. Name the type with --type and "
                "the columns with --map FIELD=COLUMN"
            )
    return Scan(
        files=[name for name, _ in files],
        type=None,
        recognised=False,
        rows=0,
        quarantine=pl.DataFrame(schema=schema.QUARANTINE),
        report=None,
        dropped={},
        masked={},
        kept=0,
        lowest_score=policy.datasets.min_quality_score,
        notes=folder.words(),
    )


def _unreadable(path: str, first: Mapping[str, Any]) -> str:
    return f"nothing in {path} can be read, the first fault at {first['file']}:{first['line']}: {_fault(first)}"


def _fault(first: Mapping[str, Any]) -> str:
    return f"{first['field']}: {first['reason']}" if first["field"] else first["reason"]


def tokenizer(path: Path) -> report.Tokens:
    """Counts tokens with a local ``tokenizer.json`` (or the folder that it is in)."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ScanError("--tokenizer needs the package tokenizers: install llmops[train]") from error
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise ScanError(f"there is no tokenizer.json at {path}")
    try:
        model = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ScanError(f"{file} is no tokenizer: {error}") from error
    model.no_truncation()
    model.no_padding()

    def count(values: pl.Series) -> np.ndarray:
        encoded = model.encode_batch_fast(values.fill_null("").to_list(), add_special_tokens=False)
        return np.fromiter((len(one.ids) for one in encoded), dtype=np.int32, count=len(encoded))

    return count


def _write_lines(target: Path, lines: Iterator[Mapping[str, Any]]) -> None:
    encoder = msgspec.json.Encoder()
    with replacing(target) as stream:
        for line in lines:
            stream.write(encoder.encode(line) + b"\n")


def _write_rows(out: Path, work: clean.Cleaning, dataset_type: str) -> None:
    kept = ("row_id", "source", "category", "quality_score", "file", "line", clean.CHANGES)

    def lines() -> Iterator[Mapping[str, Any]]:
        for frame in work.frames():
            for row in frame.iter_rows(named=True):
                about = {name: row[name] for name in kept if row[name] not in (None, "")}
                yield {
                    **checkout.written(row, dataset_type),
                    "metadata": msgspec.json.decode(row["extra"]) | about,
                }

    _write_lines(out / CLEAN, lines())


def _write_findings(out: Path, result: Scan, found: report.Report, rows: batches.Batches, policy: Policy) -> None:
    where = pl.concat(list(rows(["row_id", "file", "line"])))
    members = found.duplicates.clusters.join(where, on="row_id", how="left", maintain_order="left")
    grouped = members.group_by("cluster", maintain_order=True).agg(
        pl.col("line").alias("rows"), pl.struct("file", "line", "row_id", "kept", "exact").alias("members")
    )
    _write_lines(
        out / DUPLICATES,
        (
            {"cluster": number, "rows": line["rows"], "members": line["members"]}
            for number, line in enumerate(grouped.iter_rows(named=True), start=1)
        ),
    )
    _write_quarantine(out, result.quarantine, policy)
    text = page.html(
        ", ".join(result.files[:3]) + (f" and {len(result.files) - 3} more" if len(result.files) > 3 else ""),
        result.type or "",
        found,
        quarantine=result.quarantine,
        dropped=result.dropped,
        kept=result.kept,
        note="Rows kept are what clean.jsonl holds: masked, one of each duplicate cluster, "
        f"score at least {result.lowest_score}.",
    )
    with replacing(out / PAGE) as stream:
        stream.write(text.encode())


def _write_quarantine(out: Path, quarantine: pl.DataFrame, policy: Policy) -> None:
    # A refused row may hold a number as well as any other.
    how = Masker.of(policy).detector
    masked = quarantine.with_columns(pii.mask_texts(quarantine["raw"].fill_null(""), how).alias("raw"))
    _write_lines(out / QUARANTINE, masked.iter_rows(named=True))


def _write_empty(out: Path, quarantine: pl.DataFrame, policy: Policy) -> None:
    # A page of an earlier scan would say what is no longer so.
    (out / PAGE).unlink(missing_ok=True)
    for name in (CLEAN, DUPLICATES):
        _write_lines(out / name, iter(()))
    _write_quarantine(out, quarantine, policy)
