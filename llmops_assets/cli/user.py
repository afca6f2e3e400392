"""`llmops user …`: users of the console."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmops_assets.cli.common import Json, actor, fail, now, out, print_json, say, show, when, wiring

if TYPE_CHECKING:
    from resources.catalog import User

app = typer.Typer(
    help="Users of the console: create, list, give roles and passwords, disable.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(help="The user's name, as the audit log has it.")]
Roles = Annotated[list[str], typer.Option("--role", help="A role of the policy (access.roles), again for more.")]
PasswordFile = Annotated[
    Path | None,
    typer.Option(help="File that holds the password, `-` for stdin. Without it, it is asked for on the terminal."),
]


@app.command()
def create(name: Name, role: Roles = ["viewer"], password_file: PasswordFile = None) -> None:  # noqa: B006
    """Make a user with a password. With the first one, the console asks everybody for a login.

    Example: `llmops user create kim --role data-scientist`
    """
    from llmops_assets.operations.users import create_user

    is_first = not wiring().catalog.users.any()
    user = create_user(wiring(), actor(), name, role, _password(password_file))
    out.print(f"{user.name}: {', '.join(user.roles)}", markup=False)
    if is_first:
        say("the console asks for a login from now on, on loopback too")


@app.command("list")
def list_(json: Json = False) -> None:
    """List users: their roles, and where they log in.

    Example: `llmops user list`
    """
    from llmops_assets.operations.users import list_users

    found = list_users(wiring(), actor())
    if json:
        print_json([_plain(user) for user in found])
        return
    show(
        "",
        ["user", "state", "roles", "logs in at", "created", "by"],
        [[u.name, _state(u), ", ".join(u.roles), u.issuer or "here", when(u.created_at), u.created_by] for u in found],
    )


@app.command()
def role(name: Name, role: Roles) -> None:
    """Give a user these roles and no others, from the next request on.

    Example: `llmops user role kim --role data-scientist --role approver`
    """
    from llmops_assets.operations.users import set_roles

    changed = set_roles(wiring(), actor(), name, role)
    out.print(f"{name}: {', '.join(role)}{'' if changed else ' (as before)'}", markup=False)


@app.command()
def password(name: Name, password_file: PasswordFile = None) -> None:
    """Give a user another password; their sessions end.

    Example: `llmops user password kim`
    """
    from llmops_assets.operations.users import set_password

    set_password(wiring(), actor(), name, _password(password_file))
    out.print(f"{name}: another password; all sessions ended", markup=False)


@app.command()
def disable(name: Name) -> None:
    """Let a user in no more: sessions end, and API keys of the name are revoked.

    Example: `llmops user disable kim`
    """
    from llmops_assets.operations.users import disable_user

    out.print(f"{name}: disabled{'' if disable_user(wiring(), actor(), name) else ' before'}", markup=False)


@app.command()
def enable(name: Name) -> None:
    """Let a user in again; keys that were revoked stay so.

    Example: `llmops user enable kim`
    """
    from llmops_assets.operations.users import enable_user

    out.print(f"{name}: {'enabled' if enable_user(wiring(), actor(), name) else 'was not disabled'}", markup=False)


def _password(file: Path | None) -> str:
    """The new password: never from the command line, which every user of the machine can read."""
    if file is None:
        if not sys.stdin.isatty():
            fail("there is no terminal to ask for a password on: name a file (--password-file, - for stdin)")
        return str(typer.prompt("password", hide_input=True, confirmation_prompt=True, err=True))
    text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    return text.removesuffix("\n").removesuffix("\r")


def _state(user: "User") -> str:
    if user.disabled_at is not None:
        return "disabled"
    return "waits" if user.waits_until is not None and user.waits_until > now() else "enabled"


def _plain(user: "User") -> dict[str, Any]:
    return {
        "name": user.name,
        "state": _state(user),
        "roles": list(user.roles),
        "issuer": user.issuer,
        "created_at": user.created_at,
        "created_by": user.created_by,
    }
