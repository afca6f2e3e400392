"""Which modules of a base a spec trains, and with how many parameters, from the headers of its weights alone."""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.records.training import TrainedModules
from llmops_assets.specs.training import TrainJobSpec

_EMBEDDINGS = ("embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings")
_HEADS = ("lm_head", "embed_out", "output", "score")


class ModuleError(ValueError):
    """A spec trains what the base does not have; the message names what it has."""


@dataclass(frozen=True)
class Module:
    """A module with a weight: its dotted name, and the shape of that weight."""

    name: str
    shape: tuple[int, ...]

    @property
    def kind(self) -> str:
        """The name that a spec calls it by, without its place among the layers."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


def modules_of(folder: Path) -> list[Module]:
    """Every module with a weight of the safetensors files in a model folder, by name; biases are left out."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
        for name, facts in header.items():
            if name != "__metadata__" and name.endswith(".weight"):
                found[name.removesuffix(".weight")] = tuple(facts["shape"])
    return [Module(name, shape) for name, shape in sorted(found.items())]


def embedding_rows(modules: Sequence[Module]) -> int | None:
    """How many tokens the embeddings of a base have a row for; None where its weights name none."""
    return next((module.shape[0] for module in modules if module.kind in _EMBEDDINGS and len(module.shape) == 2), None)


def _linear(modules: Sequence[Module]) -> list[Module]:
    """What an adapter can be put beside: matrices that are neither embeddings nor the head."""
    return [m for m in modules if len(m.shape) == 2 and m.kind not in (*_EMBEDDINGS, *_HEADS)]


def targeted(spec: TrainJobSpec, modules: Sequence[Module]) -> list[Module]:
    """The modules that get an adapter; ModuleError names each target that is no module, and the names that exist."""
    wanted = spec.hyperparams.target_modules
    linear = _linear(modules)
    if wanted == "all-linear" or wanted is None:
        return linear
    # As PEFT does: a name is that of a module, or the end of its dotted name.
    every = [m for m in modules if len(m.shape) >= 2]
    matched = {name: [m for m in every if m.name == name or m.name.endswith(f".{name}")] for name in wanted}
    if absent := [name for name, found in matched.items() if not found]:
        there = list(dict.fromkeys(module.kind for module in linear))
        raise ModuleError(
            f"hyperparams.target_modules: the base has no module {', '.join(absent)}, so "
            f"nothing there would be trained. It has {', '.join(there)}; or write all-linear"
        )
    return list({module.name: module for found in matched.values() for module in found}.values())


def trained_modules(spec: TrainJobSpec, folder: Path) -> list[TrainedModules]:
    """A line for each kind of module that is trained: how, in how many layers, with how many parameters."""
    modules = modules_of(folder)
    if spec.method == "full":
        return _lines([(module.kind, "full", module.numel) for module in modules])
    rank = spec.hyperparams.lora_rank or 16
    found = [
        (m.kind, "adapter", rank * (m.shape[0] + m.shape[1])) for m in targeted(spec, modules) if len(m.shape) == 2
    ]
    if spec.hyperparams.train_embeddings:
        found += [(m.kind, "full", m.numel) for m in modules if m.kind in (*_EMBEDDINGS, *_HEADS)]
    return _lines(found)


def _lines(found: Sequence[tuple[str, str, int]]) -> list[TrainedModules]:
    lines: dict[tuple[str, str], list[int]] = {}
    for kind, how, count in found:
        lines.setdefault((kind, how), []).append(count)
    return [
        TrainedModules(
            module=kind, how="full" if how == "full" else "adapter", layers=len(counts), parameters=sum(counts)
        )
        for (kind, how), counts in lines.items()
    ]


def check_token_ids(tokenizer: Any, largest: int, base: Path) -> None:
    """Raise ModuleError where `largest`, of all token ids of the rows, has no row in the embeddings of `base`."""
    rows = embedding_rows(modules_of(base))
    if rows is not None and largest >= rows:
        raise ModuleError(
            f"the rows have the token {tokenizer.convert_ids_to_tokens(largest)!r} (id {largest}), and the embeddings "
            f"of the base have {rows} rows, for ids 0 to {rows - 1}: its tokenizer of {len(tokenizer)} entries is not "
            "that of its weights. Resize the embeddings to the tokenizer (resize_token_embeddings) and register the "
            "base anew, or give it back its own tokenizer"
        )


def check_adapter(model: Any, names: Sequence[str] | str | None) -> None:
    """Raise ModuleError where PEFT has put an adapter beside no module of a name that a spec has."""
    if names is None or isinstance(names, str):
        return
    reached: Mapping[str, Any] = dict.fromkeys(getattr(model, "targeted_module_names", []))
    absent = [name for name in names if not any(r == name or r.endswith(f".{name}") for r in reached)]
    if reached and absent:
        raise ModuleError(
            f"hyperparams.target_modules: no adapter was put beside {', '.join(absent)}: nothing is there"
        )
