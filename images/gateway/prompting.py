"""Fills the variables of a prompt with what a request brings: plain text for plain text, nothing is carried out."""

from typing import Any

from images.gateway.errors import ApiError
from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.specs.prompt import VARIABLE, variables

FIELD = "prompt_variables"
_LONGEST = 100_000


def values_of(body: dict[str, Any], prompt: ResolvedPrompt | None) -> dict[str, str]:
    """The variables that a request brings for the prompt of its endpoint; ApiError 400 naming what is wrong."""
    given = body.get(FIELD)
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise ApiError(400, f"`{FIELD}` should be an object of texts and numbers", param=FIELD)
    if prompt is None:
        if given:
            raise ApiError(400, f"this endpoint has no prompt, so it takes no `{FIELD}`", param=FIELD)
        return {}
    names = variables(prompt.template)
    for name, value in given.items():
        if name not in names:
            known = ", ".join(names) or "none"
            raise ApiError(
                400, f"prompt {prompt.label} has no variable {name!r}; it has: {known}", param=f"{FIELD}.{name}"
            )
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ApiError(400, f"variable {name!r} should be a text or a number", param=f"{FIELD}.{name}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ApiError(400, f"variable {name!r} has more than {_LONGEST} characters", param=f"{FIELD}.{name}")
    if missing := [name for name in names if name not in given]:
        raise ApiError(400, f"prompt {prompt.label} needs the variable {missing[0]!r}", param=f"{FIELD}.{missing[0]}")
    return {name: str(value) for name, value in given.items()}


def filled(text: str, values: dict[str, str]) -> str:
    """A text with each variable's value in its place. What a value holds is never read as a variable."""
    return VARIABLE.sub(lambda match: values[match[1]], text)


def messages_of(prompt: ResolvedPrompt, values: dict[str, str]) -> list[dict[str, str]]:
    """The messages that stand before those of a user; a prompt of one text is a system message."""
    if isinstance(prompt.template, str):
        return [{"role": "system", "content": filled(prompt.template, values)}]
    return [{"role": one["role"], "content": filled(one["content"], values)} for one in prompt.template]
