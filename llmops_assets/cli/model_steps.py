"""`llmops model approve|promote|archive|history|download`: a version's way to production, and who took it there."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import (
    Exit,
    Json,
    Wait,
    actor,
    conclude,
    follow,
    now,
    out,
    print_json,
    show,
    when,
    wiring,
)

Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION|NAME@ALIAS")]
AnyRef = Annotated[str, typer.Argument(metavar="NAME@VERSION|hf:PATH", help="A version, or a base model.")]


def approve(ref: AnyRef) -> None:
    """Approve a version for staging and production, or a base model for trainings to start from.

    Example: `llmops model approve hf:/models/Qwen3-0.6B`, `llmops model approve desk-tuned@3`
    """
    from llmops_assets.operations import models

    done = models.approve(wiring(), actor(), ref)
    if models.is_base(ref):
        out.print(f"{done.ref}: {done.state} by {done.by}")
    else:
        out.print(f"{ref}: approved. Try it with: llmops model promote {ref} staging")


def promote(
    ref: Ref,
    to: Annotated[str, typer.Argument(metavar="staging|production")] = "production",
    wait: Wait = False,
) -> None:
    """Make a version the one in staging or in production.

    A production endpoint that serves this model deploys the version first, as its spec says (blue-green or canary),
    and the alias `production` moves once the version has all its users. Exit 3: refused, with every reason.

    Example: `llmops model promote desk-tuned@3 production --wait`
    """
    from llmops_assets.operations import models

    since = now()
    through = models.promote(wiring(), actor(), ref, to).through
    if not through:
        out.print(f"{ref}: {to}")
        return
    out.print(f"{ref}: on its way to production through endpoint {', '.join(through)}")
    if wait:
        for endpoint in through:
            conclude(follow(endpoint, "deployment", since=since, timeout=3600))


def parity(
    ref: Ref,
    items: Annotated[int | None, typer.Option(min=1, help="Evaluated items to repeat; else the policy's.")] = None,
    engine: Annotated[str, typer.Option(help="transformers or vllm.")] = "transformers",
    json: Json = False,
) -> None:
    """Serve a version for a moment and see whether it is shown, and says, the tokens of its evaluation.

    Exit 3 when not. Promotion to production demands it; the asset check of `registered_model` asks the same.

    Example: `llmops model parity desk-tuned@3 --items 50`
    """
    from llmops_assets.operations import models

    version, record = models.measure_parity(wiring(), actor(), ref, items=items, engine=engine)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        out.print(f"{version}: {record.explanation}", markup=False)
        if record.differences:
            columns = ["question", "kind", "evaluated", "served"]
            show("", columns, [[one[name] for name in columns] for one in record.differences])
    if not record.passed:
        raise typer.Exit(int(Exit.WITHHELD))


def archive(ref: AnyRef) -> None:
    """Take a version, or a base model, out of use; it stays on record and can be approved again.

    Example: `llmops model archive desk-tuned@1`
    """
    from llmops_assets.operations import models

    done = models.archive(wiring(), actor(), ref)
    out.print(f"{done.ref}: {done.state}")


def history(
    ref: Annotated[str, typer.Argument(metavar="NAME[@VERSION]|hf:PATH")],
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    json: Json = False,
) -> None:
    """Who did what with a model, and when: steps, deployments and downloads, newest first.

    Example: `llmops model history desk-tuned`
    """
    from llmops_assets.operations import models

    lines = models.history(wiring(), ref, limit)
    if json:
        print_json(lines)
        return
    rows = [[when(x["at"]), x["actor"], x["action"], x["target"], _detail(x["detail"])] for x in lines]
    show(f"History of {ref}", ["at", "who", "did", "with", "detail"], rows)


def _detail(detail: dict) -> str:
    return ", ".join(f"{key}: {value}" for key, value in detail.items())


def download(
    ref: Ref,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made by this; must not exist.")],
) -> None:
    """Copy a version's files, with its model card, to a folder; who took which weights goes to the audit log.

    Example: `llmops model download desk-tuned@3 ./desk-tuned-3`
    """
    from llmops_assets.operations import models

    version, content_hash = models.download(wiring(), actor(), ref, folder)
    out.print(f"{version}: {folder} ({content_hash})")


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to `llmops model`."""
    for command in (approve, parity, promote, archive, history, download):
        app.command()(command)
