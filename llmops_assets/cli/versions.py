"""`llmops dataset history|diff|tag|checkout|rollback|quarantine`: versions of a dataset, as one is used to from git."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, show, when, wiring
from llmops_assets.specs.names import split_versioned

Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="A version or a tag; the name alone is @current.")]
Step = Annotated[str, typer.Option("--step", help="Which rows: dataset, clean, train, validation or test.")]


def add_to(app: typer.Typer) -> None:
    """Give the group `llmops dataset` these commands."""
    for command in (history, diff, tag, checkout, rollback, quarantine):
        app.command()(command)


def history(
    dataset: Annotated[str, typer.Argument(metavar="NAME[@VERSION]", help="All versions of a dataset, or one.")],
    everything: Annotated[bool, typer.Option("--all", help="Reports and quarantines too, not only rows.")] = False,
    json: Json = False,
) -> None:
    """Show which step made which rows, when, with what configuration, and what that cost in new bytes.

    Example: `llmops dataset history desk`
    """
    from llmops_assets.datasets.versions import history as made
    from resources.catalog import pointers

    w = wiring()
    if "@" in dataset:
        keys = [pointers.resolve(w.catalog, dataset)]
        name = dataset.split("@")[0]
    else:
        name = pointers.resolve(w.catalog, dataset).split("@")[0]
        keys = [e.key for e in reversed(w.catalog.datasets()) if e.spec.name == name]
    entries = made.history(w.store, keys, w.records, everything=everything)
    tags = pointers.tags(w.catalog, name)
    if json:
        registered = {k: w.catalog.dataset_entry(k) for k in keys}
        print_json(
            {
                "versions": [
                    {"version": k, "registered_at": e.created_at.isoformat(), "digest": e.digest, "status": e.status}
                    for k, e in registered.items()
                ],
                "tags": {tag: f"{name}@{version}" for tag, version in tags.items()},
                "tables": [asdict(entry) for entry in entries],
            }
        )
        return
    rows = []
    for entry in entries:
        changed = "; ".join(f"{path}: {_short(a)} → {_short(b)}" for path, (a, b) in entry.changes.items())
        rows.append(
            [
                entry.version + ("" if entry.current else " (superseded)"),
                entry.step if entry.step == entry.table else f"{entry.step}: {entry.table}",
                f"{entry.rows:,}",
                f"{entry.new_bytes / 1e6:,.2f}/{entry.bytes / 1e6:,.2f}",
                entry.config_hash[:8] + (f" ({changed})" if changed else ""),
                when(entry.at),
                entry.manifest[:12],
            ]
        )
    show("", ["version", "step", "rows", "new/all MB", "config", "made", "manifest"], rows)
    out.print("tags: " + ", ".join(f"{tag} → {version}" for tag, version in sorted(tags.items())), markup=False)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:39] + "…"


def diff(
    before: Ref,
    after: Ref,
    step: Step = "dataset",
    by: Annotated[str | None, typer.Option("--by", help="Metadata field that says which row is which.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Rows of each kind to show.")] = 5,
    json: Json = False,
) -> None:
    """Count and show the rows that were added, removed and changed between two versions.

    A row that took another's place between the same neighbours counts as changed. Only chunks that the two do not
    share are read.

    Example: `llmops dataset diff desk@v1 desk@v2`
    """
    from llmops_assets.datasets.versions import diff as compare
    from llmops_assets.datasets.versions.history import manifest_of
    from resources.catalog import pointers

    w = wiring()
    keys = [pointers.resolve(w.catalog, ref) for ref in (before, after)]
    left, right = (manifest_of(w.store, w.records, key, step) for key in keys)
    found = compare.diff(w.store, left, right, key=by, limit=limit)
    counts = {
        name: getattr(found, name) for name in ("added", "removed", "changed", "relabelled", "moved", "unchanged")
    }
    if json:
        print_json({"before": keys[0], "after": keys[1], "step": step, **asdict(found), **counts})
        return
    out.print(f"{keys[0]} ({found.rows_before:,} rows) → {keys[1]} ({found.rows_after:,} rows), {step}", markup=False)
    show("", list(counts), [[f"{count:,}" for count in counts.values()]])
    out.print(
        f"{found.shared_chunks:,} of {len(right.chunks):,} chunks are shared; {found.new_bytes / 1e6:,.2f} MB differ"
    )
    for example in found.examples:
        place = f"{example['file']}:{example['line']}"
        out.print(f"\n{example['change']} {example['row_id']} ({place})", markup=False)
        for path, texts in example["fields"].items():
            for sign, text in (("-", texts["before"]), ("+", texts["after"])):
                if text is not None:
                    out.print(f"  {sign} {path}: {text}", markup=False)


def tag(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="What to point to, a version or a tag.")],
    name: Annotated[str | None, typer.Argument(metavar="TAG", help="Without it, the tags are listed.")] = None,
    json: Json = False,
) -> None:
    """Let a tag point to a version, or move it there: `desk@prod` then means that version wherever one is named.

    Example: `llmops dataset tag desk@v2 prod`
    """
    from llmops_assets.operations.versions import tag_version
    from resources.catalog import pointers

    w = wiring()
    dataset, target = split_versioned(pointers.resolve(w.catalog, version))
    if name is not None:
        done = tag_version(w, actor(), version, name)
        if not json:
            moved = f" (was {done.before})" if done.before and done.before != target else ""
            out.print(f"{done.pointer} → {done.key}{moved}", markup=False)
            return
    tags = {one: f"{dataset}@{two}" for one, two in sorted(pointers.tags(w.catalog, dataset).items())}
    if json:
        print_json(tags)
    else:
        show(dataset, ["tag", "version"], list(tags.items()))


def checkout(
    dataset: Ref,
    target: Annotated[Path, typer.Option("--out", help="File to write: .jsonl, .jsonl.gz, .jsonl.zst or .parquet.")],
    step: Step = "dataset",
    json: Json = False,
) -> None:
    """Write the rows of a version to a file. `--step dataset` are the rows as registered, with whatever personal data
    they hold; `--step clean` the masked ones. The file is not sealed.

    Example: `llmops dataset checkout desk@prod --step clean --out desk.jsonl`
    """
    from llmops_assets.operations.downloads import checkout_rows

    key, manifest, rows = checkout_rows(wiring(), actor(), dataset, step, target)
    if json:
        print_json({"dataset": key, "step": step, "manifest": manifest, "rows": rows, "file": str(target)})
    else:
        out.print(f"wrote {rows:,} rows of {key} ({step}) to {target}", markup=False)


def rollback(
    dataset: Annotated[str, typer.Argument(metavar="NAME", help="The dataset, without a version.")],
    to: Annotated[str | None, typer.Option(help="Version to go to; the one before without it.")] = None,
    pointer: Annotated[str, typer.Option("--tag", help="Which pointer to move.")] = "current",
    json: Json = False,
) -> None:
    """Move a dataset's pointer back, and say what was made from the version it leaves. No rows are lost.

    Example: `llmops dataset rollback desk --to v1`
    """
    from llmops_assets.operations.versions import roll_back

    done = roll_back(wiring(), actor(), dataset, pointer, to)
    if json:
        used = {version: asdict(found) for version, found in done.uses.items()}
        print_json({"pointer": done.pointer, "from": done.before, "to": done.key, "uses": used})
        return
    out.print(f"{done.pointer} → {done.key} (was {done.before})", markup=False)
    show(
        "used by now",
        ["version", "trainings", "models", "endpoints"],
        [[v, ", ".join(u.trainings), ", ".join(u.models), ", ".join(u.endpoints)] for v, u in done.uses.items()],
    )
    if done.uses[done.before].endpoints:
        out.print(
            f"endpoints still serve models of {done.before}: train on {done.key} and deploy, or roll the endpoint back"
        )


def quarantine(version: Ref, json: Json = False) -> None:
    """Show everything that was refused of a version, documents and passages included: file, line, field and reason.

    Example: `llmops dataset quarantine desk@v1`
    """
    from llmops_assets.datasets.reading.quarantine import refused
    from resources.catalog import pointers

    w = wiring()
    key = pointers.resolve(w.catalog, version)
    lines = refused(w.store, w.records, key)
    if json:
        print_json(lines.to_dicts())
    elif lines.height:
        show(key, lines.columns, lines.rows())
    else:
        out.print(f"nothing of {key} was refused", markup=False)
