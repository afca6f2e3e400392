"""Names that users give to things, and the keys of partitions made from them."""

import re

STUDY_ACTOR = "study:"
"""Who asks for the trials of a hyperparameter search: this, and the study's name."""

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*")
_VERSIONED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<version>[A-Za-z0-9][A-Za-z0-9._-]*)")


def check_key(key: str) -> str:
    """Return `key` when it can be a partition key, else raise ValueError.

    Dagster joins the dimensions of a cell with ``|``, so a ``|`` inside a key would drop the cell without a word.
    """
    if not _KEY.fullmatch(key):
        raise ValueError(
            f"{key!r} cannot be a partition key: use Latin letters, digits, '.', '_', '@' and '-', "
            "starting with a letter or digit"
        )
    return key


def split_versioned(ref: str) -> tuple[str, str]:
    """Split ``name@version`` into its parts; raise ValueError when it is not of that form."""
    match = _VERSIONED.fullmatch(ref)
    if match is None:
        raise ValueError(f"{ref!r} is not a name and a version: write NAME@VERSION, for example support-desk@v1")
    return match["name"], match["version"]


def training_key(dataset: str, recipe: str) -> str:
    """The partition key of one training, ``dataset|recipe``, as Dagster writes it."""
    return f"{check_key(dataset)}|{check_key(recipe)}"


def plain_ref(ref: str) -> str:
    """A reference in one way of writing: ``desk@v1.0``, ``desk-v1.0`` and ``desk-1.0`` are all ``desk@1.0``."""
    name, mark, version = ref.partition("@") if "@" in ref else ref.rpartition("-")
    return f"{name}@{version.removeprefix('v')}" if mark else ref
