"""Lists of tools in the spellings that users bring (OpenAI, Anthropic, Bedrock, Gemini, xLAM), as OpenAI's JSON."""

import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.calls import decoded, json_text
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of

_DECLARATIONS = ("functionDeclarations", "function_declarations")
_SCHEMAS = ("input_schema", "inputSchema", "parametersJsonSchema")
"""Where Anthropic, Bedrock and Gemini have what OpenAI calls `parameters`."""


def tools_text(value: Any, path: str) -> str | None:
    """The canonical JSON list of tools as OpenAI writes them, of such a list, of bare functions, or of JSON of either.

    None where there are no tools.
    """
    if isinstance(value, str):
        if not value.strip():
            return None
        value = decoded(value, path, "the list of tools")
    if isinstance(value, dict) and isinstance(value.get("tools"), list) and "name" not in value:
        # Bedrock's toolConfig.
        value, path = value["tools"], f"{path}.tools"
    if value is None or value == []:
        return None
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of tools, got {kind_of(value)}")
    tools = [tool for index, item in enumerate(value) for tool in _tools(item, f"{path}[{index}]")]
    return json_text(tools, path) if tools else None


def _tools(item: Any, path: str) -> list[dict[str, Any]]:
    """The tools of one entry: Gemini has a list of declarations in it."""
    if isinstance(item, str):
        item = decoded(item, path, "a tool")
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a tool, got {kind_of(item)}")
    name = next((name for name in _DECLARATIONS if name in item), None)
    if name is None:
        return [_tool(item, path)]
    if not isinstance(item[name], list):
        raise RowFault(f"{path}.{name}", f"expected a list of functions, got {kind_of(item[name])}")
    if others := [key for key in item if key != name and item[key] is not None]:
        raise RowFault(f"{path}.{others[0]}", "a tool of Gemini's own: only functions can be called")
    return [_tool(one, f"{path}.{name}[{index}]") for index, one in enumerate(item[name])]


def _tool(item: Any, path: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a tool, got {kind_of(item)}")
    if isinstance(item.get("toolSpec"), dict):
        item = item["toolSpec"]
    # Anthropic calls a function of the user's own `custom`, OpenAI a tool without a schema.
    if item.get("type") not in (None, "function", "object", *(("custom",) if "input_schema" in item else ())):
        raise RowFault(f"{path}.type", f"a tool of type {item['type']!r}: only functions can be called")
    function = item.get("function", item)
    if not isinstance(function, dict):
        raise RowFault(f"{path}.function", f"expected an object with the name of the function, got {kind_of(function)}")
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        raise RowFault(f"{path}.name", f"a tool needs the name of its function, got {kind_of(name)}")
    named = _with_parameters(function)
    if function is item:
        return {"type": "function", "function": {k: v for k, v in named.items() if k != "type"}}
    return {"type": "function", **{k: named if k == "function" else v for k, v in item.items() if k != "type"}}


def _with_parameters(function: dict[str, Any]) -> dict[str, Any]:
    """A function whose parameters are a JSON schema called `parameters`, whatever it is called and written like."""
    found = {}
    for name, value in function.items():
        if name in _SCHEMAS and "parameters" not in function:
            name, value = "parameters", value.get("json", value) if isinstance(value, dict) else value
        found[name] = _schema(value) if name == "parameters" else value
    return found


_TYPES = {
    "str": "string", "string": "string", "int": "integer", "integer": "integer", "float": "number", "number": "number",
    "bool": "boolean", "boolean": "boolean", "list": "array", "array": "array", "tuple": "array", "set": "array",
    "dict": "object", "object": "object",
}  # fmt: skip
_GEMINI = {"STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"}
_PYTHON = re.compile(r"(\w+)(?:\[(\w+)[^\]]*\])?(?:\s*,\s*(optional).*|\s*,\s*default.*)?", re.IGNORECASE | re.DOTALL)


def _schema(value: Any) -> Any:
    """Parameters as a JSON schema: Gemini's types in lower case, xLAM's table of names and Qwen-Agent's list of them as
    properties; what is a schema already, or nothing that is known, stays as it is."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and isinstance(one.get("name"), str)
                                                 for one in value):  # fmt: skip
        table = {one["name"]: {name: item for name, item in one.items() if name != "name"} for one in value}
        return _of_table(table)
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(one, dict) and isinstance(one.get("type"), str) for one in value.values()):
        return _of_table(value)
    return _lowered(value)


def _of_table(table: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A JSON schema of a table of parameters; required is what says so, or what is not optional and has no default."""
    properties, required = {}, []
    marked = any(isinstance(one.get("required"), bool) for one in table.values())
    for name, one in table.items():
        rest = {key: item for key, item in one.items() if key != "required" or not isinstance(item, bool)}
        written = _PYTHON.fullmatch(str(one.get("type", "")).strip())
        kind = _TYPES.get(written[1].lower()) if written else None
        if kind is not None and written is not None:
            rest["type"] = kind
            inner = _TYPES.get((written[2] or "").lower())
            if kind == "array" and inner is not None and "items" not in rest:
                rest["items"] = {"type": inner}
        properties[name] = _lowered(rest)
        optional = (written is not None and written[3] is not None) or "default" in one
        if one.get("required") is True or (not marked and not optional):
            required.append(name)
    return {"type": "object", "properties": properties, **({"required": required} if required else {})}


def _lowered(value: Any) -> Any:
    """A schema with Gemini's names of types (``OBJECT``) as JSON schema writes them, and without properties that are
    null: where tables were stored in Arrow, every tool has the properties of all others."""
    if isinstance(value, dict):
        return {
            name: item.lower()
            if name == "type" and isinstance(item, str) and item in _GEMINI
            else {key: _lowered(one) for key, one in item.items() if one is not None}
            if name == "properties" and isinstance(item, dict)
            else _lowered(item)
            for name, item in value.items()
        }
    return [_lowered(item) for item in value] if isinstance(value, list) else value
