"""Single messages in the spellings that users bring, with everything that is said of them, as canonical messages."""

import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading import weights
from llmops_assets.datasets.reading.blocks import blocks_of, has_calls, turns_of_blocks
from llmops_assets.datasets.reading.calls import call_text, calls_of
from llmops_assets.datasets.reading.items import Item, items_of
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.raw import RowFault, decode
from llmops_assets.datasets.reading.values import REASONING, is_switch, kind_of, refuse_media, text_of
from llmops_assets.datasets.schema import ROLES

ROLE_NAMES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    **dict.fromkeys(("model", "bot", "chatbot", "chatgpt", "ai", "bing", "bard"), "assistant"),
    "function_call": "assistant",
    "tool_call": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "tool_result": "tool",
    "toolresult": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
CALLING = ("function_call", "tool_call")
"""Roles whose text is a call as JSON."""

_ROLE_KEYS = ("role", "from", "speaker", "author")
_TEXT_KEYS = ("content", "value", "text")
_OTHER_TEXT_KEYS = ("parts", "blocks", "message")
"""Where the text is when it is in none of the usual keys (Gemini, LlamaIndex, Cohere)."""
_UNHEEDED = {
    "label": "a label of a single turn",
    "score": "a score of a single turn",
    "rating": "a rating of a single turn",
    "reward": "a reward of a single turn",
    "stars": "a rating of a single turn",
    "feedback": "feedback on a single turn",
    "thumbs_up": "feedback on a single turn",
    "is_good": "a judgement of a single turn",
    "is_correct": "a judgement of a single turn",
    "prefix": "an answer that is only begun",
    "partial": "an answer that is only begun",
    "train_detail": "loss on a part of a turn",
    "tools": "a list of tools inside a message",
    "functions": "a list of tools inside a message",
}
"""What would change what is learned, and of which a turn has no place."""

_BEGUN = ("prefix", "partial")
"""Of these false is what every answer is."""

_NOT_LEARNED = ("skip", "ignore", "ignored", "exclude", "excluded", "deleted", "is_deleted", "hidden", "removed")
"""What says of a turn that it is not to be used, and not whether the model sees it: true is refused."""

_BETWEEN = re.compile(r"[\s-]+")
_MASKED = re.compile(r"^mask(ed)?[-_ ]|[-_ ]mask(ed)?$")
_THOUGHT = re.compile(r"^\s*<think>(.*?)</think>\s*", re.DOTALL)


