"""`llmops index …`: indexes of passages for RAG endpoints."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Json, Wait, actor, conclude, follow, now, out, print_json, show, wiring

app = typer.Typer(help="Indexes of passages for RAG endpoints: build, list, look at, search.", no_args_is_help=True)


@app.command()
def build(
    dataset: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="Whose passages are indexed.")],
    encoder: Annotated[
        str, typer.Option(help="A registered encoder NAME@VERSION, a training DATASET|RECIPE, or a recipe's key.")
    ],
    name: Annotated[str | None, typer.Option(help="What endpoints search it as; left out, the dataset's name.")] = None,
    passage_chars: Annotated[
        int | None, typer.Option(help="Characters of the longest passage of a corpus (800).")
    ] = None,
    wait: Wait = False,
) -> None:
    """Index the passages of a dataset version; once it is checked, its name stands for it in one step.

    Example: `llmops index build desk-questions@v1 --encoder desk-embedding@1 --wait`
    """
    from llmops_assets.operations.indexes import build_index

    since = now()
    wanted = build_index(wiring(), actor(), dataset, encoder, name=name, passage_chars=passage_chars)
    out.print(f"wanted: index {wanted.name} of {wanted.partition}, revision {wanted.revision}", markup=False)
    if wait:
        conclude(follow(wanted.partition, "retrieval_index", since=since, timeout=3600 * 4))


@app.command("list")
def list_(json: Json = False) -> None:
    """List indexes with what each name stands for.

    Example: `llmops index list --json`
    """
    from llmops_assets.operations.indexes import as_json, list_indexes

    rows = [as_json(one) for one in list_indexes(wiring())]
    if json:
        print_json(rows)
        return
    columns = ["name", "version", "dataset", "encoder", "passages", "fault"]
    show("", columns, [["" if row[column] is None else row[column] for column in columns] for row in rows])


@app.command("show")
def show_(name: Annotated[str, typer.Argument(metavar="NAME")], json: Json = False) -> None:
    """Show what an index holds, and how well it finds the passages of its test questions.

    Example: `llmops index show desk-questions`
    """
    from llmops_assets.operations.indexes import as_json, show_index

    row = as_json(show_index(wiring(), name))
    if json:
        print_json(row)
        return
    metrics = row.pop("metrics")
    show(name, ["", ""], [(key, value) for key, value in row.items() if value is not None])
    if metrics:
        columns = ["suite", "name", "value", "low", "high", "n"]
        show("on its test questions", columns, [[_figure(metric[column]) for column in columns] for metric in metrics])


def _figure(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else "" if value is None else value


@app.command()
def query(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="Passages.")] = 5,
    mode: Annotated[str, typer.Option(help="hybrid, dense or sparse.")] = "hybrid",
    json: Json = False,
) -> None:
    """Show what a question finds, as an endpoint would find it.

    Example: `llmops index query desk-questions "통행료는 어디서 내나요?"`
    """
    from llmops_assets.operations.indexes import query_index

    version, found = query_index(wiring(), actor(), name, question, limit=limit, mode=mode)  # pyrefly: ignore
    if json:
        print_json({"index": name, "version": version, "passages": [vars(one) for one in found]})
        return
    rows = [
        [one.id, one.document, f"{one.score:.4f}", f"{one.cosine:.3f}", _figure(one.sparse), one.text[:80]]
        for one in found
    ]
    show(f"{name}, version {version}", ["passage", "document", "score", "cosine", "bm25", "text"], rows)
