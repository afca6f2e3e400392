"""What `llmops tune` may vary: a range or choices for each hyperparameter, in the block `search` of a spec."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from llmops_assets.specs.base import Bool, Float, Int, Part, Rule, Text, View

RANGES = (
    "lr",
    "batch_size",
    "num_epochs",
    "max_steps",
    "gradient_accumulation_steps",
    "warmup_steps",
    "warmup_ratio",
    "weight_decay",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
)
CHOICES = (*RANGES, "scheduler", "target_modules", "train_embeddings")
_INCOMPARABLE = {
    "max_seq_len": "it decides which tokens the validation loss is taken over",
    "overlong": "it decides which rows the validation loss is taken over",
    "packing": "it decides how rows are cut for the validation loss",
    "seed": "the best of several seeds is luck, not a better recipe",
    "precision": "the device decides it",
}


class SearchRange(Part):
    """`low` and `high` (both may be tried), on a logarithmic scale with `log`; or `choices`."""

    low: Float | Int | None = None
    high: Float | Int | None = None
    log: Bool = False
    step: Float | Int | None = Field(default=None, gt=0, description="Distance between values; not with log.")
    choices: list[Int | Float | Bool | Text | list[Text]] | None = None


Search = Annotated[
    dict[str, SearchRange],
    Field(description="Ranges for `llmops tune`: {lr: {low: 1e-5, high: 1e-3, log: true}, lora_rank: {choices: […]}}."),
]


def search_rules(view: View, hyperparams: type[BaseModel]) -> Iterator[Rule]:
    """What is wrong in the block `search`, whose names are fields of `hyperparams`."""
    found = view.get("search", Mapping)
    if found is None:
        return
    if not found:
        yield "search", "names no hyperparameter", "Add one, such as lr: {low: 1.0e-5, high: 1.0e-3, log: true}"
    method = view.get("method", str)
    for name in found:
        path = f"search.{name}"
        if name in _INCOMPARABLE:
            yield path, f"cannot be searched: {_INCOMPARABLE[name]}", "Remove it"
        elif name not in CHOICES:
            yield path, "is no hyperparameter that can be searched", f"Known here: {', '.join(CHOICES)}"
        elif method == "full" and name.startswith(("lora_", "target_")):
            yield path, "has no effect with method full", "Remove it, or write method: lora"
        else:
            yield from _range_rules(path, name, view, hyperparams)
    if "warmup_steps" in found and ("warmup_ratio" in found or view.get("hyperparams.warmup_ratio") is not None):
        yield "search.warmup_steps", "contradicts warmup_ratio", "Keep one of the two"


def _range_rules(path: str, name: str, view: View, hyperparams: type[BaseModel]) -> Iterator[Rule]:
    choices, low, high = (view.get(f"{path}.{part}") for part in ("choices", "low", "high"))
    if choices is not None:
        if low is not None or high is not None:
            yield path, "has both choices and a range", "Keep one of the two"
        elif not choices:
            yield f"{path}.choices", "is empty", "Name at least two values"
        for value in choices:
            if refusal := _refused(name, value, hyperparams):
                yield f"{path}.choices", f"{value!r} cannot be {name}: {refusal}", ""
        return
    if name not in RANGES:
        yield path, "is no number, so it has no range", f"Write {name}: {{choices: […]}}"
        return
    low, high = view.number(f"{path}.low"), view.number(f"{path}.high")
    if low is None or high is None:
        yield path, "needs low and high, or choices", f"Write {name}: {{low: …, high: …}}"
        return
    for part, value in (("low", low), ("high", high)):
        if refusal := _refused(name, value, hyperparams):
            yield f"{path}.{part}", f"{value!r} cannot be {name}: {refusal}", ""
    if low >= high:
        yield f"{path}.high", f"{high:g} is not above low {low:g}", "Exchange them, or widen the range"
    if view.get(f"{path}.log", bool):
        if low <= 0:
            yield f"{path}.low", f"{low:g} has no logarithm", "Raise it above 0, or remove log"
        if view.get(f"{path}.step") is not None:
            yield f"{path}.step", "has no meaning on a logarithmic scale", "Remove it, or remove log"
    elif name in ("batch_size", "max_steps", "gradient_accumulation_steps", "warmup_steps", "lora_rank"):
        step = view.get(f"{path}.step")
        if step is not None and step != int(step):
            yield f"{path}.step", f"{step:g} is no whole number, but {name} is", "Write a whole number"


def _refused(name: str, value: Any, hyperparams: type[BaseModel]) -> str | None:
    field = hyperparams.model_fields[name]
    kind = TypeAdapter(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)
    try:
        kind.validate_python(value)
    except ValidationError as error:
        return error.errors(include_url=False)[0]["msg"].removeprefix("Input ")
    return "it needs a value" if value is None else None
