"""`llmops dataset train-toxicity`: a toxicity scorer from labels of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, fail, print_json, say, show

EPILOG = "Exit codes: 0 written; 1 the file cannot be read, or holds too little to learn from; 2 wrong command line."


def train_toxicity(
    file: Annotated[Path, typer.Argument(metavar="CSV", help="A CSV or TSV file with a header.")],
    text: Annotated[str, typer.Option(help="Column of the texts.")],
    label: Annotated[
        str, typer.Option(help="Column that says whether a text is toxic: 1/0, true/false, yes/no, toxic/clean.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model, for datasets.toxicity.path of the policy.")],
    group: Annotated[
        str | None, typer.Option(help="Column of the groups that a toxic text offends, several separated by commas.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="By default the one with the best F1 on held-out texts.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the held-out fifth.")] = 0,
    json: Json = False,
) -> None:
    """Train the scorer `linear` on labelled texts and say how it does on a fifth that it did not see.

    The policy then names it: `toxicity: {scorer: linear, path: toxicity.safetensors}`.

    Example: `llmops dataset train-toxicity labels.csv --text comment --label toxic --out toxicity.safetensors`
    """
    from llmops_assets.toxicity.linear import read_labels, train
    from llmops_assets.toxicity.scorer import ToxicityError

    try:
        labels = read_labels(file, text, label, group)
        model, judged = train(labels.texts, labels.toxic, labels.groups, threshold=threshold, seed=seed)
        model.save(out)
    except (ToxicityError, OSError) as error:
        fail(str(error))
    if json:
        print_json({"model": str(out), "groups": model.names, "skipped": labels.skipped, **vars(judged)})
        return
    rates = [(name, f"{getattr(judged, name):.3f}") for name in ("precision", "recall", "f1", "auc", "threshold")]
    rows = [("texts", f"{len(labels.texts):,}"), ("groups learned", ", ".join(model.names) or "none")]
    show("", ["", ""], [*rows, (f"on {judged.texts:,} held out", f"{judged.toxic:,} of them toxic"), *rates])
    if labels.skipped:
        say(f"{labels.skipped:,} rows without a text or with another label were left out")
    say(f"written to {out}")


def add_to(app: typer.Typer) -> None:
    """Put the command into the group `dataset`."""
    app.command("train-toxicity", epilog=EPILOG)(train_toxicity)
