"""MLflow's prompt registry as the platform uses it: versions of templates, and aliases that point to one."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from llmops_assets.records.prompts import ResolvedPrompt, Template
from llmops_assets.specs.prompt import Prompt, fault_of
from resources.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.entities.model_registry import PromptVersion as MlflowVersion


class UnknownPrompt(LookupError):
    """No such prompt, version or alias in the registry, or one that cannot be used; the message says which."""


@dataclass(frozen=True)
class PromptVersion:
    """A version of a prompt; `created_at` is in UTC."""

    name: str
    version: int
    template: Template
    aliases: tuple[str, ...]
    created_at: datetime
    author: str
    message: str


class Prompts:
    """The prompts in the registry of one MLflow store."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def add(self, name: str, template: Template, *, author: str, message: str = "") -> PromptVersion:
        """A new version of a prompt, which may be its first."""
        found = self._tracking.with_client(
            lambda client: client.register_prompt(
                name=name, template=template, commit_message=message or None, tags={"author": author}
            )
        )
        return _version(found, {})

    def resolve(self, wanted: Prompt) -> ResolvedPrompt:
        """The version that is named, with its text. UnknownPrompt where there is none that can be used."""
        found = self._load(f"prompts:/{wanted.name}{'@' if wanted.alias else '/'}{wanted.alias or wanted.version}")
        if found is None:
            raise UnknownPrompt(f"there is no prompt {wanted.ref!r}: `llmops prompt list` shows what there is")
        if (fault := fault_of(found.template)) is not None:
            raise UnknownPrompt(f"prompt {wanted.ref!r} cannot be used: {fault}")
        return ResolvedPrompt(wanted.name, found.version, found.template, wanted.alias)

    def _load(self, uri: str) -> "MlflowVersion | None":
        """A version as the registry has it now, or None."""
        return self._tracking.with_client(
            lambda client: client.load_prompt(uri, allow_missing=True, cache_ttl_seconds=0)
        )

    def names(self) -> list[tuple[str, dict[str, int]]]:
        """Names of all prompts, in order, with their aliases."""
        found: list[Any] = []
        token = None
        while True:
            page = self._tracking.with_client(
                lambda client, token=token: client.search_prompts(max_results=100, page_token=token)
            )
            found.extend(page)
            if not (token := page.token):
                return [(name, self.aliases(name)) for name in sorted(prompt.name for prompt in found)]

    def aliases(self, name: str) -> dict[str, int]:
        """The aliases of a prompt, and the version that each points to."""
        model = self._tracking.with_client(lambda client: client._get_registry_client().get_registered_model(name))
        return {alias: int(version) for alias, version in sorted(model.aliases.items())}

    def versions(self, name: str) -> list[PromptVersion]:
        """The versions of a prompt, newest first. UnknownPrompt where there is none."""
        known = dict(self.names())
        if name not in known:
            raise UnknownPrompt(f"there is no prompt {name!r}; known are: {', '.join(known) or 'none yet'}")
        found: list[PromptVersion] = []
        number, misses = 1, 0
        # Versions are numbered from 1; one that was deleted leaves a gap.
        while misses < 20:
            version = self._load(f"prompts:/{name}/{number}")
            misses = misses + 1 if version is None else 0
            if version is not None:
                found.append(_version(version, known[name]))
            number += 1
        return found[::-1]

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version; it leaves the one that had it."""
        self._tracking.with_client(lambda client: client.set_prompt_alias(name, alias, version))


def _version(found: "MlflowVersion", aliases: Mapping[str, int]) -> PromptVersion:
    at = datetime.fromtimestamp((found.creation_timestamp or 0) / 1000, UTC)
    version = found.version
    pointing = tuple(alias for alias, of in aliases.items() if of == version)
    tags = dict(found.tags or {})
    author = tags.get("author", "")
    return PromptVersion(found.name, version, found.template, pointing, at, author, found.commit_message or "")
