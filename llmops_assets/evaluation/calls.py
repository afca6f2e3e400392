"""Reads tool calls out of generated text, in the syntax of the model's family, and compares them as JSON."""

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """A call of a tool: its name and its arguments, a JSON object."""

    name: str
    arguments: Mapping[str, Any]


class NoCall(ValueError):
    """Text that begins a call and is none; the message says what is wrong with it."""


def parser_of(template: str | None) -> str:
    """The parser of a chat template's calls, one of `PARSERS`; "json" where the template shows no syntax of its own."""
    text = template or ""
    if "<function=" in text:
        return "qwen3_coder"
    if "<tool_call>" in text:
        return "hermes"
    if "[TOOL_CALLS]" in text:
        return "mistral"
    if "<|python_tag|>" in text or ("ipython" in text and '"parameters"' in text):
        return "llama"
    return "json"


def calls_in(text: str, parser: str = "json") -> list[Call]:
    """The calls in an answer, in their order; none where it is words alone. Raises NoCall for a broken one."""
    return PARSERS[parser](text.strip())


def reference_of(tool_calls: str | Sequence[Mapping[str, Any]] | None) -> str:
    """The calls of a canonical message as a reference: a JSON list of {name, arguments}, [] for the wish of no call."""
    wanted = json.loads(tool_calls) if isinstance(tool_calls, str) else (tool_calls or [])
    calls = [_call(call) for call in wanted]
    return json.dumps([{"name": c.name, "arguments": c.arguments} for c in calls], ensure_ascii=False, sort_keys=True)


def references_of(reference: str) -> list[Call]:
    """The calls that a reference asks for; raises NoCall for what is no list of calls."""
    try:
        wanted = json.loads(reference)
    except ValueError as error:
        raise NoCall(f"{reference[:60]!r} is no JSON list of calls: {error}") from error
    if not isinstance(wanted, list):
        raise NoCall(f"{reference[:60]!r} is no JSON list of calls")
    return [_call(call) for call in wanted]


def same_calls(wanted: Sequence[Call], given: Sequence[Call]) -> bool:
    """Whether both have the same calls, in any order: names equal, arguments equal as JSON (1 is 1.0, true is no 1)."""
    left = list(given)
    for call in wanted:
        at = next(
            (i for i, other in enumerate(left) if other.name == call.name and _equal(call.arguments, other.arguments)),
            None,
        )
        if at is None:
            return False
        del left[at]
    return not left


def undeclared(calls: Sequence[Call], tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names and arguments of `calls` that the row's `tools` (as OpenAI lists them) do not declare."""
    declared = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        declared[function.get("name")] = function.get("parameters") or {}
    faults = []
    for call in calls:
        if call.name not in declared:
            faults.append(
                f"{call.name} is none of the row's tools ({', '.join(map(str, declared)) or 'there are none'})"
            )
            continue
        schema = declared[call.name]
        properties = schema.get("properties")
        if isinstance(properties, dict) and schema.get("additionalProperties") is not True:
            faults += [f"{call.name} has no argument {name}" for name in call.arguments if name not in properties]
        faults += [
            f"{call.name} needs the argument {n}" for n in schema.get("required") or [] if n not in call.arguments
        ]
    return faults


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, str) and isinstance(b, str):
        return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)
    return (type(a) in (int, float) and type(b) in (int, float) and a == b) or (a is None and b is None)


def _call(value: Any) -> Call:
    """A call in any of its spellings: name with arguments or parameters, beside or inside `function`."""
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict) or not isinstance(value.get("name") or value.get("function"), str):
        raise NoCall(f"a call is an object with a name, and no {json.dumps(value, ensure_ascii=False)[:60]}")
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError as error:
            raise NoCall(f"the arguments of {value.get('name')} are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise NoCall(f"the arguments of {value.get('name')} are no object")
    return Call(value.get("name") or value["function"], arguments)


def _looks_like_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and ("name" in value or "function" in value)
        and bool({"arguments", "parameters", "function"} & value.keys())
    )