def list_of(value: Any, path: str) -> list[Any]:
    """A list of messages, or one that stands in a cell of a table as JSON. RowFault says what else there is."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        if (fault := (found := decode(1, value.strip().encode())).fault) is None and isinstance(found.value, list):
            return found.value
        reason = fault.reason if fault is not None else "no list"
        raise RowFault(path, f"expected a list of messages as JSON, got text that is none: {reason}")
    if isinstance(value, dict):
        value = _rows_of_columns(value)
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of messages, got {kind_of(value)}")
    return value


def _rows_of_columns(value: dict[str, Any]) -> Any:
    """Messages of one object that has a list for each of their keys, as `datasets` stores a sequence of objects; other
    objects as they are."""
    columns = list(value.values())
    if len(columns) < 2 or not all(isinstance(column, list) for column in columns):
        return value
    if len({len(column) for column in columns}) != 1 or not {*_ROLE_KEYS} & value.keys():
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]


def messages_of(value: Any, path: str) -> list[Message]:
    """Messages in either spelling: role and content, or from and value. RowFault names what is none."""
    value = list_of(value, path)
    found = [turn for item in items_of(value, path) for turn in turns_of(item, f"{path}[{item.index}]")]
    check_answers(found)
    return in_order_of_calls(found)


def turns_of(item: Item, path: str) -> list[Message]:
    """The messages that one object holds: itself, or a turn for each result of a tool (Anthropic, Gemini)."""
    value, keys = item.value, item.keys
    blocks = None
    if isinstance(value, dict):
        blocks = next((name for name in ("content", "parts", "blocks") if has_calls(value.get(name))), None)
    if blocks is not None:
        keys = keys if keys is not None else set(value)
        parted = [message_of(turn, path) for turn in turns_of_blocks(value, blocks, path)]
    else:
        parted = [message_of(value, path)]
    if keys is not None:
        # Keys of the file alone have a fate.
        for message in parted:
            message.used = tuple(name for name in keys if name not in message.rest)
    return parted


def check_answers(messages: list[Message]) -> None:
    """Refuse a tool's message that answers a call which no turn before it makes, and an answer that is given although
    some calls of the turn before it have no result where others have one."""
    if not any(message.tool_call_id is not None for message in messages):
        return
    made: set[str] = set()
    waiting: list[str] = []
    answered = False
    for message in messages:
        if message.role != "tool" and answered and waiting:
            raise RowFault(
                f"{message.path}.role",
                f"call {waiting[0]!r} before it has no result: what the tool said is missing, or the call is",
            )
        if message.role != "tool":
            waiting, answered = [], False
        if message.tool_calls is not None:
            waiting = [call["id"] for call in calls_of(message.tool_calls, message.path) if "id" in call]
            made.update(waiting)
        if message.tool_call_id in waiting:
            waiting.remove(message.tool_call_id)
            answered = True
        if message.tool_call_id is not None and message.tool_call_id not in made:
            known = f"; the calls before it are {', '.join(sorted(made)[:5])}" if made else ""
            raise RowFault(
                f"{message.path}.tool_call_id", f"it answers call {message.tool_call_id!r}, which no turn makes{known}"
            )


def in_order_of_calls(messages: list[Message]) -> list[Message]:
    """The messages with the results of one turn's calls in the order of these.

    Few chat templates render the id of a call: by most of them the first result is that of the first call.
    """
    if sum(message.tool_call_id is not None for message in messages) < 2:
        return messages
    found: list[Message] = []
    order: dict[str, int] = {}
    start = 0
    for message in [*messages, Message("user", "")]:
        if message.role == "tool" and message.tool_call_id in order:
            found.append(message)
            continue
        found[start:] = sorted(found[start:], key=lambda one: order.get(one.tool_call_id or "", 0))
        found.append(message)
        calls = calls_of(message.tool_calls, message.path) if message.tool_calls is not None else []
        order = {call["id"]: place for place, call in enumerate(calls) if "id" in call}
        start = len(found)
    return found[:-1]


def message_of(item: Any, path: str) -> Message:
    """One message; RowFault naming `path` when it is none, or when something is said of it that cannot be heeded."""
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a message, got {kind_of(item)}")
    fields = {key: value for key, value in item.items() if value is not None}
    role_key = next((name for name in _ROLE_KEYS if name in fields), None)
    if role_key is None:
        lowered = {str(key).strip().lower(): value for key, value in item.items()}
        if lowered.keys() != item.keys() and len(lowered) == len(item):
            return message_of(lowered, path)
        raise RowFault(
            path,
            f"a message needs role and content (or from and value), found {_names(item)}: name its keys with "
            "--map message.role=KEY and --map message.content=KEY",
        )
    text_key = next((name for name in _TEXT_KEYS if name in fields), None)
    if isinstance(fields.get("parts"), dict):
        fields["parts"] = [fields["parts"]]
    text_key = text_key or next((name for name in _OTHER_TEXT_KEYS if isinstance(fields.get(name), (str, list))), None)
    others = [name for name in _TEXT_KEYS if name in fields and name != text_key and fields[name] != fields[text_key]]
    if others:
        raise RowFault(f"{path}.{others[0]}", f"{text_key} and {others[0]} both hold a text: keep one of them")
    for key, what in _UNHEEDED.items():
        if fields.get(key) not in (None, [], "") and not (fields[key] is False and key in _BEGUN):
            raise RowFault(f"{path}.{key}", f"{what} cannot be heeded: leave it out, or split the row")
    for key in _NOT_LEARNED:
        if fields.get(key, False) not in (False, 0, "", [], "false", "False"):
            raise RowFault(
                f"{path}.{key}",
                f"a turn marked {key}: leave it out of the row, or write train: false where the model sees it and does "
                "not learn it",
            )
    _refuse_harmony(fields, path)
    refuse_media(fields, path)
    spelled = text_of(fields[role_key], f"{path}.{role_key}").strip()
    role, masked = _role(spelled)
    if role not in ROLES:
        raise RowFault(
            f"{path}.{role_key}",
            f"the role {spelled[:40]!r} is none of {', '.join(ROLES)} or their usual names: name what it is with "
            f"--map role.{spelled[:40]}=assistant (or user, system, tool)",
        )
    message = Message(role, "", path=path)
    used = [role_key]
    _read_text(message, fields, text_key, spelled, used)
    _read_fields(message, fields, used)
    weights.read(message, fields, path, masked, used)
    message.used = tuple(used)
    message.rest |= {str(key): value for key, value in fields.items() if key not in used}
    return message


def _refuse_harmony(fields: Mapping[str, Any], path: str) -> None:
    """RowFault for turns in OpenAI's harmony channels, where a text is a thought or a call by what stands beside it."""
    if fields.get("channel") in ("analysis", "commentary"):
        raise RowFault(
            f"{path}.channel",
            f"a turn in the channel {fields['channel']}: write what was thought as reasoning_content of the answer, "
            "and calls as tool_calls",
        )
    if fields.get("recipient") not in (None, "", "all", "user", "assistant"):
        raise RowFault(
            f"{path}.recipient", f"a turn for {str(fields['recipient'])[:40]!r}: write calls of tools as tool_calls"
        )


