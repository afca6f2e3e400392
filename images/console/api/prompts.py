"""Routes of prompts: versions, and which of them an alias points to."""

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from images.console.bodies import Body, Name
from images.console.pages import Cursor, Limit, page, tagged
from images.console.problems import Problem
from images.console.state import Asking, Here
from llmops_assets.operations import prompts

router = APIRouter(prefix="/prompts", tags=["prompts"])


class PromptMessage(Body):
    """One message of a template."""

    role: str = Field(max_length=40)
    content: str = Field(max_length=200_000)


class PromptBody(Body):
    """A new version of a prompt; its variables are written {{name}}."""

    name: Name
    template: str | list[PromptMessage] = Field(max_length=200_000)
    message: str = Field(default="", max_length=2000, description="What is new in this version.")


class AliasBody(Body):
    """Which version an alias points to."""

    version: int = Field(ge=1, le=2**31 - 1)
    alias: Name


def plain(version: Any) -> dict[str, Any]:
    """A version as JSON."""
    return {
        "id": f"{version.name}@{version.version}",
        "name": version.name,
        "version": version.version,
        "template": version.template,
        "aliases": list(version.aliases),
        "author": version.author,
        "message": version.message,
        "created_at": version.created_at,
    }


@router.post("", status_code=201)
def add(body: PromptBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Put a new version into the registry; no endpoint uses it before an alias points to it."""
    template = body.template if isinstance(body.template, str) else [one.model_dump() for one in body.template]
    return plain(prompts.add_prompt(here.wiring, asking.name, body.name, template, body.message))


@router.get("")
def list_(here: Here, asking: Asking, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Prompts with their aliases."""
    found = page(prompts.list_prompts(here.wiring), limit, cursor, lambda one: one[0])
    return {**found, "items": [{"name": name, "aliases": aliases} for name, aliases in found["items"]]}


@router.get("/{name}")
def show(name: str, request: Request, here: Here, asking: Asking) -> Response:
    """The versions of a prompt, newest first."""
    found = prompts.prompt_versions(here.wiring, name)
    if not found:
        raise Problem(404, f"there is no prompt {name!r}")
    return tagged(request, {"name": name, "versions": [plain(one) for one in found]})


@router.post("/{name}/promote")
def promote(name: str, body: AliasBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Point an alias at a version; the endpoints that name the alias use it from then on."""
    moved = prompts.promote_prompt(here.wiring, asking.name, name, body.version, body.alias)
    return {
        "name": name,
        "version": body.version,
        "alias": body.alias,
        "endpoints": [str(one.endpoint) for one in moved],
    }
