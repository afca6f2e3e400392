"""What runs may ask of a container engine: the few calls that train in a container, and nothing that gains by it."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qsl, urlencode

from resources.containers import JOB_LABEL

_VERSION = r"(?:/v[0-9]{1,2}\.[0-9]{1,3})?"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}"
_IMAGE = r"(?!.*(?:\.\.|//))[a-z0-9][A-Za-z0-9_./:@-]{0,254}"

Kind = Literal["open", "image", "list", "create", "container"]
"""`container`: of one that is there, which has to be one of ours; `image`: of an image that may be run."""

_CALLS: tuple[tuple[str, str, Kind, frozenset[str]], ...] = (
    ("GET", "/_ping", "open", frozenset()),
    ("HEAD", "/_ping", "open", frozenset()),
    ("GET", "/version", "open", frozenset()),
    ("GET", rf"/images/(?P<image>{_IMAGE})/json", "image", frozenset()),
    ("GET", "/containers/json", "list", frozenset({"limit", "all", "size", "trunc_cmd", "filters"})),
    ("POST", "/containers/create", "create", frozenset()),
    ("GET", rf"/containers/(?P<container>{_NAME})/json", "container", frozenset()),
    ("POST", rf"/containers/(?P<container>{_NAME})/start", "container", frozenset()),
    ("POST", rf"/containers/(?P<container>{_NAME})/wait", "container", frozenset({"condition"})),
    ("POST", rf"/containers/(?P<container>{_NAME})/stop", "container", frozenset({"t"})),
    ("DELETE", rf"/containers/(?P<container>{_NAME})", "container", frozenset({"v", "link", "force"})),
)
_SHARED_MEMORY = 64 * 1024**3
_TOP = frozenset({"Image", "Cmd", "Env", "User", "Labels", "Volumes", "HostConfig"})
_PLAIN = frozenset({"AttachStdout", "AttachStderr"})
"""What Docker's client says of every container, and what gains nothing."""


class NotAllowed(Exception):
    """A call that a run may not make; the message says why."""


@dataclass(frozen=True)
class Rules:
    """What containers may be: of images whose names begin with one of `images`, as `user`, with the mounts `binds`."""

    images: tuple[str, ...]
    user: str
    binds: frozenset[str]


@dataclass(frozen=True)
class Asked:
    """A call that may be made: what it is of, and the path to send to the engine."""

    kind: Kind
    path: str
    query: str
    subject: str | None = None

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


def asked_of(method: str, target: str) -> Asked:
    """The call that a request line is; raises NotAllowed for every other.

    Paths match as they were sent: one with an escape or a second slash is none of these.
    """
    path, _, text = target.partition("?")
    for verb, pattern, kind, known in _CALLS:
        if verb != method or (found := re.fullmatch(_VERSION + pattern, path)) is None:
            continue
        query = parse_qsl(text, keep_blank_values=True)
        if extra := {name for name, _ in query} - known:
            raise NotAllowed(f"{method} {path} with {', '.join(sorted(extra))}")
        if kind == "list":
            query = [*((n, v) for n, v in query if n != "filters"), ("filters", _own(dict(query).get("filters")))]
        subject = next(iter(found.groupdict().values()), None)
        return Asked(kind, path, urlencode(query), subject)
    raise NotAllowed(f"{method} {path[:200]}")


def _own(filters: str | None) -> str:
    """Filters of containers that name ours alone, whatever else was asked for."""
    try:
        found = json.loads(filters or "{}")
        labels = found.get("label", [])
        wanted = [name for name in labels if isinstance(name, str) and name.split("=")[0] == JOB_LABEL]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise NotAllowed(f"filters that cannot be read: {error}") from error
    return json.dumps({"label": wanted or [JOB_LABEL]})


def is_ours(container: Mapping[str, Any]) -> bool:
    """Whether a container, as the engine describes it, was made for one of our jobs."""
    return JOB_LABEL in ((container.get("Config") or {}).get("Labels") or {})


