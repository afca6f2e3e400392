"""Names a training, and a merge, by all that decides the weights; says which part changed when a name did.

No part holds a path, a host or a date: a home that is copied elsewhere keeps its names.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from llmops_assets.records.jobs import AXOLOTL, PLANNER, TRAINER
from llmops_assets.specs.canonical import canonical_json
from llmops_assets.specs.training import TrainJobSpec
from resources.worker_code import closure, code_hash, library_versions

_CHOOSERS = {
    "images.train.plan": frozenset(PLANNER.values()),
    "images.train.merge": frozenset({"images.train.merge_encoder"}),
}
"""Modules that import what every job type needs, and of the rest one."""

TRAINING_LIBRARIES = (
    "accelerate", "datasets", "numpy", "peft", "safetensors", "tokenizers", "torch", "transformers", "trl",
)  # fmt: skip
MERGING_LIBRARIES = ("numpy", "peft", "safetensors", "tokenizers", "torch", "transformers")


def training_modules(spec: TrainJobSpec, *, processes: int = 1) -> list[str]:
    """The modules of ours that plan and train a job of a spec, which `processes` share."""
    trainers = AXOLOTL if spec.trainer == "axolotl" else (TRAINER[spec.job_type],)
    shared = ("images.train.rank",) if processes > 1 else ()
    entries = ("images.train.plan", PLANNER[spec.job_type], "images.train.train", *trainers, *shared)
    return closure(entries, _CHOOSERS)


def merging_modules(spec: TrainJobSpec) -> list[str]:
    """The modules of ours that make the servable model of a spec's weights."""
    encoders = ("images.train.merge_encoder",) if spec.job_type in ("EMBEDDING", "RAG_TUNING") else ()
    return closure(("images.train.merge", *encoders), _CHOOSERS)


def training_identity(
    spec: TrainJobSpec,
    *,
    rows: str,
    models: Mapping[str, str],
    precision: str,
    processes: int,
    pooling: str | None,
    image: str | None,
    engines: Path,
    template_date: str | None = None,
) -> dict[str, str]:
    """All that decides the weights, by part.

    `rows` is the hash of the rows, `models` the content hashes of the models that it starts from or asks, `precision`
    that of the computation, `image` what the worker runs in (None: a process of this machine), `engines` the folder
    of the trainers with an environment of their own, and `template_date` what a chat template that asks for today is
    told; None where it does not ask.
    """
    # The rows of a watermark are made by the platform, whatever the worker runs in.
    marks = {"marks": code_hash(closure(["llmops_assets.training.watermark"]))} if spec.watermark else {}
    return {
        "rows": rows,
        **marks,
        "recipe": _digest(canonical_json(spec.weights_recipe())),
        "models": _listed(models),
        "precision": precision,
        "processes": str(processes),
        "pooling": pooling or "",
        **({"template date": template_date} if template_date else {}),
        **_worker(image, training_modules(spec, processes=processes), _training_libraries(spec, engines)),
    }


def merge_identity(spec: TrainJobSpec, *, weights: str, precision: str, image: str | None) -> dict[str, str]:
    """All that decides the servable model that is made of trained weights of the hash `weights`, by part."""
    libraries = [*MERGING_LIBRARIES]
    libraries += ["bitsandbytes"] if spec.method == "qlora" else []
    libraries += ["sentence-transformers"] if spec.job_type in ("EMBEDDING", "RAG_TUNING") else []
    return {
        "weights": weights,
        "precision": precision,
        "format": spec.output.save_format,
        **_worker(image, merging_modules(spec), library_versions(libraries)),
    }


def key_of(identity: Mapping[str, str]) -> str:
    """12 hex digits of an identity: equal key, equal model."""
    return _digest(canonical_json(dict(identity)))[:12]


def what_changed(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words, which parts of an identity are not what they were; `before` is empty for one of an earlier release."""
    if not before:
        return "it was planned by an earlier release, whose keys did not see the worker's helpers and libraries"
    parts = []
    for name in now:
        if before.get(name) == now[name]:
            continue
        old, new = (set(part.get(name, "").split(", ")) - {""} for part in (before, now))
        if name in ("libraries", "models", "precision", "processes", "pooling", "format", "template date"):
            was, became = (", ".join(sorted(items)) or "none" for items in (old - new, new - old))
            parts.append(f"{name}: {was} became {became}")
        else:
            parts.append(f"another {name}")
    return "; ".join(parts)


def _worker(image: str | None, modules: Iterable[str], libraries: Mapping[str, str]) -> dict[str, str]:
    if image is not None:
        # What the image holds is named by its digest: our modules and the libraries too.
        return {"worker": image.rsplit("@", 1)[-1]}
    return {"worker": code_hash(modules), "libraries": _listed(libraries)}


def _training_libraries(spec: TrainJobSpec, engines: Path) -> dict[str, str]:
    libraries = [*TRAINING_LIBRARIES, *(["bitsandbytes"] if spec.method == "qlora" else [])]
    if (spec.resources.sharding or "").startswith("zero"):
        libraries.append("deepspeed")
    found = library_versions(libraries)
    if spec.trainer == "axolotl":
        there = library_versions([*libraries, "axolotl"], engines / "axolotl")
        found |= {f"axolotl/{name}": version for name, version in there.items()}
    return found


def _listed(named: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(named.items()))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
