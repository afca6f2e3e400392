"""Puts the prompt version that the endpoint names before what the user wrote."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.prompting import FIELD, filled, messages_of, values_of


class Prompt(Layer):
    """Changes `call.payload`, and notes the version for the exposure. The platform's own probes pass without: they
    compare a model's answers with those of its evaluation.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        prompt = call.endpoint.prompt
        if (prompt is None and FIELD not in call.body) or call.is_probe:
            return proceed(call)
        values = values_of(call.body, prompt)
        payload = dict(call.payload)
        if prompt is not None and call.operation.kind == "chat":
            payload["messages"] = [*messages_of(prompt, values), *payload["messages"]]
        elif prompt is not None and call.operation.kind == "completions":
            payload["prompt"] = _completed(call, values)
        if prompt is not None and call.exposure is not None and call.operation.is_logged:
            call.exposure.prompt_version = prompt.label
        call.payload = payload
        return proceed(call)


def _completed(call: Call, values: dict[str, str]) -> str | list[str]:
    """A text prompt before the text that is to be continued."""
    prompt, given = call.endpoint.prompt, call.payload["prompt"]
    if not isinstance(prompt.template, str):
        raise ApiError(400, f"prompt {prompt.label} is of messages: ask /v1/chat/completions", param="prompt")
    texts = [given] if isinstance(given, str) else given
    if not all(isinstance(text, str) for text in texts):
        raise ApiError(400, "`prompt` should be text: this endpoint puts its own before it", param="prompt")
    done = [f"{filled(prompt.template, values)}\n{text}" for text in texts]
    return done[0] if isinstance(given, str) else done
