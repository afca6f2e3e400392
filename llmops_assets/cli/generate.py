"""`llmops dataset generate`: let a model write rows about documents."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, Wait, actor, conclude, follow, now, out, parse_spec, print_json, wiring
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.documents import QuestionAnswersRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.names import split_versioned

TEMPLATES = ("qa", "chat", "summary")


def generate(
    documents: Annotated[list[Path], typer.Argument(metavar="DOCS…", help="txt, md, html and pdf files, or folders.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME@VERSION", help="The dataset version to make.")],
    endpoint: Annotated[
        str, typer.Option(help="Base address of an OpenAI-compatible API, or endpoint:NAME for one of our own.")
    ],
    model: Annotated[str | None, typer.Option(help="The model there. Left out for endpoint:NAME.")] = None,
    template: Annotated[str, typer.Option(help=f"What is written: {', '.join(TEMPLATES)}.")] = "qa",
    language: Annotated[str, typer.Option(help="auto (that of the passage), ko or en.")] = "auto",
    rows: Annotated[int, typer.Option(help="Rows that are asked for about each passage.")] = 3,
    passage_chars: Annotated[int, typer.Option(help="Characters of the longest passage.")] = 1500,
    grounded: Annotated[float, typer.Option(help="Share of an answer's words that its passage must have.")] = 0.6,
    concurrency: Annotated[int, typer.Option(help="Passages that are asked about at a time.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for one answer.")] = 120.0,
    attempts: Annotated[int, typer.Option(help="Attempts for each passage.")] = 3,
    max_tokens: Annotated[int, typer.Option(help="Tokens of one answer.")] = 1024,
    key_env: Annotated[
        str, typer.Option(help="Environment variable of the key; it is never stored.")
    ] = "LLMOPS_LLM_KEY",
    owner: Annotated[str, typer.Option(help="The team that answers for the data.")] = "unassigned",
    license: Annotated[str | None, typer.Option(help="Licence of the documents.")] = None,
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Register documents, and let a model write questions and answers, conversations or summaries about them.

    The rows become a dataset version like any other: ingested, reported, masked, deduplicated, filtered and split.
    The key comes from the environment of the platform. Cut off, the same command asks only what is left.

    Example: `llmops dataset generate manual.pdf --name manual@v1 --endpoint http://127.0.0.1:8000/v1 --model qwen3`
    """
    from llmops_assets.datasets.versions.register import register

    dataset, version = split_versioned(name)
    own = endpoint.removeprefix("endpoint:") if endpoint.startswith("endpoint:") else None
    spec = parse_spec(
        DatasetSpec,
        {
            "name": dataset,
            "version": version,
            "type": "sft_pair",
            "files": [str(path) for path in documents],
            "owner": owner,
            "description": f"{template} written by {own or model} about {', '.join(path.name for path in documents)}",
            "license": license,
            # Rows about one passage say the same things: none of them may test what another has trained.
            "split": {"group_by": "provenance.passage_sha256"},
            "generation": {
                "endpoint": endpoint,
                "model": model or own,
                "template": template,
                "language": language,
                "per_passage": rows,
                "passage_chars": passage_chars,
                "max_tokens": max_tokens,
                "concurrency": concurrency,
                "timeout_seconds": timeout,
                "attempts": attempts,
                "min_groundedness": grounded,
                "api_key_env": key_env,
            },
        },
    )
    w = wiring()
    since = now()
    new = register(spec, documents, artifacts=w.artifacts, catalog=w.catalog, policy=w.policy, actor=actor())
    done = not new and w.records.find(SplitsRecord, spec.key) is not None
    if not json:
        out.print(f"{'registered' if new else 'registered already'}: {spec.key}, {template} by {model or own}")
        if done:
            out.print("its splits are there; nothing to do")
    if wait and not done:
        conclude(follow(spec.key, "splits", since=since))
    record = w.records.find(QuestionAnswersRecord, spec.key)
    if json:
        print_json({"dataset": spec.key, "new": new, "result": record.model_dump(mode="json") if record else None})
    elif wait and record is not None:
        out.print(
            f"{record.rows} rows from {record.passages} passages of {record.documents} documents; "
            f"{record.failed_passages} passages failed, {record.ungrounded_rows} rows were not in their passage "
            f"(groundedness {record.groundedness_mean:.2f} on average)"
        )