def _names(item: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(item)[:8])) or "nothing"


def _role(spelled: str) -> tuple[str, bool]:
    """The canonical role (what is unknown stays as it is) and whether the name says that the turn carries no loss."""
    if spelled in ROLE_NAMES:
        return ROLE_NAMES[spelled], False
    lowered = spelled.lower()
    bare = _MASKED.sub("", lowered)
    return ROLE_NAMES.get(_plain(bare), spelled), bare != lowered and bare in ROLE_NAMES


def _plain(spelled: str) -> str:
    """A role in lower case, its words joined as most write them (``tool call``, ``Tool-Call``)."""
    return _BETWEEN.sub("_", spelled.lower())


def _read_text(message: Message, fields: dict[str, Any], text_key: str | None, spelled: str, used: list[str]) -> None:
    calls = any(fields.get(name) for name in ("tool_calls", "function_call"))
    if text_key is None:
        if not calls:
            refused = " beside a refusal: write the refusal as content" if fields.get("refusal") else ""
            raise RowFault(f"{message.path}.content", f"expected text, got null{refused}")
        return
    used.append(text_key)
    where = f"{message.path}.{text_key}"
    if isinstance(fields[text_key], list):
        found = blocks_of(fields[text_key], message.path, text_key)
        message.content, message.reasoning_content = found.text, "\n".join(found.thoughts) or None
        message.rest = found.rest
    elif isinstance(fields[text_key], dict) and _role(spelled)[0] == "assistant" and _is_calling(spelled):
        # A call that is an object, and not the text of one.
        message.tool_calls = call_text(fields[text_key], where)
        return
    else:
        message.content = text_of(fields[text_key], where)
    if _is_calling(spelled):
        thought = _THOUGHT.match(message.content)
        if thought:
            message.reasoning_content = thought[1].strip() or None
            message.content = message.content[thought.end() :]
        message.tool_calls, message.content = call_text(message.content, where), ""


def _is_calling(spelled: str) -> bool:
    return _plain(spelled) in CALLING


def _read_fields(message: Message, fields: dict[str, Any], used: list[str]) -> None:
    path, role = message.path, message.role
    if fields.get("name") not in (None, ""):
        message.name = text_of(fields["name"], f"{path}.name")
    for key in REASONING:
        if key not in fields or is_switch(fields[key]):
            continue
        thought = text_of(fields[key], f"{path}.{key}")
        used.append(key)
        if thought and role != "assistant":
            raise RowFault(f"{path}.{key}", f"a turn of role {role} has a reasoning: only the assistant thinks")
        if thought and message.reasoning_content not in (None, thought):
            raise RowFault(f"{path}.{key}", "the reasoning is given twice, and differs: keep one")
        message.reasoning_content = thought or message.reasoning_content
    if isinstance(details := fields.get("reasoning_details"), list) and message.reasoning_content is None:
        message.reasoning_content = _details(details, f"{path}.reasoning_details")
        used.append("reasoning_details")
    made = [key for key in ("tool_calls", "function_call") if fields.get(key)]
    if made and role != "assistant":
        raise RowFault(f"{path}.{made[0]}", f"a turn of role {role} calls a tool: only the assistant does")
    if len(made) == 2:
        raise RowFault(f"{path}.function_call", "tool_calls and function_call stand in one message: keep one")
    if made:
        message.tool_calls = call_text(fields[made[0]], f"{path}.{made[0]}")
    if fields.get("toolCallId") not in (None, "") and "tool_call_id" not in fields:
        fields["tool_call_id"] = fields["toolCallId"]
        used.append("toolCallId")
    if fields.get("tool_call_id") not in (None, ""):
        if role != "tool":
            raise RowFault(f"{path}.tool_call_id", f"a turn of role {role} answers a call: only a tool does")
        message.tool_call_id = text_of(fields["tool_call_id"], f"{path}.tool_call_id")
    used += [key for key in ("name", "tool_calls", "function_call", "tool_call_id") if key in fields]


def _details(value: list[Any], path: str) -> str | None:
    """What OpenRouter's details of a reasoning say in words; encrypted ones say nothing."""
    found = []
    for index, detail in enumerate(value):
        if not isinstance(detail, dict):
            raise RowFault(f"{path}[{index}]", f"expected an object with a text, got {kind_of(detail)}")
        text = detail.get("text") or detail.get("summary")
        found += [text_of(text, f"{path}[{index}].text")] if text else []
    return "\n".join(found) or None
