"""`llmops dataset forget`: erase a person's rows, in every version and everything that was made from them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import (
    Exit,
    Json,
    Wait,
    actor,
    conclude,
    fail,
    follow,
    out,
    print_json,
    say,
    show,
    when,
    wiring,
)

if TYPE_CHECKING:
    from llmops_assets.erasure.plan import Plan
    from llmops_assets.operations.erasures import Erased

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
    Nothing unlearns. Cut off, the same command completes what it began. Exit 4 says that something is left, 5 that a
    run works on what is to be erased: wait for it, or stop it.

    Example: `llmops dataset forget desk --match 010-1234-5678 --match kim@example.com --dry-run`
    """
    from llmops_assets.erasure.search import Wanted
    from llmops_assets.operations.erasures import Request, erase, plan_erasure

    wanted = Wanted(
        texts=tuple([*(match or []), *_lines(match_file)]),
        patterns=tuple(regex or []),
        fields=tuple(_field(pair) for pair in field or []),
        rows=tuple(row or []),
    )
    request = Request(name, wanted, everywhere, reason)
    planned = plan_erasure(wiring(), request)
    if json and dry_run:
        print_json({**planned.plan.as_json(), "unfinished": planned.unfinished})
        return
    if not json:
        _print_plan(planned.plan)
    if not planned.anything:
        _conclude_without_work(planned.plan, json)
        return
    if dry_run:
        out.print("nothing was done (--dry-run)")
        return
    if not yes:
        if not sys.stdin.isatty():
            fail("this deletes rows for good: look at --dry-run, then give --yes")
        typer.confirm("Delete this for good?", abort=True)
    done = erase(wiring(), actor(), request, planned, say)
    _print_done(done, json)
    if done.left:
        raise typer.Exit(int(Exit.FAILED))
    for version in done.awaited if wait else ():
        conclude(follow(version, "splits", since=done.erasure.started_at))


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
        print_json({**plan.as_json(), "erasure": None})
    else:
        out.print("nothing was found" + ("; other datasets hold it: see above" if plan.elsewhere else ""))


def _print_plan(plan: "Plan") -> None:
    facts = plan.as_json()
    if facts["versions"]:
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
                for v in facts["versions"]
            ],
        )
        if unreadable := sum(v["unreadable_lines"] for v in facts["versions"]):
            out.print(f"{unreadable} raw lines cannot be read; those that may hold the person's data go, too")
    if facts["affected_trainings"]:
        show(
            "Trainings that learned from them",
            ["training", "model", "why"],
            [[t["training"], t["model"] or "not registered", t["why"]] for t in facts["affected_trainings"]],
        )
    for endpoint, models in facts["endpoints"].items():
        out.print(f"endpoint {endpoint} serves {', '.join(models)}", markup=False)
    if any(facts["traffic"].values()):
        out.print(", ".join(f"{count} {name}" for name, count in facts["traffic"].items()) + " hold the person's words")
    for key, count in facts["elsewhere"].items():
        out.print(f"also found in {key}: {count} rows; --everywhere erases those, too", markup=False)


def _print_done(done: "Erased", json: bool) -> None:
    if json:
        print_json(
            {
                "erasure": done.erasure.id,
                "state": done.erasure.state,
                "versions": done.erasure.versions,
                "affected": [{"training": one.cell, "model": one.model_ref, "why": one.why} for one in done.affected],
                "endpoints": done.endpoints,
                "removed": done.removed,
                "elsewhere": done.elsewhere,
                "left": [vars(one) for one in done.left],
            }
        )
        return
    for old, new in done.erasure.versions.items():
        out.print(f"{old} is erased; {f'{new} follows it' if new else 'no row of it is left'}", markup=False)
    removed = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in done.removed.items())
    out.print(f"removed: {removed}", markup=False)
    if done.affected:
        out.print(f"{len(done.affected)} trainings are marked as affected. {UNLEARNING}", markup=False)
    for one in done.left:
        out.print(f"LEFT: {one.path}: {one.reason}", markup=False)
    if done.left:
        out.print("the erasure is not complete: remove these, then run the same command again")
    else:
        files = done.removed["files_read"]
        out.print(f"erasure {done.erasure.id} is complete: {files:,} files were read, and none holds the data")


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
