"""Compares the weights that were trained, in memory, with the file that they were saved to."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from llmops_assets.training import weight_files


class NotSaved(RuntimeError):
    """What was trained is not what was saved; the message names the modules."""


def check_adapter_saved(model: Any, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Raise NotSaved unless each trained parameter of a PEFT model stands in the adapter's file as it is in memory.

    PEFT saves by name, and has left trained embeddings, tied heads and whole modules out without a word. `state` has
    the parameters of a model that is sharded, by name.
    """
    from safetensors import safe_open

    file = folder / "adapter_model.safetensors"
    names = set(weight_files.header(file))
    absent, other = [], []
    with safe_open(file, framework="pt") as saved:
        for name, value in _trained(model, state):
            key = saved_name(name)
            if key not in names:
                absent.append(key)
            elif not torch.equal(saved.get_tensor(key).to(value.dtype), value.cpu()):
                other.append(key)
    if absent or other:
        parts = [f"{len(keys)} {words} ({', '.join(keys[:2])})" for keys, words in (
            (absent, "trained tensors are not in it"), (other, "have other values than those that were trained"),
        ) if keys]  # fmt: skip
        raise NotSaved(
            f"the adapter that was saved to {folder} is not the one that was trained: {'; '.join(parts)}. "
            "Nothing of it is used; the checkpoint is there. Train without those modules (train_embeddings, "
            "target_modules), or with another version of peft"
        )


def _trained(model: Any, state: Mapping[str, torch.Tensor] | None) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # What is gathered of shards has PEFT's names for files already.
            gathered = None if state is None else state.get(name, state.get(saved_name(name)))
            if state is None or gathered is not None:
                yield name, (parameter.detach() if gathered is None else gathered)


def saved_name(parameter: str) -> str:
    """The name in an adapter's file of a trained parameter: without that of the adapter, and of PEFT's wrapper."""
    return parameter.replace(".modules_to_save.default.", ".").replace(".default.", ".").removesuffix(".default")
