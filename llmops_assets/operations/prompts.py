"""Prompts with versions: adding one, promoting one, and keeping endpoints at the version that their spec names."""

import re

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.records.prompts import Template
from llmops_assets.serving.prompts import Moved, refresh
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.prompt import fault_of
from llmops_assets.wiring import Wiring
from resources.catalog import Catalog
from resources.prompts import Prompts, PromptVersion, UnknownPrompt
from resources.tracking import Tracking


def add_prompt(wiring: Wiring, actor: str, name: str, template: Template, message: str = "") -> PromptVersion:
    """Put a new version of a prompt into the registry; no endpoint uses it before an alias points to it.

    Raises Refused for a template that cannot be used.
    """
    authorise(wiring, actor, "prompt.add")
    if (fault := fault_of(template)) is not None:
        raise Refused(f"the template of prompt {name!r} cannot be used: {fault}")
    added = Prompts(wiring.tracking).add(name, template, author=str(actor), message=message)
    wiring.catalog.log(actor, "prompt.add", f"{name}@{added.version}", message=message)
    return added


def promote_prompt(wiring: Wiring, actor: str, name: str, version: int, alias: str) -> list[Moved]:
    """Point an alias at a version; the endpoints that name the alias use it from then on.

    Raises UnknownPrompt where there is no such version, Refused for an alias that means a version by itself.
    """
    authorise(wiring, actor, "prompt.promote")
    if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
        raise Refused(f"alias {alias!r} is one that the registry keeps for itself: name another, such as production")
    prompts = Prompts(wiring.tracking)
    known = {one.version: one for one in prompts.versions(name)}
    if version not in known:
        raise UnknownPrompt(f"prompt {name!r} has no version {version}; it has {', '.join(map(str, sorted(known)))}")
    before = prompts.aliases(name).get(alias)
    if before != version:
        prompts.set_alias(name, alias, version)
        wiring.catalog.log(actor, "prompt.promote", f"{name}@{version}", alias=alias, before=before)
    return follow_aliases(wiring.catalog, wiring.tracking, actor)


def follow_aliases(catalog: Catalog, tracking: Tracking, actor: str) -> list[Moved]:
    """Have endpoints follow the aliases that their specs name, which anybody may have moved in the registry."""
    return refresh(catalog, tracking, actor)


def list_prompts(wiring: Wiring) -> list[tuple[str, dict[str, int]]]:
    """Names of all prompts with their aliases."""
    return Prompts(wiring.tracking).names()


def prompt_versions(wiring: Wiring, name: str) -> list[PromptVersion]:
    """The versions of a prompt, newest first. UnknownPrompt where there is none."""
    return Prompts(wiring.tracking).versions(name)


def resolve_for(wiring: Wiring, actor: str, spec: DeploymentSpec) -> None:
    """Note the version that an endpoint uses, before anybody is sent to it; Refused where there is none."""
    if spec.prompt is None:
        wiring.catalog.prompts.remove(spec.endpoint, actor)
        return
    try:
        found = Prompts(wiring.tracking).resolve(spec.prompt)
    except UnknownPrompt as error:
        raise Refused(f"prompt: {error}") from error
    wiring.catalog.prompts.set(spec.endpoint, found, actor)
