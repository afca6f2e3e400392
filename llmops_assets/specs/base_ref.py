"""Where a base model comes from, as a spec names it."""

import re
from dataclasses import dataclass
from typing import Literal

from llmops_assets.specs.base import NAME_PATTERN, REF_PATTERN


@dataclass(frozen=True)
class BaseRef:
    """Where a base model comes from.

    `source` is ``hf`` (a local folder or a hub id in `name`), ``training`` (`dataset` and `recipe` of an earlier
    one), ``registry`` (`name` and a version or alias in `version`) or ``name`` (a registered base model).
    """

    source: Literal["hf", "training", "registry", "name"]
    name: str = ""
    version: str = ""
    dataset: str = ""
    recipe: str = ""

    @property
    def training_key(self) -> str:
        return f"{self.dataset}|{self.recipe}"


def parse_base_ref(ref: str) -> BaseRef:
    """Read a base_model_ref: ``hf:PATH_OR_ID``, ``DATASET@VERSION|RECIPE``, ``NAME@VERSION``, ``NAME@ALIAS``, ``NAME``.

    Raises ValueError when it is none of these.
    """
    if ref.startswith("hf:") and ref.removeprefix("hf:").strip():
        return BaseRef("hf", name=ref.removeprefix("hf:").strip())
    if "|" in ref:
        dataset, _, recipe = ref.partition("|")
        if re.fullmatch(REF_PATTERN, dataset) and re.fullmatch(NAME_PATTERN, recipe):
            return BaseRef("training", dataset=dataset, recipe=recipe)
    elif re.fullmatch(REF_PATTERN, ref):
        name, _, version = ref.partition("@")
        return BaseRef("registry", name=name, version=version)
    elif re.fullmatch(NAME_PATTERN, ref):
        return BaseRef("name", name=ref)
    raise ValueError(f"{ref!r} names no model")


BASE_REF_HINT = (
    "Write hf:<folder or hub id>, <dataset>@<version>|<recipe> of an earlier training, "
    "<name>@<version or alias> of the registry, or the name of a registered base model"
)
