"""`llmops dataset …`: register dataset versions and look at them."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli import forget, generate
from llmops_assets.cli.common import (
    Json,
    Wait,
    actor,
    conclude,
    follow,
    now,
    out,
    parse_spec,
    print_json,
    say_there,
    show,
    show_keys,
    when,
    wiring,
)
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.specs.dataset import DATASET_TYPES, DatasetSpec
from llmops_assets.specs.names import split_versioned

if TYPE_CHECKING:
    from resources.catalog import Dataset

app = typer.Typer(help="Dataset versions: register, list, look at.", no_args_is_help=True)
app.command()(forget.forget)
app.command()(generate.generate)
app.command("erasures")(forget.list_erasures)


@app.command()
def add(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="Name and version, for example desk@v1.")],
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="Files, folders, or URLs such as s3://….")],
    type: Annotated[str, typer.Option("--type", help=f"One of {', '.join(DATASET_TYPES)}.")],
    owner: Annotated[str, typer.Option(help="The team that answers for the data.")] = "unassigned",
    description: Annotated[str, typer.Option(help="What the data is.")] = "",
    license: Annotated[str | None, typer.Option(help="Licence of the data.")] = None,
    stratify_by: Annotated[str, typer.Option(help="Metadata field whose shares every split keeps.")] = "category",
    group_by: Annotated[str | None, typer.Option(help="Metadata field whose equal values stay in one split.")] = None,
    map: Annotated[list[str] | None, typer.Option("--map", help="FIELD=COLUMN where recognition fails.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    wait: Wait = False,
) -> None:
    """Register files as a dataset version; the graph ingests, reports, cleans and splits them.

    Example: `llmops dataset add desk@v1 desk.jsonl --type sft_pair --wait`
    """
    from llmops_assets.operations.datasets import register_dataset

    name, tag = split_versioned(version)
    mapping = dict(pair.split("=", 1) for pair in map or []) or None
    spec = parse_spec(
        DatasetSpec,
        {
            "name": name,
            "version": tag,
            "type": type,
            "files": files,
            "owner": owner,
            "description": description or f"{type} from {', '.join(path.rstrip('/').split('/')[-1] for path in files)}",
            "license": license,
            "mapping": mapping,
            "split": {"stratify_by": stratify_by, "group_by": group_by, "seed": seed},
        },
    )
    since = now()
    done = register_dataset(wiring(), actor(), spec, files)
    out.print(f"{'registered' if done.new else 'registered already'}: {spec.key} ({type})")
    for note in done.notes:
        out.print(note)
    if done.split:
        say_there(done, wait=wait)
        return
    if wait:
        conclude(follow(spec.key, "splits", since=since))
        show_version(spec.key)


@app.command("list")
def list_(json: Json = False) -> None:
    """List dataset versions, newest first.

    Example: `llmops dataset list --json`
    """
    w = wiring()
    rows = []
    for entry in w.catalog.datasets():
        # The figures of an erased version stay on record; its rows are gone.
        in_use = entry.status != "erased"
        record = w.records.find(DatasetRecord, entry.key) if in_use else None
        splits = w.records.find(SplitsRecord, entry.key) if in_use else None
        rows.append(
            {
                "dataset": entry.key,
                "type": entry.spec.type,
                "status": entry.status,
                "owner": entry.spec.owner,
                "rows": record.rows if record else None,
                "quarantined": record.quarantined if record else None,
                "splits": splits.rows if splits else None,
                "created_at": entry.created_at.isoformat() if json else when(entry.created_at),
            }
        )
    if json:
        print_json(rows)
    else:
        show(
            "",
            ["dataset", "type", "status", "rows", "quarantined", "splits", "created"],
            [
                [
                    r["dataset"],
                    r["type"],
                    r["status"],
                    r["rows"],
                    r["quarantined"],
                    "" if r["status"] == "erased" else _splits(r["splits"]),
                    r["created_at"],
                ]
                for r in rows
            ],
        )


def _erased(entry: "Dataset") -> str | None:
    """What became of a version that was erased; None of any other."""
    from resources.catalog import erasures

    if entry.status != "erased":
        return None
    found = erasures.erasure_of(wiring().catalog, entry.key)
    if found is None:
        return "erased on a person's request"
    follower = found.versions.get(entry.key)
    return f"erased by erasure {found.id} ({when(found.started_at)}); {follower or 'nothing'} follows it"


def _splits(rows: dict[str, int] | None) -> str:
    return " / ".join(str(rows[name]) for name in ("train", "validation", "test")) if rows else "not split yet"


@app.command("show")
def show_(version: Annotated[str, typer.Argument(metavar="NAME@VERSION")], json: Json = False) -> None:
    """Show what is known of a dataset version.

    Example: `llmops dataset show desk@v1`
    """
    show_version(version, json)


def show_version(version: str, json: bool = False) -> None:
    """Print what is known of a dataset version: its entry, its rows by step, its reports and its pointers."""
    from llmops_assets.datasets.reading.fates import unlearned
    from resources.catalog.pointers import resolve, tags

    w = wiring()
    version = resolve(w.catalog, version)
    entry = w.catalog.dataset_entry(version)
    erased = _erased(entry)
    kinds = (DatasetRecord, QualityRecord, CleanRecord, SplitsRecord)
    found = {r.asset: w.records.find(r, version) if erased is None else None for r in kinds}
    if json:
        print_json(
            {
                "dataset": version,
                "registration": entry.spec.model_dump(mode="json"),
                "digest": entry.digest,
                "status": entry.status,
                "erased": erased,
                **{asset: record.model_dump(mode="json") if record else None for asset, record in found.items()},
            }
        )
        return
    rows: list[tuple[str, object]] = [("type", entry.spec.type), ("owner", entry.spec.owner)]
    if erased is not None:
        rows.append(("status", erased))
    if record := found["dataset"]:
        rows += [("rows", record.rows), ("quarantined", record.quarantined)]
    if report := found["quality_report"]:
        rows += [
            ("personal data", ", ".join(f"{k} {v}" for k, v in sorted(report.pii.items())) or "none"),
            ("exact duplicates", report.exact_duplicates),
            ("near duplicates", report.near_duplicates),
            ("mean score", f"{report.score_mean:.3f}"),
            ("report", report.html),
        ]
    if clean := found["clean_dataset"]:
        dropped = ", ".join(f"{k} {v}" for k, v in sorted(clean.dropped_by_reason.items())) or "none"
        rows += [("clean rows", clean.rows), ("dropped", dropped)]
    if splits := found["splits"]:
        rows.append(("train / validation / test", _splits(splits.rows)))
    pointing = [tag for tag, at in tags(w.catalog, entry.spec.name).items() if at == entry.spec.version]
    rows.append(("tags", ", ".join(sorted(pointing)) or "none"))
    show(version, ["", ""], rows)
    if record is not None:
        show_keys(record.key_fates)
        if note := unlearned(record.key_fates, entry.spec.mapping or ()):
            out.print(note)
