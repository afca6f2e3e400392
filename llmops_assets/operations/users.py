"""Users: made, listed, given roles and passwords, let in no more."""

import re
from collections.abc import Sequence

from llmops_assets.operations import passwords
from llmops_assets.operations.access import authorise, refuse_beyond
from llmops_assets.operations.errors import Refused
from llmops_assets.wiring import Wiring
from resources.catalog import User

_NAME = re.compile(r"\w[\w.@+-]{0,99}")


def create_user(wiring: Wiring, actor: str, name: str, roles: Sequence[str], password: str) -> User:
    """Make a user with a password of ours.

    Raises Refused for a name that the audit log could not tell from others, an unknown role, or a weak password;
    Forbidden for roles that may do what the actor may not; Conflict for a name that is taken.
    """
    authorise(wiring, actor, "user.create")
    if (fault := fault_of_name(name)) is not None:
        raise Refused(fault)
    _check_roles(wiring, actor, roles)
    kept = _hashed(wiring, name, password)
    return wiring.catalog.users.create(actor, name, tuple(sorted(set(roles))), kept)


def list_users(wiring: Wiring, actor: str) -> list[User]:
    """All users by name."""
    authorise(wiring, actor, "user.list")
    return wiring.catalog.users.all()


def set_roles(wiring: Wiring, actor: str, name: str, roles: Sequence[str]) -> bool:
    """Give a user these roles and no others, from the next request on; False where they have them already.

    Roles that a provider names at a login come beside them. Raises NotFound, Refused or Forbidden as `create_user`.
    """
    authorise(wiring, actor, "user.role")
    refuse_beyond(wiring, actor, wiring.catalog.users.get(name).roles, f"change the roles of {name}")
    _check_roles(wiring, actor, roles, may_be_none=True)
    return wiring.catalog.users.set_roles(actor, name, tuple(sorted(set(roles))))


def set_password(wiring: Wiring, actor: str, name: str, password: str) -> None:
    """Give a user another password; their sessions end. Raises NotFound, Refused or Forbidden."""
    authorise(wiring, actor, "user.password")
    user = wiring.catalog.users.get(name)
    refuse_beyond(wiring, actor, user.roles, f"change the password of {name}")
    if user.issuer is not None:
        raise Refused(f"{name!r} logs in at {user.issuer}, where the password is")
    wiring.catalog.users.set_password(actor, name, _hashed(wiring, name, password))


def disable_user(wiring: Wiring, actor: str, name: str) -> bool:
    """Let a user in no more; False where that is so. Their sessions end and their API keys are revoked. NotFound."""
    authorise(wiring, actor, "user.disable")
    refuse_beyond(wiring, actor, wiring.catalog.users.get(name).roles, f"disable {name}")
    return wiring.catalog.users.set_disabled(actor, name, True)


def enable_user(wiring: Wiring, actor: str, name: str) -> bool:
    """Let a user in again; False where that is so. Keys that were revoked stay so. NotFound."""
    authorise(wiring, actor, "user.enable")
    refuse_beyond(wiring, actor, wiring.catalog.users.get(name).roles, f"enable {name}")
    return wiring.catalog.users.set_disabled(actor, name, False)


def fault_of_name(name: str) -> str | None:
    """Why a text is no name of a user; None where it is one."""
    import unicodedata

    if not _NAME.fullmatch(name) or unicodedata.normalize("NFKC", name) != name:
        return f"{name!r} is no name of a user: up to 100 letters and digits, with . _ @ + - between them"
    return None


def _check_roles(wiring: Wiring, actor: str, roles: Sequence[str], *, may_be_none: bool = False) -> None:
    table = wiring.policy.access.roles
    if unknown := [role for role in roles if role not in table]:
        raise Refused(f"there is no role {', '.join(map(repr, unknown))} in the policy; there are {', '.join(table)}")
    if not roles and not may_be_none:
        raise Refused(f"a user needs a role; there are {', '.join(table)}")
    refuse_beyond(wiring, actor, roles, f"give {', '.join(roles)}")


def _hashed(wiring: Wiring, name: str, password: str) -> str:
    fault = passwords.fault_of(password, name, wiring.policy.access.sessions.password_length)
    if fault is not None:
        raise Refused(fault)
    return passwords.hash_of(password)
