"""The fields of OpenAI's API: which operation has which, and what each takes."""

import math
from collections.abc import Callable
from typing import Any

from images.gateway.errors import ApiError

Check = tuple[Callable[[Any], bool], str]
"""Whether a value is right, and in words what is."""

_MOST_STOPS = 64
_LONGEST_STOP = 1000


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_a(*kinds: type) -> Callable[[Any], bool]:
    """Whether a value is of one of these types."""
    return lambda value: isinstance(value, kinds)


def objects(value: Any) -> bool:
    """Whether a value is a list of objects."""
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _stops(value: Any) -> bool:
    texts = [value] if isinstance(value, str) else value
    return _texts(texts) and len(texts) <= _MOST_STOPS and all(len(text) <= _LONGEST_STOP for text in texts)


def _tokens(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, int) and v is not True for v in value)


def _prompt(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value)
    is_list = isinstance(value, list) and bool(value)
    return is_list and (_tokens(value) or (_texts(value) and all(value)) or all(_tokens(entry) for entry in value))


def _biases(value: Any) -> bool:
    return isinstance(value, dict) and all(_number(-100, 100)(bias) for bias in value.values())


def _options(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(flag, bool) for flag in value.values() if flag is not None)


def _tools(value: Any) -> bool:
    return objects(value) and all(isinstance(tool.get("type"), str) for tool in value)


def _format(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("type"), str)


_BOOL: Check = (is_a(bool), "true or false")
_TEXT: Check = (is_a(str), "a text")
_OBJECT: Check = (is_a(dict), "an object")

# Ranges only where every engine agrees; the engine knows its own, and fields that OpenAI has not are the engine's.
_GENERATION: dict[str, Check] = {
    "temperature": (_number(0), "a number from 0 up"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "frequency_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "presence_penalty": (_number(-2, 2), "a number from -2 to 2"),
    "max_tokens": (_whole(1), "a whole number above 0"),
    "n": (_whole(1, 128), "a whole number above 0, up to 128"),
    "seed": (_whole(), "a whole number"),
    "stream": _BOOL,
    "stop": (_stops, f"a text or a list of texts, up to {_MOST_STOPS} of up to {_LONGEST_STOP} characters"),
    "stream_options": (_options, "an object of options that are true or false"),
    "logit_bias": (_biases, "an object of numbers from -100 to 100"),
}

_EVERYWHERE: dict[str, Check] = {
    "model": _TEXT,
    "user": (lambda value: isinstance(value, str) and len(value) <= 200, "a text of at most 200 characters"),
    "metadata": _OBJECT,
    "service_tier": _TEXT,
    "safety_identifier": _TEXT,
    "prompt_cache_key": _TEXT,
    "prompt_cache_retention": _TEXT,
}

FIELDS: dict[str, dict[str, Check]] = {
    "chat": {
        **_EVERYWHERE,
        **_GENERATION,
        "messages": (is_a(list), "a list of at least one message"),
        "store": _BOOL,
        "max_completion_tokens": (_whole(1), "a whole number above 0"),
        "top_logprobs": (_whole(0), "a whole number from 0 up"),
        "logprobs": _BOOL,
        "parallel_tool_calls": _BOOL,
        "response_format": (_format, "an object with a type"),
        "tools": (_tools, "a list of objects with a type"),
        "tool_choice": (is_a(str, dict), "a text or an object"),
        "functions": (objects, "a list of objects"),
        "function_call": (is_a(str, dict), "a text or an object"),
        "reasoning_effort": _TEXT,
        "verbosity": _TEXT,
        "modalities": (_texts, "a list of texts"),
        "audio": _OBJECT,
        "prediction": _OBJECT,
        "web_search_options": _OBJECT,
    },
    "completions": {
        **_EVERYWHERE,
        **_GENERATION,
        "prompt": (_prompt, "a text, a list of texts or of tokens, and not empty"),
        "suffix": _TEXT,
        "echo": _BOOL,
        "best_of": (_whole(1, 128), "a whole number above 0, up to 128"),
        "logprobs": (_whole(0), "a whole number from 0 up"),
    },
    "embeddings": {
        **_EVERYWHERE,
        "input": (_prompt, "a text, a list of texts or of tokens, and not empty"),
        "dimensions": (_whole(1), "a whole number above 0"),
        "encoding_format": (lambda value: value in ("float", "base64"), "float or base64"),
    },
}


def check_fields(body: dict[str, Any], kind: str = "chat") -> None:
    """Raise ApiError, naming the field, where one of OpenAI's fields has another type than OpenAI's API takes."""
    fields = FIELDS[kind]
    for name, value in body.items():
        check = fields.get(name)
        if check is not None and not check[0](value):
            raise ApiError(400, f"`{name}` should be {check[1]}", param=name)
    if "stream_options" in body and not body.get("stream"):
        raise ApiError(400, "`stream_options` is for streams: it needs `stream: true`", param="stream_options")
    if body.get("best_of", 128) < body.get("n", 1):
        raise ApiError(400, "`best_of` should be at least `n`", param="best_of")
