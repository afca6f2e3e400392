"""`llmops dataset forget`: erase a person's rows, in every version and everything that was made from them."""

import os
import secrets
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_assets.cli.common import (
    Exit,
    Json,
    Wait,
    actor,
    conclude,
    fail,
    follow,
    now,
    out,
    print_json,
    say,
    show,
    when,
    wiring,
)

if TYPE_CHECKING:
    from llmops_assets.erasure.plan import Plan, Platform
    from llmops_assets.erasure.residual_scan import Leftover
    from llmops_assets.erasure.search import Wanted

LOGS = (".log", ".out", ".err")
UNLEARNING = (
    "Nothing here unlearns: the marked models still hold what they learned, and are kept from getting more users. "
    "Train again on the versions that follow, deploy those models, then delete the old ones."
)


def forget(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset, without a version.")],
    match: Annotated[
        list[str] | None, typer.Option("--match", help="Text to find, in any spelling. Repeatable.")
    ] = None,
    match_file: Annotated[
        Path | None,
        typer.Option(help="Texts to find, one a line; - reads stdin. Keeps them out of the shell's history."),
    ] = None,
    regex: Annotated[list[str] | None, typer.Option("--regex", help="Regular expression to find. Repeatable.")] = None,
    field: Annotated[
        list[str] | None, typer.Option("--field", help="FIELD=VALUE of a row's metadata. Repeatable.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="A row_id. Repeatable.")] = None,
    everywhere: Annotated[bool, typer.Option(help="Other datasets too, not only what was made from NAME.")] = False,
    reason: Annotated[str, typer.Option(help="Why, for the record; must not name the person.")] = "on request",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Erase a person's rows from every version of a dataset and from all that was made of them.

    Each version that holds such rows is followed by one without them (desk@v1 by desk@v1-e1), which the graph ingests
    as any other; the old one's bytes are deleted. Models that learned from the rows are marked and get no more users.
    Nothing unlearns. Cut off, the same command completes what it began. Exit 4 says that something is left.

    Example: `llmops dataset forget desk --match 010-1234-5678 --match kim@example.com --dry-run`
    """
    from llmops_assets.erasure.plan import find
    from llmops_assets.erasure.search import Wanted
    from resources.event_log import Busy

    wanted = Wanted(
        texts=tuple([*(match or []), *_lines(match_file)]),
        patterns=tuple(regex or []),
        fields=tuple(_field(pair) for pair in field or []),
        rows=tuple(row or []),
    )
    if wanted.in_text(reason):
        raise ValueError("--reason holds what is to be forgotten: it is kept on record, so leave the person out of it")
    platform = _platform()
    plan = find(platform, name, wanted, everywhere=everywhere)
    request = wanted.digest(_key(wiring().settings.root))
    unfinished = _unfinished(name, request)
    if json and dry_run:
        print_json({**plan.told(), "unfinished": unfinished})
        return
    if not json:
        _print_plan(plan)
    if not plan.anything and unfinished is None:
        _conclude_without_work(plan, json)
        return
    if dry_run:
        out.print("nothing was done (--dry-run)")
        return
    if not yes:
        if not sys.stdin.isatty():
            fail("this deletes rows for good: look at --dry-run, then give --yes")
        typer.confirm("Delete this for good?", abort=True)
    since = now()
    try:
        done = _carry_out(platform, plan, wanted, name, request, reason)
    except Busy as error:
        fail(str(error), Exit.UNAVAILABLE)
    _print_done(done, json)
    if done["left"]:
        raise typer.Exit(int(Exit.FAILED))
    for version in filter(None, done["versions"].values()):
        if wait:
            conclude(follow(version, "splits", since=since))


def _carry_out(
    platform: "Platform", plan: "Plan", wanted: "Wanted", name: str, request: str, reason: str
) -> dict[str, Any]:
    from llmops_assets.erasure.carry_out import carry_out
    from llmops_assets.partitions import dataset_versions
    from llmops_assets.serving.erased_rows import served_affected
    from llmops_assets.training.erased_rows import learned_nothing_erased
    from resources.catalog import erasures
    from resources.event_log import EventLog

    w = wiring()
    log = EventLog(w.settings.dagster_home)
    known = _unfinished(name, request)
    earlier = erasures.erasure(w.catalog, known).versions if known is not None else {}
    keys = {*plan.versions, *earlier}
    cells = {t.cell for t in plan.trainings} | set(plan.evaluated)
    log.refuse_busy(keys | cells)
    erasure = erasures.begin(
        w.catalog, name=name, request=request, looked_for=wanted.described(), reason=reason, actor=actor()
    )
    figures = carry_out(platform, plan, wanted, erasure, actor=actor(), say=say)
    # Every cell of a version goes with it: its key is no partition any more.
    gone = keys | cells | {cell for cell in _cells(platform) if cell.split("|")[0] in keys}
    figures["runs"] = figures.get("runs", 0) + log.forget(gone, {dataset_versions.name: keys})
    marked = [one for one in erasures.affected(w.catalog) if one.erasure == erasure.id]
    log.report(
        [
            *(
                _report("deployment", "no_erased_rows_learned", e, served_affected(w.catalog, e))
                for e in plan.endpoints
            ),
            *(
                _report("registered_model", "no_erased_rows", one.cell, learned_nothing_erased(w.catalog, one.cell))
                for one in marked
                if one.model_ref is not None
            ),
        ]
    )
    left, files = _sweep(wanted)
    figures["files_read"] = files
    if not left:
        erasures.finish(w.catalog, erasure.id, figures, actor())
    after = erasures.erasure(w.catalog, erasure.id)
    return {
        "erasure": erasure.id,
        "state": after.state,
        "versions": after.versions,
        "affected": [{"training": one.cell, "model": one.model_ref, "why": one.why} for one in marked],
        "endpoints": plan.endpoints,
        "removed": figures,
        "elsewhere": plan.elsewhere,
        "left": [vars(one) for one in left],
    }


def _report(asset: str, check: str, partition: str, verdict: Any) -> Any:
    from resources.event_log import Report

    return Report(asset, check, partition, verdict.passed, verdict.text)


def _cells(platform: "Platform") -> Iterable[str]:
    from llmops_assets.records.training import PlanRecord
    from llmops_assets.specs.names import training_key

    return [training_key(plan.dataset, plan.recipe) for plan in platform.records.all(PlanRecord)]


def _sweep(wanted: "Wanted") -> "tuple[list[Leftover], int]":
    """Read every byte of the home folder, and of the artifacts where they lie elsewhere; mend logs on the way."""
    from llmops_assets.erasure.residual_scan import blank_lines, residual_scan

    w = wiring()
    roots = [w.settings.root]
    if w.artifacts.is_local and not Path(w.artifacts.root).is_relative_to(w.settings.root):
        roots.append(Path(w.artifacts.root))
    left, files = residual_scan(roots, wanted, w.keys)
    for one in left:
        if Path(one.path).suffix in LOGS:
            blank_lines(Path(one.path), wanted)
    return residual_scan(roots, wanted, w.keys) if any(Path(one.path).suffix in LOGS for one in left) else (left, files)


def _platform() -> "Platform":
    from llmops_assets.erasure.plan import Platform

    w = wiring()
    return Platform(w.catalog, w.artifacts, w.store, w.records, w.tracking, w.policy)


def _unfinished(name: str, request: str) -> int | None:
    from resources.catalog import erasures

    found = [e.id for e in erasures.erasures(wiring().catalog, name) if e.request == request and e.state == "running"]
    return found[0] if found else None


def _key(root: Path) -> bytes:
    """The key of the hashes that requests are known by, made once: without it nobody can try numbers against them."""
    path = root / "erasure.key"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _field(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not (name and equals and value):
        raise ValueError(f"--field {pair!r} is not FIELD=VALUE")
    return name, value


def _conclude_without_work(plan: "Plan", json: bool) -> None:
    if json:
        print_json({**plan.told(), "erasure": None})
    else:
        out.print("nothing was found" + ("; other datasets hold it: see above" if plan.elsewhere else ""))


def _print_plan(plan: "Plan") -> None:
    told = plan.told()
    if told["versions"]:
        show(
            "Versions that hold the person's rows",
            ["version", "rows", "raw lines", "tables", "followed by"],
            [
                [
                    v["dataset"],
                    f"{v['rows']:,} of {v['of']:,}",
                    v["raw_lines"],
                    ", ".join(f"{name} {count}" for name, count in v["tables"].items()),
                    v["followed_by"],
                ]
                for v in told["versions"]
            ],
        )
        if unreadable := sum(v["unreadable_lines"] for v in told["versions"]):
            out.print(f"{unreadable} raw lines cannot be read; those that may hold the person's data go, too")
    if told["affected_trainings"]:
        show(
            "Trainings that learned from them",
            ["training", "model", "why"],
            [[t["training"], t["model"] or "not registered", t["why"]] for t in told["affected_trainings"]],
        )
    for endpoint, models in told["endpoints"].items():
        out.print(f"endpoint {endpoint} serves {', '.join(models)}", markup=False)
    if any(told["traffic"].values()):
        out.print(", ".join(f"{count} {name}" for name, count in told["traffic"].items()) + " hold the person's words")
    for key, count in told["elsewhere"].items():
        out.print(f"also found in {key}: {count} rows; --everywhere erases those, too", markup=False)


def _print_done(done: dict[str, Any], json: bool) -> None:
    if json:
        print_json(done)
        return
    for old, new in done["versions"].items():
        out.print(f"{old} is erased; {f'{new} follows it' if new else 'no row of it is left'}", markup=False)
    removed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in done["removed"].items())
    out.print(f"removed: {removed}", markup=False)
    if done["affected"]:
        out.print(f"{len(done['affected'])} trainings are marked as affected. {UNLEARNING}", markup=False)
    for one in done["left"]:
        out.print(f"LEFT: {one['path']}: {one['reason']}", markup=False)
    if done["left"]:
        out.print("the erasure is not complete: remove these, then run the same command again")
    else:
        files = done["removed"]["files_read"]
        out.print(f"erasure {done['erasure']} is complete: {files:,} files were read, and none holds the data")


def list_erasures(json: Json = False) -> None:
    """List erasures, newest first, and the models that are affected by them.

    Example: `llmops dataset erasures`
    """
    from resources.catalog import erasures

    catalog = wiring().catalog
    found, marked = erasures.erasures(catalog), erasures.affected(catalog)
    if json:
        print_json({"erasures": [vars(e) for e in found], "affected_models": [vars(m) for m in marked]})
        return
    show(
        "Erasures",
        ["number", "dataset", "state", "versions", "by", "started", "reason"],
        [
            [
                e.id,
                e.name,
                e.state,
                ", ".join(f"{old} → {new or 'nothing'}" for old, new in e.versions.items()),
                e.requested_by,
                when(e.started_at),
                e.reason,
            ]
            for e in found
        ],
    )
    if marked:
        show(
            "Affected models",
            ["erasure", "training", "model", "why"],
            [[m.erasure, m.cell, m.model_ref or "not registered", m.why] for m in marked],
        )
