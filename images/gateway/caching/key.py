"""What makes two requests the same: everything that alters an answer, and whom it is for."""

import hashlib
from typing import Any

import msgspec

from images.gateway.call import Call, EndUser
from llmops_assets.specs.cache import Cache

# Told to OpenAI's service alone: no model reads them.
_SAYS_NOTHING = frozenset(("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"))


def scope_of(call: Call, cache: Cache) -> str:
    """Whose answers a caller may be given: those of the same team or key; without either, of the same user."""
    caller = call.caller
    if cache.scope == "team" and caller.team:
        return f"team:{caller.team}"
    if not caller.is_anonymous:
        return f"caller:{caller.name}"
    user: EndUser | None = call.end_user
    return f"user:{user.user if user else ''}"


def cache_key(call: Call, cache: Cache) -> str:
    """64 hex digits, equal for requests of one scope whose answers may stand for each other."""
    endpoint, route = call.endpoint, call.route
    prompt = endpoint.prompt
    parts: dict[str, Any] = {
        "scope": scope_of(call, cache),
        "operation": call.operation.path,
        "endpoint": endpoint.name,
        "model": route.model_ref,
        "serving": route.serving,
        "prompt": None if prompt is None else [prompt.name, prompt.version, prompt.digest],
        "limits": [endpoint.max_input_tokens, endpoint.max_output_tokens],
        # As the guards let it through, and null fields left out: nothing else of it reaches a model.
        "body": {name: value for name, value in call.body.items() if name not in _SAYS_NOTHING},
    }
    return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()


def is_sampled(body: dict[str, Any], engine: str) -> bool:
    """Whether the answer is one of many that the model might give: asked again, another may come.

    `transformers serve` decodes greedily whatever a request says; elsewhere a temperature that is not given may be
    any. A seed makes it one answer.
    """
    if engine == "transformers":
        return False
    return body.get("temperature") != 0 and body.get("seed") is None
