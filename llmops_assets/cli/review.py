"""`llmops review …`: look at answers that users complained of, decide on them, and make data of them."""

from typing import Annotated, Any

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, show, wiring

app = typer.Typer(help="Review answers, and make data of what was reviewed.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="REQUEST", help="The x-request-id of the answer.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the other reviewers.")]


@app.command("list")
def list_(
    endpoint: Annotated[str | None, typer.Option(help="Of one endpoint only.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also what was decided.")] = False,
    json: Json = False,
) -> None:
    """List answers that wait for a review: thumbs-down, corrections, and a sample.

    Example: `llmops review list --endpoint desk`
    """
    from llmops_assets.operations.reviews import read_queue

    found = read_queue(wiring(), actor(), endpoint)
    items = [i for i in found.items if all_ or i.decision.state in ("open", "waiting", "disputed")]
    if json:
        print_json({"items": [_facts(i) for i in items], "kappa": found.kappa, "bursts": list(found.bursts)})
        return
    columns = ["request", "at", "endpoint", "rating", "state", "question"]
    rows = [
        (i.request_id, f"{i.answer['at']:%Y-%m-%d %H:%M}", i.answer["endpoint"], i.answer.get("rating") or "-",
         i.decision.state, i.answer["query"][:60])
        for i in items
    ]  # fmt: skip
    show("answers to review", columns, rows)
    if found.kappa is not None:
        out.print(f"agreement of two reviewers (Cohen's κ): {found.kappa:.2f}")
    for brigade in found.brigades:
        out.print(
            f"{len(brigade.users)} users rated {brigade.rating} within ten minutes of {brigade.since:%Y-%m-%d %H:%M} "
            f"({brigade.expected:.1f} expected): two reviewers have to agree on what they said"
        )
    if found.bursts:
        out.print(f"users with a burst of equal ratings, look twice: {', '.join(found.bursts)}")


@app.command("show")
def show_(request: Id, json: Json = False) -> None:
    """Show an answer with what its user and its reviewers say.

    Example: `llmops review show req-0123456789abcdef0123456789abcdef`
    """
    from llmops_assets.operations.reviews import read_item

    facts = _facts(read_item(wiring(), actor(), request))
    if json:
        print_json(facts)
        return
    reviews = facts.pop("reviews")
    rows = [(name, value) for name, value in facts.items() if value is not None]
    rows += [(f"review by {r['reviewer']}", f"{r['verdict']} {r['text'] or ''}".strip()) for r in reviews]
    show(request, ["", ""], rows)


@app.command()
def accept(request: Id, reason: Reason = None) -> None:
    """The user's correction is right, or, where there is none, the answer itself.

    Example: `llmops review accept req-0123456789abcdef0123456789abcdef`
    """
    _decide(request, "accept", None, reason)


@app.command()
def fix(
    request: Id, answer: Annotated[str, typer.Option(help="What would have been right.")], reason: Reason = None
) -> None:
    """Neither the answer nor a correction is right: write what is.

    Example: `llmops review fix req-0123456789abcdef0123456789abcdef --answer "오전 9시에 엽니다."`
    """
    _decide(request, "fix", answer, reason)


@app.command()
def reject(request: Id, reason: Reason = None) -> None:
    """Nothing of it shall be learned from.

    Example: `llmops review reject req-0123456789abcdef0123456789abcdef --reason "spam"`
    """
    _decide(request, "reject", None, reason)


@app.command()
def export(
    endpoint: Annotated[str, typer.Option(help="Whose answers.")],
    dataset: Annotated[str, typer.Option(metavar="NAME@VERSION", help="The version to be registered.")],
    kind: Annotated[str, typer.Option("--type", help="sft_pair, rlhf_pair or eval_suite.")] = "sft_pair",
    owner: Annotated[str, typer.Option(help="The team that answers for the data.")] = "team:review",
    json: Json = False,
) -> None:
    """Register what was reviewed as a dataset version like any other; confirmed failures as a suite of the endpoint.

    Example: `llmops review export --endpoint desk --dataset desk-feedback@v1`
    """
    from typing import get_args

    from llmops_assets.operations.reviews import feedback_dataset
    from llmops_assets.specs.names import split_versioned
    from llmops_assets.traffic.feedback import Kind

    if kind not in get_args(Kind):
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(get_args(Kind))}", param_hint="--type")
    name, version = split_versioned(dataset)
    done = feedback_dataset(
        wiring(), actor(), endpoint=endpoint, name=name, version=version, kind=kind, owner=owner
    )  # fmt: skip
    if json:
        facts = {"dataset": done.registered.key, "rows": done.rows, "left_out": done.left_out}
        print_json({**facts, "bursts": list(done.bursts)})
        return
    out.print(f"registered {done.registered.key}: {done.rows} rows")
    for reason, count in done.left_out.items():
        out.print(f"{count:6} answers left out: {reason}")
    if done.bursts:
        out.print(f"users with a burst of equal ratings, look twice: {', '.join(done.bursts)}")


def _decide(request: str, verdict: str, text: str | None, reason: str | None) -> None:
    from llmops_assets.operations.reviews import review

    item = review(wiring(), actor(), request, verdict, text=text, reason=reason)
    out.print(f"{request}: {item.decision.state}")


def _facts(item: Any) -> dict[str, Any]:
    answer = item.answer
    names = (
        "at", "endpoint", "model_ref", "user", "query", "response", "finish_reason", "rating", "comment", "correction",
    )  # fmt: skip
    return {
        "request_id": item.request_id,
        **{name: answer.get(name) for name in names},
        "before": item.before,
        "state": item.decision.state,
        "right": item.decision.text,
        "reviews": [vars(review) for review in item.reviews],
    }
