"""What several faults are seeded with: base models that somebody changed, as a user brings them."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.installation import ACTOR, Installation
from images.train.chat import CHATML
from llmops_assets.operations import models
from llmops_assets.records.training import MergedModelRecord

SPLIT = {"stratify_by": "category", "ratios": [0.7, 0.1, 0.2]}
ANSWER = "{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
"""The part of ChatML that writes the assistant's words between the generation markers."""
HEADER = "{{- '<|im_start|>' + message['role'] + '\\n' -}}"


def brought_base(one: Installation, base: str, name: str, change: Callable[[Path], None], family: str = "llama") -> str:
    """The model of the training `base`, copied to a folder, changed, registered and approved as a user's own."""
    folder = one.root / "bases" / name
    shutil.copytree(one.w.records.load(MergedModelRecord, base).path, folder)
    change(folder)
    ref = f"hf:{folder}"
    models.register_base(one.w, ACTOR, ref, family=family, license=None)
    models.approve(one.w, ACTOR, ref)
    return ref


def with_template(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(text, encoding="utf-8")

    return change


def with_json(name: str, **values: Any) -> Callable[[Path], None]:
    """Sets keys of a JSON file of the folder; None takes one out."""

    def change(folder: Path) -> None:
        found = json.loads((folder / name).read_text(encoding="utf-8")) | values
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / name).write_text(json.dumps(kept), encoding="utf-8")

    return change


def with_ids_exchanged(pairs: int | None) -> Callable[[Path], None]:
    """Exchanges the ids of so many pairs of entries of the tokenizer's vocabulary; None shuffles them all."""

    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        found = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = found["model"]["vocab"]
        rng = random.Random(5)
        own = [token for token in vocabulary if not token.startswith("<|")]
        picked = own if pairs is None else rng.sample(own, 2 * pairs)
        ids = [vocabulary[token] for token in picked]
        given = rng.sample(ids, len(ids)) if pairs is None else [*ids[pairs:], *ids[:pairs]]
        vocabulary.update(zip(picked, given, strict=True))
        file.write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")

    return change


def layers_exchanged(tensors: dict[str, Any]) -> None:
    """The weights of the first layer under the names of the second, and the other way round."""
    first, second = "model.layers.0.", "model.layers.1."
    for name in [name for name in tensors if name.startswith(first)]:
        other = name.replace(first, second)
        tensors[name], tensors[other] = tensors[other], tensors[name]


def with_weights(change_one: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Changes the tensors of the folder's weights in place."""

    def change(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change_one(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return change


def one_bit(folder: Path) -> None:
    """Changes one bit of the weights, as a bad disk or a copy that broke off does."""
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-400] ^= 0x40
    file.write_bytes(data)


def all_of(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for one in changes:
            one(folder)

    return change


def replaced(*pairs: tuple[str, str]) -> str:
    """ChatML with parts put in place of others, each of which must be there."""
    text = CHATML
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text
