"""`llmops model approve|promote|archive|history|download`: a version's way to production, and who took it there."""

import shutil
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
    now,
    out,
    print_json,
    show,
    when,
    wiring,
)

if TYPE_CHECKING:
    from llmops_assets.registry.transition import Registry

Ref = Annotated[str, typer.Argument(metavar="NAME@VERSION|NAME@ALIAS")]
AnyRef = Annotated[str, typer.Argument(metavar="NAME@VERSION|hf:PATH", help="A version, or a base model.")]


def registry() -> "Registry":
    from llmops_assets.registry.transition import Registry

    w = wiring()
    return Registry(w.tracking, w.records, w.catalog, w.policy)


def _take(action: str, ref: str) -> list[str]:
    from llmops_assets.registry.lifecycle import NotAllowed
    from llmops_assets.registry.transition import transition

    try:
        return transition(registry(), action, ref, actor())
    except NotAllowed as error:
        fail(str(error), Exit.WITHHELD)


def _is_base(ref: str) -> bool:
    return ref.startswith("hf:") or "@" not in ref


def approve(ref: AnyRef) -> None:
    """Approve a version for staging and production, or a base model for trainings to start from.

    Example: `llmops model approve hf:/models/Qwen3-0.6B`, `llmops model approve desk-tuned@3`
    """
    if _is_base(ref):
        entry = wiring().catalog.approve_base(ref, actor())
        out.print(f"{entry.ref}: {entry.state} by {entry.approved_by}")
        return
    _take("approve", ref)
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
    if to not in ("staging", "production"):
        raise ValueError(f"{to!r}: a version is promoted to staging or to production")
    since = now()
    through = _take("stage" if to == "staging" else "promote", ref)
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
    from llmops_assets.registry.transition import parity_key
    from llmops_assets.serving.parity_probe import measure_parity
    from resources.model_server import ServerError

    w = wiring()
    model = w.tracking.model(ref)
    wanted = items or w.policy.registry.parity_items
    try:
        record = measure_parity(model, w.records, w.store, w.servers, items=wanted, engine=engine)
    except ServerError as error:
        fail(str(error), Exit.FAILED)
    w.records.save(parity_key(model), record)
    w.catalog.log(actor(), "model.parity", model.ref, passed=record.passed, items=record.items, engine=engine)
    if json:
        print_json(record.model_dump(mode="json"))
    else:
        out.print(f"{model.ref}: {record.explanation}", markup=False)
        if record.differences:
            columns = ["question", "kind", "evaluated", "served"]
            show("", columns, [[one[name] for name in columns] for one in record.differences])
    if not record.passed:
        raise typer.Exit(int(Exit.WITHHELD))


def archive(ref: AnyRef) -> None:
    """Take a version, or a base model, out of use; it stays on record and can be approved again.

    Example: `llmops model archive desk-tuned@1`
    """
    if _is_base(ref):
        entry = wiring().catalog.archive_base(ref, actor())
        out.print(f"{entry.ref}: {entry.state}")
        return
    _take("archive", ref)
    out.print(f"{ref}: archived")


def history(
    ref: Annotated[str, typer.Argument(metavar="NAME[@VERSION]|hf:PATH")],
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    json: Json = False,
) -> None:
    """Who did what with a model, and when: steps, deployments and downloads, newest first.

    Example: `llmops model history desk-tuned`
    """
    exact = "@" in ref or ref.startswith("hf:")
    lines = wiring().catalog.audit_of(ref, exact=exact, limit=limit)
    if json:
        print_json(lines)
        return
    rows = [[when(x["at"]), x["actor"], x["action"], x["target"], _told(x["detail"])] for x in lines]
    show(f"History of {ref}", ["at", "who", "did", "with", "detail"], rows)


def _told(detail: dict) -> str:
    return ", ".join(f"{key}: {value}" for key, value in detail.items())


def download(
    ref: Ref,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Made by this; must not exist.")],
) -> None:
    """Copy a version's files, with its model card, to a folder; who took which weights goes to the audit log.

    Example: `llmops model download desk-tuned@3 ./desk-tuned-3`
    """
    from llmops_assets.training.folders import SEAL, content_hash

    w = wiring()
    model = w.tracking.model(ref)
    if folder.exists():
        raise ValueError(f"{folder} is there already: name a folder that is not")
    found = content_hash(Path(model.path))
    if found != model.content_hash:
        raise ValueError(
            f"the files in {model.path} are not what was registered as {model.ref} (content {found}, registered "
            f"{model.content_hash}): they are not handed out"
        )
    w.catalog.log(actor(), "model.download", model.ref, content_hash=found, to=str(folder.absolute()))
    temporary = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(model.path, temporary, ignore=shutil.ignore_patterns(SEAL))
    if model.card and Path(model.card).is_file():
        shutil.copy2(model.card, temporary / "README.md")
    temporary.replace(folder)
    out.print(f"{model.ref}: {folder} ({found})")


def add_to(app: typer.Typer) -> None:
    for command in (approve, parity, promote, archive, history, download):
        app.command()(command)