def may_run(image: Mapping[str, Any], rules: Rules) -> bool:
    """Whether an image, as the engine describes it, has a name that containers may be made of."""
    return any(str(tag).startswith(rules.images) for tag in image.get("RepoTags") or ())


def container_of(body: bytes, rules: Rules) -> dict[str, Any]:
    """What to ask the engine to create, of what somebody asked for; raises NotAllowed naming what is too much.

    It is made anew of what was read: engines read names without regard to case, and the last of two of one name, so
    that what was looked at would not be what they see.
    """
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotAllowed(f"a container that cannot be read: {error}") from error
    if not isinstance(asked, dict) or not isinstance(host := asked.get("HostConfig"), dict):
        raise NotAllowed("a container without HostConfig")
    _refuse_others("", asked, _TOP | _PLAIN)
    _refuse_others("HostConfig.", host, _HOST)
    if asked.get("User") != rules.user:
        raise NotAllowed(f"User {asked.get('User')!r}: containers run as {rules.user}")
    for name, right in (("CapDrop", ["ALL"]), ("SecurityOpt", ["no-new-privileges"]), ("NetworkMode", "none")):
        if host.get(name) != right:
            raise NotAllowed(f"HostConfig.{name} {host.get(name)!r}: it is {right!r} for every container")
    binds = host.get("Binds") or []
    if not _texts(binds) or not rules.binds.issuperset(binds):
        raise NotAllowed(f"HostConfig.Binds {str(binds)[:500]}: containers here have {', '.join(sorted(rules.binds))}")
    memory = host.get("ShmSize", 0)
    if not isinstance(memory, int) or not 0 <= memory <= _SHARED_MEMORY:
        raise NotAllowed(f"HostConfig.ShmSize {memory!r}: at most {_SHARED_MEMORY}")
    labels = asked.get("Labels")
    if not isinstance(labels, dict) or JOB_LABEL not in labels:
        raise NotAllowed(f"a container without the label {JOB_LABEL}")
    command, environment = asked.get("Cmd"), asked.get("Env") or []
    if not _texts(command) or not _texts(environment) or not isinstance(asked.get("Image"), str):
        raise NotAllowed("Image is a text, Cmd and Env are lists of texts")
    if re.fullmatch(_IMAGE, asked["Image"]) is None:
        raise NotAllowed(f"Image {asked['Image'][:200]!r}")
    settings = {name: host[name] for name in ("CapDrop", "SecurityOpt", "NetworkMode")}
    settings |= {"Binds": binds, "ShmSize": memory, "DeviceRequests": _gpus(host.get("DeviceRequests") or [])}
    made = {name: asked[name] for name in ("Image", "Cmd", "User", "Labels")}
    return made | {"Env": environment, "HostConfig": settings}


_HOST = frozenset({"CapDrop", "SecurityOpt", "NetworkMode", "Binds", "ShmSize", "DeviceRequests"})


def _refuse_others(where: str, asked: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise NotAllowed for a field that is none of `known` and says something."""
    if more := [
        name for name, value in asked.items() if name not in known and value not in (None, False, 0, "", [], {})
    ]:
        raise NotAllowed(f"{where}{', '.join(sorted(more))[:200]}")


def _gpus(requests: Any) -> list[dict[str, Any]]:
    """Requests for GPUs, and for no other device or option of one."""
    found = []
    for one in requests if isinstance(requests, list) else [requests]:
        if not isinstance(one, dict) or one.get("Capabilities") != [["gpu"]]:
            raise NotAllowed(f"HostConfig.DeviceRequests {str(one)[:200]}: GPUs alone")
        _refuse_others("HostConfig.DeviceRequests.", one, ("Capabilities", "Count", "DeviceIDs"))
        found.append(
            {"Capabilities": [["gpu"]], "Count": one.get("Count") or 0, "DeviceIDs": one.get("DeviceIDs") or []}
        )
    return found


def _texts(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)
