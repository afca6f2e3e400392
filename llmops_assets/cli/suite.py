"""`llmops suite …`: evaluation suites: cases of one's own, published benchmarks, tasks of lm-evaluation-harness."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import (
    Json,
    Wait,
    actor,
    conclude,
    follow,
    now,
    out,
    print_json,
    say_there,
    show,
    when,
    wiring,
)
from llmops_assets.records.datasets import DatasetRecord
from llmops_assets.specs.suite import JUDGE_KINDS, METRIC_NAMES, SuiteSpec

app = typer.Typer(help="Evaluation suites: register, list, look at.", no_args_is_help=True)


@app.command()
def add(
    version: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="For example kobest-copa@v1.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="The benchmark's file; for lm-eval TASK.yaml and DOCS.jsonl.")
    ],
    format: Annotated[
        str,
        typer.Option(help="cases (your own rows), mmlu, hellaswag, kobest-* … (`suite formats`) or lm-eval."),
    ] = "cases",
    judge: Annotated[str | None, typer.Option(help=f"cases: one of {', '.join(JUDGE_KINDS)}.")] = None,
    length_norm: Annotated[
        str | None, typer.Option(help="multiple_choice: divide log-likelihoods by none, characters, bytes or tokens.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help=f"A further figure: {', '.join(METRIC_NAMES)}; for lm-eval its own metric.")
    ] = None,
    encoder: Annotated[Path | None, typer.Option(help="Folder of the local encoder that bertscore needs.")] = None,
    cluster_by: Annotated[
        str | None, typer.Option(help="Metadata field whose equal values are phrasings of one question.")
    ] = None,
    general: Annotated[
        bool | None, typer.Option(help="Measures general ability: a training must not make it fall.")
    ] = None,
    owner: Annotated[str, typer.Option(help="The team that answers for the suite.")] = "unassigned",
    description: Annotated[str, typer.Option(help="What the suite measures.")] = "",
    license: Annotated[str | None, typer.Option(help="Licence of the data.")] = None,
    wait: Wait = False,
) -> None:
    """Register files as a suite; a training spec (evaluation.suites) or the policy (evaluation.suites) asks it.

    A row of one's own cases may carry `judge`, `references`, `choices` and `category` in its metadata.

    Example: `llmops suite add kobest-copa@v1 COPA/test.tsv --format kobest-copa --wait`

    Example: `llmops suite add desk-cases@v1 cases.jsonl --judge contains --wait`

    Example: `llmops suite add mine@v1 task.yaml docs.jsonl --format lm-eval --metric acc --wait`
    """
    from llmops_assets.operations.suites import register_suite

    since = now()
    done = register_suite(
        wiring(),
        actor(),
        version,
        files,
        format=format,
        given={
            "judge": judge,
            "length_norm": length_norm,
            "metrics": metric,
            "encoder": str(encoder.absolute()) if encoder else None,
            "cluster_by": cluster_by,
            "general": general,
        },
        about={"owner": owner, "license": license, "description": description},
    )
    out.print(f"{'registered' if done.new else 'registered already'}: {done.key} ({format})", markup=False)
    for note in done.notes:
        out.print(note, markup=False)
    if done.split and done.blocked is not None:
        say_there(done, wait=wait)
    elif wait and (done.new or not done.split):
        conclude(follow(done.key, "splits", since=since))


@app.command()
def archive(version: Annotated[str, typer.Argument(metavar="NAME@VERSION")]) -> None:
    """Ask no new model a suite; what was measured with it stays.

    Example: `llmops suite archive desk-cases@v1`
    """
    from llmops_assets.operations.suites import archive_suite

    done = archive_suite(wiring(), actor(), version)
    out.print(f"{'archived' if done.changed else 'archived already'}: {done.key}", markup=False)
    if done.asked_of:
        out.print(
            f"the policy names it for {', '.join(done.asked_of)} (evaluation.suites): it is left out there, and said",
            markup=False,
        )


@app.command()
def restore(version: Annotated[str, typer.Argument(metavar="NAME@VERSION")]) -> None:
    """Ask new models an archived suite again.

    Example: `llmops suite restore desk-cases@v1`
    """
    from llmops_assets.operations.suites import restore_suite

    done = restore_suite(wiring(), actor(), version)
    out.print(f"{'in use again' if done.changed else 'in use already'}: {done.key}", markup=False)


@app.command("list")
def list_(json: Json = False) -> None:
    """List suites, newest first.

    Example: `llmops suite list --json`
    """
    w = wiring()
    rows = []
    for entry in w.catalog.datasets():
        if entry.spec.type != "eval_suite":
            continue
        suite, record = entry.spec.suite or SuiteSpec(), w.records.find(DatasetRecord, entry.key)
        rows.append(
            {
                "suite": entry.key,
                "format": suite.format or "cases",
                "judge": "lm-eval" if suite.harness else suite.judge,
                "general": suite.general,
                "status": entry.status,
                "items": record.rows if record else None,
                "created_at": entry.created_at.isoformat() if json else when(entry.created_at),
            }
        )
    if json:
        print_json(rows)
        return
    columns = ["suite", "format", "judge", "general", "items", "status", "created_at"]
    show("", columns, [["yes" if r[c] is True else "" if r[c] is False else r[c] for c in columns] for r in rows])


@app.command("show")
def show_(version: Annotated[str, typer.Argument(metavar="NAME@VERSION")], json: Json = False) -> None:
    """Show how a suite is asked and judged, and its first items as they are asked.

    Example: `llmops suite show kobest-copa@v1`
    """
    w = wiring()
    entry = w.catalog.dataset_entry(version)
    if entry.spec.type != "eval_suite":
        raise ValueError(f"{version} is a dataset of type {entry.spec.type}, and no suite")
    suite, record = entry.spec.suite or SuiteSpec(), w.records.find(DatasetRecord, version)
    frame = w.store.read(record.manifest) if record else None
    first = frame.head(3).to_dicts() if frame is not None else []
    facts = suite.model_dump(mode="json", exclude_none=True)
    if json:
        print_json(
            {
                "suite": version,
                "spec": facts,
                "digest": entry.digest,
                "items": record.rows if record else None,
                "examples": [row["messages"] for row in first],
            }
        )
        return
    rows: list[tuple[str, object]] = [("description", entry.spec.description), ("licence", entry.spec.license)]
    rows += [(key, value) for key, value in facts.items() if value not in ([], None)]
    rows += [("items", record.rows if record else "not ingested yet"), ("digest", entry.digest[:16])]
    show(version, ["", ""], rows)
    for row in first:
        asked = "\n".join(message["content"] for message in row["messages"][:-1])
        out.print(f"\n{asked}\n→ {row['messages'][-1]['content']}", markup=False)


@app.command()
def formats(json: Json = False) -> None:
    """List the benchmarks whose files can be read.

    Example: `llmops suite formats`
    """
    from llmops_assets.evaluation.formats import FORMATS

    if json:
        print_json({name: {"files": f.what, "spec": f.spec.model_dump(mode="json")} for name, f in FORMATS.items()})
    else:
        show("", ["format", "reads", "judge"], [[name, f.what, f.spec.judge] for name, f in FORMATS.items()])
