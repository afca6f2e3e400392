"""`llmops dataset scan`: what is in a file, and what cleaning would leave of it, with no platform behind it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_assets.cli.common import Json, fail, out, print_json, say, show, show_keys
from llmops_assets.specs.dataset import DATASET_TYPES

if TYPE_CHECKING:
    from llmops_assets.datasets.reading.scan import Scan

EPILOG = (
    "Exit codes: 0 scanned, however many rows are bad; 1 there is no such file, nothing in it can be read, or no row "
    "tells its type; 2 wrong command line."
)


def scan(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A file, a folder, or an fsspec URL.")],
    out_dir: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Write clean.jsonl, quarantine.jsonl, duplicates.jsonl and report.html there."
        ),
    ] = None,
    type: Annotated[
        str | None, typer.Option("--type", help=f"One of {', '.join(DATASET_TYPES)}, where recognition fails.")
    ] = None,
    map: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN where recognition fails.")] = None,
    no_names: Annotated[bool, typer.Option("--no-names", help="Do not look for names: much faster.")] = False,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A local tokenizer.json or its folder: count tokens by it, not by estimate.")
    ] = None,
    max_seq_len: Annotated[int | None, typer.Option(min=1, help="Report rows of more tokens than this.")] = None,
    policy: Annotated[
        Path | None, typer.Option(envvar="LLMOPS_POLICY_FILE", help="Policy to scan by; the package's by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Scan a file as the platform would: personal data, duplicates, quality, toxicity, and what cleaning would keep.

    Nothing is registered and no platform is needed; the file is only read.

    Example: `llmops dataset scan chats.jsonl --out scanned/`
    """
    from llmops_assets.datasets.reading.scan import ScanError
    from llmops_assets.datasets.reading.scan import scan as scan_file
    from llmops_assets.datasets.reading.scan import tokenizer as load_tokenizer
    from llmops_assets.privacy import name_process
    from llmops_assets.privacy.name_model import NameModelError
    from llmops_assets.privacy.pseudonyms import PseudonymKeyError
    from llmops_assets.specs.policy import load_policy
    from llmops_assets.toxicity.scorer import ToxicityError

    if type is not None and type not in DATASET_TYPES:
        raise typer.BadParameter(f"{type!r} is none of {', '.join(DATASET_TYPES)}", param_hint="--type")
    if bad := [pair for pair in map or [] if "=" not in pair]:
        raise typer.BadParameter(f"{bad[0]!r} is not FIELD=COLUMN", param_hint="--map")
    rules = load_policy(policy)
    if no_names:
        rules = rules.model_copy(
            update={
                "datasets": rules.datasets.model_copy(
                    update={"pii": rules.datasets.pii.model_copy(update={"names": False})}
                )
            }
        )
    if rules.datasets.pii.names is not True:
        name_process.stop()
    try:
        tokens = load_tokenizer(tokenizer) if tokenizer else None
        result = scan_file(
            file,
            rules,
            dataset_type=type,
            mapping=dict(pair.split("=", 1) for pair in map or []) or None,
            out=out_dir,
            tokens=tokens,
            tokens_counted_by=str(tokenizer) if tokenizer else "estimate",
            max_tokens=max_seq_len,
        )
    except (NameModelError, PseudonymKeyError, ScanError, ToxicityError) as error:
        fail(str(error))
    if json:
        print_json(result.summary())
    else:
        _tell(result)
    if out_dir is not None:
        say(f"written to {out_dir}: {', '.join(result.written)}")


def _tell(result: "Scan") -> None:
    from llmops_assets.datasets.reading.accounting import in_words

    found = result.report
    how = "recognised" if result.recognised else "as given"
    total = result.rows + result.quarantine.height
    lines: list[tuple[str, Any]] = [
        (
            "files",
            ", ".join(result.files[:5]) + (f" and {len(result.files) - 5} more" if len(result.files) > 5 else ""),
        ),
        ("type", f"{result.type} ({how})" if result.type else "no rows"),
        ("lines", in_words(result.accounts)),
        ("rows", f"{result.rows:,}"),
        ("quarantined", f"{result.quarantine.height:,}" + (f" of {total:,}" if result.quarantine.height else "")),
    ]
    if found is not None:
        scores = result.summary()["scores"]
        lines += [
            ("personal data", f"{found.pii_rows:,} rows" + _listed(found.pii)),
            ("duplicates", f"{found.duplicates.exact:,} exact, {found.duplicates.near:,} near, "
                           f"in {found.duplicates.count:,} clusters"),
            ("quality score", f"mean {scores['mean']:.3f}, p05 {scores['p05']:.3f}, median {scores['p50']:.3f}; "
                              f"{scores['below_limit']:,} rows under {scores['limit']}"),
            ("toxic", f"{found.toxic_rows:,} rows" + _listed(found.toxic)),
            ("conflicting", f"{found.conflicting_rows:,} rows whose prompt is answered differently elsewhere"),
            ("tokens", f"{found.statistics['tokens_total']:,.0f} in all, median {found.statistics['tokens_p50']:,.0f}, "
                       f"largest {found.statistics['tokens_max']:,.0f} (by {found.tokens_counted_by})"),
        ]  # fmt: skip
        if found.too_long:
            lines.append(("too long", f"{found.too_long:,} rows"))
        lines += [
            ("masked", ", ".join(f"{name} {count:,}" for name, count in result.masked.items()) or "nothing"),
            ("dropped", ", ".join(f"{count:,} {name}" for name, count in result.dropped.items()) or "none"),
        ]
    lines.append(("kept", f"{result.kept:,}"))
    show("", ["", ""], lines)
    for note in result.notes:
        out.print(note)
    show_keys(result.key_fates)
    if result.quarantine.height:
        out.print()
        some = result.quarantine.head(5).select("file", "line", "field", "reason")
        show("refused rows, the first", some.columns, some.rows())
    if found is not None and found.worst:
        out.print()
        worst = [line for line in found.worst if line["score"] < result.lowest_score][:5]
        if worst:
            show(
                "lowest scores",
                ["where", "score", "weakest", "answer"],
                [[line["file"], f"{line['score']:.3f}", line["weakest"], line["answer"]] for line in worst],
            )


def _listed(counts: dict[str, int]) -> str:
    return f": {', '.join(f'{name} {count:,}' for name, count in counts.items())}" if counts else ""


def add_to(app: typer.Typer) -> None:
    """Add `scan` to `llmops dataset`."""
    app.command("scan", epilog=EPILOG)(scan)
