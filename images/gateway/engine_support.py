"""What each engine can be asked. What one cannot do is refused, naming the field, and never set aside in silence."""

from collections.abc import Callable
from typing import Any

from images.gateway.chat_request import KEPT_BACK
from images.gateway.errors import ApiError
from images.gateway.fields import FIELDS
from images.gateway.messages import other_part

TRANSFORMERS = "transformers"


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _empty(value: Any) -> bool:
    return not value


# `transformers serve` decodes greedily, one answer a request, as text: these ask for nothing else. A temperature of 1
# is OpenAI's default, which its clients often write down; a seed changes nothing where nothing is drawn.
_ASKS_NOTHING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (_one_of(0, 1), "it decodes greedily: leave it out, or write 0"),
    "top_p": (_one_of(1), "it decodes greedily: leave it out, or write 1"),
    "n": (_one_of(1), "it gives one answer"),
    "best_of": (_one_of(1), "it gives one answer"),
    "logprobs": (_one_of(False), "it gives none"),
    "top_logprobs": (_one_of(0), "it gives none"),
    "presence_penalty": (_one_of(0), "it decodes greedily"),
    "frequency_penalty": (_one_of(0), "it decodes greedily"),
    "logit_bias": (_empty, "it decodes greedily"),
    "response_format": (lambda value: value.get("type") == "text", "it holds no answer to a format"),
    # It gives calls as text, unless the tokenizer says how to read them: whoever waits for `tool_calls` gets none.
    "tools": (_empty, "it gives no tool calls"),
    "tool_choice": (_one_of("auto", "none"), "it gives no tool calls"),
    "functions": (_empty, "it gives no function calls"),
    "function_call": (_one_of("auto", "none"), "it gives no function calls"),
    "reasoning_effort": (_one_of("none"), "it takes none"),
    "verbosity": (_one_of("medium"), "it takes none"),
    "modalities": (_one_of(["text"]), "it answers text"),
    "audio": (_empty, "it answers text"),
    "prediction": (_empty, "it takes none"),
    "web_search_options": (_empty, "it searches nothing"),
    "echo": (_one_of(False), "it gives the answer alone"),
    "suffix": (_empty, "it takes none"),
    "prompt": (lambda value: isinstance(value, str), "it takes one text"),
}
_ALSO_TAKEN = frozenset({"return_token_ids", "chat_template_kwargs"})
# Parameters of `apply_chat_template` itself: to set them from outside is to change what the server does.
_OF_THE_SERVER = frozenset(
    {
        "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt",
        "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
        "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs", "load_audio_from_video", "num_frames",
    }
)  # fmt: skip


def check_engine(kind: str, body: dict[str, Any], engine: str, *, is_probe: bool = False) -> None:
    """Raise ApiError, naming the field, where the engine would not answer as the request asks.

    `kind` is the operation's. Engines but `transformers` check their own fields. A probe of the platform compares the
    text that a model writes when it is shown tools: it waits for no `tool_calls`.
    """
    if engine != TRANSFORMERS:
        return
    if kind == "embeddings":
        raise ApiError(400, f"this endpoint's engine ({engine}) has no embeddings; vllm does", param="model")
    for name, value in body.items():
        if name in _ASKS_NOTHING:
            is_fine, why = _ASKS_NOTHING[name]
            if not is_fine(value) and not (is_probe and name == "tools"):
                raise ApiError(
                    400,
                    f"this endpoint's engine ({engine}) has no `{name}`, {why}; vllm does more",
                    code="unsupported_parameter",
                    param=name,
                )
        elif name not in FIELDS[kind] and name not in _ALSO_TAKEN and name not in KEPT_BACK:
            raise ApiError(
                400,
                f"this endpoint's engine ({engine}) knows no field `{name}`",
                code="unsupported_parameter",
                param=name,
            )
    if kind == "chat" and (found := other_part(body["messages"])) is not None:
        where, what = found
        raise ApiError(400, f"this endpoint's engine ({engine}) takes text, no {what}: `{where}`", param=where)
    _check_template_arguments(body.get("chat_template_kwargs"))


def supports(kind: str, body: dict[str, Any], engine: str) -> bool:
    """Whether an engine can answer a request as it is."""
    try:
        check_engine(kind, body, engine)
    except ApiError:
        return False
    return True


def _check_template_arguments(given: Any) -> None:
    name = "chat_template_kwargs"
    if given is None:
        return
    if not isinstance(given, dict) or not all(isinstance(v, bool | int | float | str | None) for v in given.values()):
        raise ApiError(400, f"`{name}` should be an object of texts, numbers, true and false", param=name)
    if wrong := sorted(_OF_THE_SERVER & given.keys()):
        raise ApiError(400, f"`{name}.{wrong[0]}` is the server's to set", param=f"{name}.{wrong[0]}")
