"""Whether a turn carries loss, in the spellings of OpenAI, Axolotl, ms-swift and ShareGPT's many children."""

import math
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of

_LOSS = (
    "weight", "train", "training", "loss", "loss_weight", "loss_scale", "loss_mask", "trainable", "do_train",
    "train_on", "train_on_turn", "is_trained", "to_train", "learn", "compute_loss", "calculate_loss", "has_loss",
    "supervise", "supervised",
)  # fmt: skip
_NO_LOSS = ("mask", "masked", "loss_masked", "mask_loss", "no_loss", "ignore_loss", "no_train")
LOSS_KEYS = {*_LOSS, *_NO_LOSS}
"""Keys that say of a turn whether it carries loss."""

_ROW_WEIGHTS = ("weight", "loss_weight", "sample_weight", "loss_scale")


def read(message: Message, fields: Mapping[str, Any], path: str, masked: bool, used: list[str]) -> None:
    """Set the weight of a message from what is said of it, and add the keys to `used`.

    RowFault for weights other than 0 and 1, for two that differ, and for loss on a turn that is not the assistant's.
    """
    found: dict[str, bool] = {"role": False} if masked else {}
    for key in (*_LOSS, *_NO_LOSS):
        if key in fields:
            value = _truth(fields[key], f"{path}.{key}")
            found[key] = value if key in _LOSS else not value
            used.append(key)
    if not found:
        return
    if len(set(found.values())) > 1:
        raise RowFault(f"{path}.{list(found)[-1]}", f"{' and '.join(found)} contradict each other: keep one of them")
    if message.role == "assistant":
        # A weight of 1 is what every turn of the assistant has: said or not, the row is the same.
        message.weight = None if all(found.values()) else 0
    elif all(found.values()):
        key = next(iter(found))
        raise RowFault(
            f"{path}.{key}", f"it asks for loss on a turn of role {message.role}: only the assistant's are trained"
        )


def _truth(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    what = f"{value!r}" if isinstance(value, (int, float)) else kind_of(value)
    raise RowFault(path, f"expected 0 or 1 (or false or true), got {what}: a turn is trained or not, nothing between")


_OF_TURNS = (
    "weights", "loss_masks", "turn_weights", "turn_masks", "train_mask", "train_turns", "masked_turns", "labels_mask",
)  # fmt: skip
_LAST_ALONE = ("train_on_last_turn", "train_last_turn_only", "only_last", "only_last_turn", "last_turn_only",
               "mask_history")  # fmt: skip
"""Fields of a row that say which of its turns carry loss, and those that say that the last one does alone."""


def refuse_row_loss(row: Mapping[str, Any]) -> None:
    """RowFault for what a row says of the loss of its turns, which only the turns themselves can."""
    for key in (*_LOSS, *_NO_LOSS, *_OF_TURNS, *_LAST_ALONE):
        value = row.get(key)
        listed = isinstance(value, (list, dict)) and bool(value)
        worded = isinstance(value, str) and value.strip().lower() not in ("", "true", "all") and key == "train_on"
        off = value is (key in _LAST_ALONE or key in _NO_LOSS) and isinstance(value, bool)
        if listed or worded or off:
            raise RowFault(
                key,
                f"{key} of the whole row says which turns are learned: write it into the turns (train: false), or "
                "leave the row out",
            )


def refuse_row_weight(row: Mapping[str, Any]) -> None:
    """RowFault for a weight of the whole row that is not 1: all rows count alike."""
    for key in _ROW_WEIGHTS:
        value = row.get(key)
        if value is None or value == "":
            continue
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            continue
        if number != 1 and not math.isnan(number):
            raise RowFault(
                key, f"a weight of {value} for the whole row cannot be heeded: leave the row out, or repeat it"
            )