def _json_values(text: str) -> list[Any]:
    """The JSON values that `text` is made of, parted by white space, ; or commas; raises NoCall for anything else."""
    decoder, at, values = json.JSONDecoder(), 0, []
    while at < len(text):
        if text[at] in " \t\r\n;,":
            at += 1
            continue
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise NoCall(f"the call is no JSON: {error}") from error
        values.append(value)
    return values


def _json(text: str) -> list[Call]:
    if not text.startswith(("{", "[")):
        return []
    try:
        values = _json_values(text)
    except NoCall:
        if re.search(r'"(?:name|function)"\s*:', text):
            raise
        return []
    flat = [call for value in values for call in (value if isinstance(value, list) else [value])]
    # JSON that is an answer and no call: {"temperature": 3}.
    return [_call(value) for value in flat] if flat and all(map(_looks_like_call, flat)) else []


def _hermes(text: str) -> list[Call]:
    blocks = re.findall(r"<tool_call>(.*?)(</tool_call>|\Z)", text, re.DOTALL)
    if not blocks:
        return _json(text.replace("</tool_call>", "\n"))
    calls = []
    for content, end in blocks:
        if not end:
            raise NoCall("a <tool_call> without its </tool_call>")
        found = _json_values(content.strip())
        calls += [_call(call) for value in found for call in (value if isinstance(value, list) else [value])]
    return calls


def _mistral(text: str) -> list[Call]:
    _, marker, rest = text.rpartition("[TOOL_CALLS]") if text.count("[TOOL_CALLS]") == 1 else ("", "", text)
    if not marker and "[TOOL_CALLS]" not in text:
        return _json(text)
    # Since v11 a call is [TOOL_CALLS]name[ARGS]{…}, each behind its own marker.
    calls = []
    for piece in [rest] if marker else text.split("[TOOL_CALLS]")[1:]:
        piece = piece.strip()
        named = re.match(r"([\w.-]+)(?:\[CALL_ID\][\w-]+)?\s*(?:\[ARGS\])?\s*(?=\{)", piece)
        if named:
            calls += [_call({"name": named[1], "arguments": value}) for value in _json_values(piece[named.end() :])]
        else:
            for value in _json_values(piece):
                calls += [_call(call) for call in (value if isinstance(value, list) else [value])]
    return calls


def _llama(text: str) -> list[Call]:
    text = text.removeprefix("<|python_tag|>").strip()
    for end in ("<|eom_id|>", "<|eot_id|>"):
        text = text.removesuffix(end).strip()
    if re.fullmatch(r"\[\s*[A-Za-z_][\w.]*\(.*\)\s*\]", text, re.DOTALL):
        return _pythonic(text)
    return _json(text)


def _pythonic(text: str) -> list[Call]:
    """Llama 3.2 and 4 also write ``[name(argument=1)]``."""
    try:
        tree = ast.parse(text, mode="eval").body
        elements = tree.elts if isinstance(tree, ast.List) else []
        calls = []
        for node in elements:
            if not isinstance(node, ast.Call) or node.args or any(k.arg is None for k in node.keywords):
                raise NoCall(f"{text[:60]!r} is no list of calls with named arguments")
            calls.append(Call(ast.unparse(node.func), {str(k.arg): ast.literal_eval(k.value) for k in node.keywords}))
        return calls
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise NoCall(f"{text[:60]!r} is no list of calls: {error}") from error


def _qwen3_coder(text: str) -> list[Call]:
    calls = []
    for name, body in re.findall(r"<function=([^>\s]+)>(.*?)</function>", text, re.DOTALL):
        arguments: dict[str, Any] = {}
        for key, value in re.findall(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", body, re.DOTALL):
            try:
                arguments[key] = json.loads(value)
            except ValueError:
                arguments[key] = value
        calls.append(Call(name, arguments))
    if not calls and "<function=" in text:
        raise NoCall("a <function=…> without its </function>")
    return calls or _hermes(text)


PARSERS: dict[str, Callable[[str], list[Call]]] = {
    "hermes": _hermes,
    "llama": _llama,
    "mistral": _mistral,
    "qwen3_coder": _qwen3_coder,
    "json": _json,
}
"""By the syntax that a template renders: Hermes and Qwen, Llama 3, Mistral, Qwen3-Coder's XML, bare JSON."""
