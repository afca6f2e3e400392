"""Keeps endpoints at the version of the prompt that their spec names."""

import logging
from dataclasses import dataclass

from llmops_assets.serving.together import waits_for_its_run
from resources.catalog import Catalog
from resources.prompts import Prompts, UnknownPrompt
from resources.tracking import Tracking

log = logging.getLogger("serving.prompts")


@dataclass(frozen=True)
class Moved:
    """An endpoint that uses another version of its prompt from now on."""

    endpoint: str
    prompt: str


def refresh(catalog: Catalog, tracking: Tracking, actor: str) -> list[Moved]:
    """Have every endpoint use the version that its spec names now: an alias may have been moved by whomever.

    A prompt that is gone, or that cannot be used, leaves its endpoint at the version that it has.
    """
    wanted = {endpoint.name: endpoint.spec.prompt for endpoint in catalog.endpoints()}
    for endpoint in catalog.prompts.all():
        # One that is not on record yet is being wanted at this moment.
        known = endpoint in wanted and wanted[endpoint] is None
        if known and not waits_for_its_run(catalog.intents.newest("deploy", endpoint)):
            catalog.prompts.remove(endpoint, actor)
    prompts, moved = Prompts(tracking), []
    for endpoint, prompt in wanted.items():
        if prompt is None or waits_for_its_run(catalog.intents.newest("deploy", endpoint)):
            continue
        try:
            found = prompts.resolve(prompt)
        except UnknownPrompt as error:
            log.warning("endpoint %s stays at the prompt that it has: %s", endpoint, error)
            continue
        if catalog.prompts.set(endpoint, found, actor):
            moved.append(Moved(endpoint, found.label))
    return moved
