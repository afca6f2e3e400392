"""`llmops key …`: API keys of the gateway; `llmops keys …` is encryption at rest."""

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_assets.cli.common import Json, actor, fail, hand_out, now, out, print_json, say, show, when, wiring

if TYPE_CHECKING:
    from resources.catalog import ApiKey

app = typer.Typer(
    help="API keys of the gateway: create, list, revoke. (Keys that seal files at rest: `llmops keys`.)",
    no_args_is_help=True,
)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


@app.command()
def create(
    owner: Annotated[str, typer.Argument(help="Who answers for what is done with it: a person or a program.")],
    role: Annotated[str, typer.Option(help="A role of the policy (access.roles).")] = "viewer",
    team: Annotated[str | None, typer.Option(help="Whose usage it is.")] = None,
    endpoint: Annotated[
        list[str] | None, typer.Option(help="An endpoint that it is for, again for more; all without it.")
    ] = None,
    rate: Annotated[int | None, typer.Option(help="Requests a minute, instead of the policy's.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Tokens a calendar month (UTC); without it, any.")] = None,
    expires: Annotated[str | None, typer.Option(help="12h, 90d or 52w from now; without it, never.")] = None,
    note: Annotated[str, typer.Option(help="What it is for.")] = "",
    file: Annotated[Path | None, typer.Option("--out", help="Write it here, readable by you alone.")] = None,
    json: Json = False,
) -> None:
    """Make a key. It is shown once: only a hash of it is kept.

    Example: `llmops key create lee --team support --endpoint desk --tokens 5000000 --expires 90d`
    """
    from llmops_assets.operations.api_keys import KeyWish, create_key

    if json and file is not None:
        fail("--json prints the key and --out writes it: choose one")
    wish = KeyWish(
        owner=owner,
        role=role,
        team=team,
        endpoints=tuple(endpoint) if endpoint else None,
        requests_per_minute=rate,
        monthly_tokens=tokens,
        valid_for=None if expires is None else _duration(expires),
        note=note,
    )
    key, secret = create_key(wiring(), actor(), wish)
    if json:
        print_json({**_plain(key), "key": secret})
        return
    say(f"key {key.id} of {key.owner}: keep it, it cannot be shown again")
    hand_out(secret, file, None)


@app.command("list")
def list_(json: Json = False) -> None:
    """List keys, newest first: whose each is, what it may do, and when it was last used.

    Example: `llmops key list`
    """
    from llmops_assets.operations.api_keys import list_keys

    found = list_keys(wiring(), actor())
    if json:
        print_json([_plain(key) for key in found])
        return
    show(
        "",
        ["key", "state", "owner", "team", "role", "endpoints", "a minute", "tokens a month", "expires", "last used"],
        [
            [
                key.shown,
                key.state(now()),
                key.owner,
                key.team,
                key.role,
                "all" if key.endpoints is None else ", ".join(key.endpoints),
                key.requests_per_minute,
                key.monthly_tokens,
                when(key.expires_at),
                when(key.last_used_at),
            ]
            for key in found
        ],
    )


@app.command()
def revoke(key: Annotated[str, typer.Argument(help="Its id, or as much of it as `list` shows.")]) -> None:
    """End a key for good: a running gateway refuses it within two seconds.

    Example: `llmops key revoke llmops-1f0c9a7be2d4`
    """
    from llmops_assets.operations.api_keys import revoke_key

    found, is_changed = revoke_key(wiring(), actor(), key)
    out.print(f"{'revoked' if is_changed else 'revoked before'}: {found.id}, of {found.owner}", markup=False)


def _plain(key: "ApiKey") -> dict[str, Any]:
    hidden = ("sha256", "revision")
    return {"state": key.state(now()), **{name: value for name, value in vars(key).items() if name not in hidden}}


def _duration(text: str) -> timedelta:
    found = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if found is None:
        fail(f"--expires {text!r} should be a number of hours, days or weeks from now: 12h, 90d, 52w")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})
