"""Finds the encoder of an index: a training's own, or a registered one, with the prompts that it was trained with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmops_assets.records.retrieval import IndexEncoder
from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.training import TrainJobSpec
from resources import content
from resources.catalog import Catalog
from resources.catalog.erasures import assert_not_affected
from resources.records import Records
from resources.tracking import Tracking

RETRIEVERS = ("EMBEDDING", "RAG_TUNING")
"""Job types that train an encoder that finds passages."""


class NoEncoder(ValueError):
    """Why there is no encoder to index by; the message says what to do."""


def encoder_of(
    cell: str, named: str | None, *, records: Records, tracking: Tracking, catalog: Catalog
) -> tuple[IndexEncoder, TrainJobSpec]:
    """The encoder that indexes the passages of `cell` (dataset|recipe), and the spec that it was trained by.

    `named` is a registered one (NAME@VERSION); without it, it is the one that this very cell trained. Raises NoEncoder,
    ModelAffected for one that learned erased rows, ContentChanged where its files are not what was recorded.
    """
    ref, trained = cell, cell
    if named is not None and "|" not in named:
        version = tracking.version(named)
        if version.state == "archived":
            raise NoEncoder(f"{version.ref} is archived: name another encoder")
        model = tracking.model(version.ref)
        ref, trained, path, recorded = (
            model.ref,
            training_key(model.dataset, model.recipe),
            model.path,
            model.content_hash,
        )
    else:
        ref = trained = named or cell
        merged = records.find(MergedModelRecord, trained)
        if merged is None:
            raise NoEncoder(f"{trained} has trained no encoder yet: train it, or name a registered one (--encoder)")
        path, recorded = merged.path, merged.content_hash
    spec = TrainJobSpec.model_validate(records.load(PlanRecord, trained).spec)
    if spec.job_type not in RETRIEVERS or spec.embedding is None:
        raise NoEncoder(f"{ref} was made by {spec.job_type}: an index needs one made by {' or '.join(RETRIEVERS)}")
    assert_not_affected(catalog, content_hash=recorded, cell=trained, ref=ref if ref != trained else None)
    content.verify(path, recorded, f"recorded as {ref}", "Restore it, or train it anew")
    folder = Path(path) / "retriever" if spec.job_type == "RAG_TUNING" else Path(path)
    return (
        IndexEncoder(
            ref=ref,
            path=str(folder),
            content_hash=content.content_hash(folder),
            query_prompt=spec.embedding.query_prompt,
            passage_prompt=spec.embedding.passage_prompt,
        ),
        spec,
    )


def recipe_of(named: str, tracking: Tracking) -> str:
    """The recipe that an encoder was trained by, as it is named: NAME@VERSION, DATASET|RECIPE or a recipe itself."""
    if "|" in named:
        return named.partition("|")[2]
    return tracking.model(named).recipe if "@" in named else named


def wanted_of(detail: Mapping[str, Any], given: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """What a build is asked for: what this run was given, then what was wanted, then the defaults."""
    defaults = {"encoder": None, "name": dataset.partition("@")[0], "passage_chars": 800}
    return {name: given.get(name) or detail.get(name) or default for name, default in defaults.items()}
