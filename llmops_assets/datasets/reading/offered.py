"""Whether the functions that a conversation calls are among the tools that it is given."""

from collections.abc import Iterable

from llmops_assets.datasets.reading.calls import parsed
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.raw import RowFault

_SHOWN = 5
"""Names of tools that a reason lists."""


def refuse_unoffered(messages: Iterable[Message], tools: str | None) -> None:
    """RowFault for a call of a function that is not among `tools` (canonical JSON): a model that learns from it learns
    to invent tools.

    A turn without loss may call what it likes; without `tools` the system prompt may list them in words.
    """
    if tools is None:
        return
    names: set[str] | None = None
    for message in messages:
        if message.tool_calls is None or message.weight == 0:
            continue
        if names is None:
            names = {tool["function"]["name"] for tool in parsed(tools)}
        for index, call in enumerate(parsed(message.tool_calls)):
            if (name := call["function"]["name"]) not in names:
                known = ", ".join(sorted(names)[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
                raise RowFault(
                    f"{message.path}.tool_calls[{index}].function.name",
                    f"it calls {name[:60]!r}, which is not among the row's tools ({known}): a model would learn to "
                    "invent functions; add it to tools, or leave the row out",
                )
