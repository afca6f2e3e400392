"""Specs from YAML and JSON files: which kind a file is, and everything that is wrong in it, with line numbers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from llmops_assets.specs.base import Spec, SpecError, SpecFault, dotted, faults_of
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.retraining import RetrainingRule
from llmops_assets.specs.rules import check_against_policy, policy_faults
from llmops_assets.specs.training import TrainJobSpec

KINDS: dict[str, type[Spec]] = {
    model.kind: model for model in (DatasetSpec, TrainJobSpec, DeploymentSpec, ExperimentSpec, RetrainingRule)
}
MAX_BYTES = 256 * 1024
MAX_DEPTH = 20
Lines = dict[tuple[str | int, ...], int]


def load_spec(path: Path | str, policy: Policy | None = None, role: str | None = None) -> Spec:
    """Read the spec in a file; raise SpecError with every fault of it, and of the policy when one is given.

    The kind is recognised by the keys, unless the file says it (``kind: train``).
    """
    spec, faults = _read_spec(Path(path), policy, role)
    if spec is None or faults:
        raise SpecError(faults)
    return spec


def validate_file(path: Path | str, policy: Policy, role: str | None = None) -> list[SpecFault]:
    """Every fault of the spec in a file, with its field path and, where it can be told, its line; empty when valid."""
    return read_checked(path, policy, role)[1]


def read_checked(path: Path | str, policy: Policy, role: str | None = None) -> tuple[Spec | None, list[SpecFault]]:
    """The spec in a file, None where it cannot be read at all, and every fault of it."""
    return _read_spec(Path(path), policy, role)


def _read_spec(path: Path, policy: Policy | None, role: str | None) -> tuple[Spec | None, list[SpecFault]]:
    file = str(path)
    try:
        data, lines, faults = _read(path)
    except SpecError as error:
        return None, [replace(fault, file=file) for fault in error.faults]
    spec = None
    model, fault = _kind_of(data)
    if model is None:
        faults.append(fault)
    else:
        content = {key: value for key, value in data.items() if key != "kind"}
        try:
            spec = model.model_validate(content)
            faults += check_against_policy(spec, policy, role) if policy else []
        except ValidationError as error:
            faults += faults_of(error, model)
            faults += policy_faults(model, model.readable(content, error), policy, role) if policy else []
    found = [replace(fault, file=file, line=fault.line or _line_of(fault.field, lines)) for fault in faults]
    return spec, sorted(found, key=lambda fault: fault.line or 0)


def _read(path: Path) -> tuple[dict[str, Any], Lines, list[SpecFault]]:
    """The mapping in a YAML or JSON file, the line of each of its fields, and the keys that it gives twice.

    Raises SpecError when there is no such mapping.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError([SpecFault("", f"larger than {MAX_BYTES:,} bytes", "A spec is a small YAML or JSON file")])
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError([SpecFault("", f"not UTF-8 text: {error.reason}", "Save it as UTF-8")]) from error
    except OSError as error:
        raise SpecError([SpecFault("", f"cannot be read: {error.strerror}", "Check the path")]) from error
    return _read_json(text) if path.suffix.lower() == ".json" else _read_yaml(text)


def _read_yaml(text: str) -> tuple[dict[str, Any], Lines, list[SpecFault]]:
    try:
        _refuse_traps(text)
        documents = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        data = yaml.safe_load(text) if len(documents) == 1 else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"not valid YAML: {error.problem or error.context}"
        raise SpecError([SpecFault("", message, "Correct the syntax", line=mark.line + 1 if mark else None)]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError([SpecFault("", f"not valid YAML: {error}", "Correct the syntax")]) from error
    if len(documents) > 1:
        line = documents[1].start_mark.line + 1
        raise SpecError([SpecFault("", "more than one document", "Put each spec into a file of its own", line=line)])
    _require_mapping(data)
    lines: Lines = {}
    twice = list(_walk(documents[0], (), lines))
    return data, lines, twice


def _refuse_traps(text: str) -> None:
    """Raise on what is no spec and costs much to read: an alias can hold itself, or turn a few lines into gigabytes."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=event.start_mark)


def _read_json(text: str) -> tuple[dict[str, Any], Lines, list[SpecFault]]:
    repeated: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        repeated.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(items)

    try:
        data = json.loads(text, object_pairs_hook=pairs)
    except json.JSONDecodeError as error:
        raise SpecError(
            [SpecFault("", f"not valid JSON: {error.msg}", "Correct the syntax", line=error.lineno)]
        ) from error
    except RecursionError as error:
        raise SpecError([SpecFault("", "nested too deeply", "A spec is a small YAML or JSON file")]) from error
    _require_mapping(data)
    try:
        _refuse_traps(text)
        lines: Lines = {}
        return data, lines, list(_walk(yaml.compose(text, Loader=yaml.SafeLoader), (), lines))
    except yaml.YAMLError:
        # Some JSON (tabs for indentation) is no YAML: then there are no line numbers.
        return data, {}, [SpecFault(key, "given twice", "Keep one of the two") for key in repeated]


def _require_mapping(data: Any) -> None:
    if not isinstance(data, Mapping):
        what = "empty" if data is None else "not a list of 'key: value' lines"
        raise SpecError([SpecFault("", what, "See examples/specs for one of each kind")])
    level: list[Any] = [data]
    for _ in range(MAX_DEPTH):
        level = [item for block in level for item in (block.values() if isinstance(block, dict) else block)]
        level = [item for item in level if isinstance(item, (dict, list))]
    if level:
        raise SpecError([SpecFault("", "nested too deeply", "See examples/specs for one of each kind")])


def _walk(node: yaml.Node, path: tuple[str | int, ...], lines: Lines) -> Iterator[SpecFault]:
    """Fill `lines` (1-based, by path) and yield a fault for each key given twice: YAML would keep the last silently."""
    if isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            here = (*path, name)
            if name in first_lines:
                message = f"given twice, first in line {first_lines[name]}"
                yield SpecFault(dotted(here), message, "Keep one of the two", line=line)
            first_lines[name] = line
            lines[here] = line
            yield from _walk(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            yield from _walk(item, (*path, index), lines)


def _line_of(field: str, lines: Lines) -> int | None:
    """The line of a field, or, when it is missing, that of the nearest block that would hold it."""
    by_text = {dotted(path): line for path, line in lines.items()}
    while field:
        if field in by_text:
            return by_text[field]
        field = field[: max(field.rfind("."), field.rfind("["), 0)]
    return None


def _kind_of(data: dict[str, Any]) -> tuple[type[Spec] | None, SpecFault]:
    kind = data.get("kind")
    if kind is not None:
        close = get_close_matches(str(kind), KINDS, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Known: {', '.join(KINDS)}"
        return KINDS.get(str(kind)), SpecFault("kind", f"{kind!r} is no kind of spec", hint)
    keys = {str(key) for key in data}
    # Keys that no other kind has count: `name` or `endpoint` alone tell nothing.
    own = {
        model: set(model.model_fields) - set().union(*(m.model_fields for m in KINDS.values() if m is not model))
        for model in KINDS.values()
    }
    scores = {model: (len(keys & own[model]), len(keys & set(model.model_fields))) for model in own}
    best = max(scores, key=lambda model: scores[model])
    if scores[best][1] == 0 or list(scores.values()).count(scores[best]) > 1:
        return None, SpecFault("", "cannot tell what kind of spec this is", f"Add kind: {' | '.join(KINDS)}")
    return best, SpecFault("", "")
