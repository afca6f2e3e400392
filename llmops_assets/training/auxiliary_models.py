"""Finds the other models that a job needs beside its base (a reward model, a retriever) and how an encoder pools."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmops_assets.records.training import BaseModelRecord, PlanRecord
from llmops_assets.specs.base_ref import parse_base_ref
from llmops_assets.specs.jobs import Pooling
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.base import (
    BaseModelError,
    Sources,
    locate,
    read_config,
    record_of,
    resolve,
    verify_unchanged,
)

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
}


def auxiliary_models(
    spec: TrainJobSpec, policy: Policy, sources: Sources, plan: Callable[[str], PlanRecord]
) -> dict[str, BaseModelRecord]:
    """The models that `spec` names beside its base, verified and hashed: reward, retriever.

    `plan` gives the plan of an earlier training by its key. Raises BaseModelError, or SpecError for another family.
    """
    if spec.rlhf is not None and spec.rlhf.reward_model_ref is not None:
        return {"reward": _reward(spec.rlhf.reward_model_ref, policy, sources, plan)}
    if spec.rag is not None:
        ref = spec.rag.retriever_model_ref
        try:
            folder, _ = locate(ref, parse_base_ref(ref), sources)
        except (LookupError, FileNotFoundError) as error:
            raise BaseModelError(f"rag.retriever_model_ref {ref!r} is not there: {error}") from error
        family = encoder_family(read_config(folder), policy)
        return {"retriever": resolve(ref, family=family, job_type="EMBEDDING", policy=policy, sources=sources)}
    return {}


def encoder_family(config: dict[str, Any], policy: Policy) -> str:
    """The family of the policy that an encoder belongs to by its config.json; BaseModelError when it is of none."""
    kind = config.get("model_type")
    for name, family in policy.families.items():
        if kind in family.model_types and "EMBEDDING" in family.job_types:
            return name
    able = ", ".join(name for name, family in policy.families.items() if "EMBEDDING" in family.job_types)
    raise BaseModelError(f"a model of type {kind!r} is no encoder that the policy allows: choose one of {able}")


def _reward(ref: str, policy: Policy, sources: Sources, plan: Callable[[str], PlanRecord]) -> BaseModelRecord:
    """The reward model that `ref` names; an earlier RLHF training is asked for the one that it trained first."""
    parsed = parse_base_ref(ref)
    try:
        if parsed.source in ("training", "registry"):
            key = parsed.training_key
            if parsed.source == "registry":
                model = sources.model(ref)
                key = f"{model.dataset}|{model.recipe}"
            folder, approved = Path(plan(key).model_dir) / "reward", None
            if folders.facts(folder) is None:
                raise BaseModelError(
                    f"{ref!r} trained no reward model of its own: name an RLHF training by rloo or grpo that did "
                    "(reward_model_ref: null), or a registered one"
                )
        else:
            folder, approved = locate(ref, parsed, sources)
    except (LookupError, FileNotFoundError) as error:
        raise BaseModelError(f"rlhf.reward_model_ref {ref!r} is not there: {error}") from error
    config = read_config(folder)
    verify_reward(config, policy, ref)
    files = verify_unchanged(ref, folder, approved, sources, "reward")
    return record_of(ref, reward_family(config, policy) or "", folder, config, approved, files)


def reward_family(config: dict[str, Any], policy: Policy) -> str | None:
    """The family whose members a reward model is made of, by its config.json."""
    kind = config.get("model_type")
    allowed = (n for n, f in policy.families.items() if kind in f.model_types and "RLHF" in f.job_types)
    return next(allowed, None)


def is_reward(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a model which gives a score for a text."""
    named = config.get("architectures") or []
    return any(str(name).endswith("ForSequenceClassification") for name in named)


def verify_reward(config: dict[str, Any], policy: Policy, ref: str) -> None:
    """Check by its own config.json that a model gives one number for a text, and is of an allowed family."""
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if not is_reward(config) or labels != 1:
        named = ", ".join(map(str, config.get("architectures") or ["nothing"]))
        raise BaseModelError(
            f"{ref!r} is no reward model: its config.json says {named} with {labels} labels, but a reward model is a "
            "…ForSequenceClassification with one"
        )
    if reward_family(config, policy) is None:
        raise BaseModelError(f"{ref!r} is of type {config.get('model_type')!r}, which the policy allows for no RLHF")


def pooling_of(asked: Pooling | None, folder: Path) -> Pooling:
    """How the encoder in `folder` is pooled: as it was trained where it says so, else as asked, else by its kind.

    Raises BaseModelError when that is another than asked, or when the encoder has parts that are not trained here.
    """
    modules = folder / "modules.json"
    config = read_config(folder)
    if not modules.exists():
        return asked or ("mean" if config.get("model_type") == "bert" else "lasttoken")
    own: Pooling | None = None
    for part in json.loads(modules.read_text(encoding="utf-8")):
        kind = str(part["type"]).rpartition(".")[2]
        if kind == "Pooling":
            own = _own_pooling(folder / part["path"] / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise BaseModelError(f"{folder} has a {kind} layer behind its pooling, which is not trained here")
    if own is None:
        raise BaseModelError(f"{folder} does not say how it is pooled: look at its modules.json")
    if asked not in (None, own):
        raise BaseModelError(
            f"{folder} was trained with {own} pooling, but embedding.pooling is {asked}: another pooling than the one "
            "that it learned makes its vectors meaningless. Leave embedding.pooling out"
        )
    return own


def _own_pooling(path: Path) -> Pooling:
    pooling_config = json.loads(path.read_text(encoding="utf-8"))
    name = pooling_config.get("pooling_mode") or next(
        (n for key, n in _LEGACY_POOLING.items() if pooling_config.get(key)), None
    )
    if name not in _LEGACY_POOLING.values():
        raise BaseModelError(f"{path} pools by {name}: there are {', '.join(_LEGACY_POOLING.values())}")
    return name
