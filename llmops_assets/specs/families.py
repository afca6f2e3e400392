"""Families of models: what a config.json must show to be one of them."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from llmops_assets.specs.base import Float, Int, Part, SpecError, SpecFault, Text
from llmops_assets.specs.job_types import JobType

FAMILY_VERSION_KEY = "llmops_family_version"
"""Key of config.json under which a PRETRAIN job writes the version of the family that it follows."""


class VersionSign(Part):
    """What a config.json must show for a model to count as at least `version`."""

    version: Text
    vocab_size_at_least: Int | None = None
    rope_theta_at_least: Float | None = None
    rope_type: Text | None = None


class Family(Part):
    """A family of base models: how it is recognised, and what may be trained of it."""

    architectures: list[Text] = Field(min_length=1)
    encoder_architectures: list[Text] = Field(
        default_factory=list, description="Without a language head; for EMBEDDING only."
    )
    model_types: list[Text] = Field(min_length=1)
    job_types: list[JobType] = Field(min_length=1)
    min_version: Text | None = None
    version_signs: list[VersionSign] = Field(default_factory=list, description="Strongest first.")
    rule: Text = Field(description="The rule in words, for messages.")


def verify_family(families: Mapping[str, Family], family: str, config: dict[str, Any], job_type: JobType) -> None:
    """Check by a model's own config.json that it is of `family` and may be used for `job_type`.

    A family with `min_version` wants a version. A model made by a PRETRAIN job states the one whose design it follows
    under ``llmops_family_version``; of any other model the first of the family's `version_signs` that config.json
    fulfils counts. No sign, no version: the model is refused rather than trusted by its name.

    Raises SpecError with every reason.
    """
    rules = families.get(family)
    if rules is None:
        known = ", ".join(families)
        raise SpecError([SpecFault("model_family", f"'{family}' is not a family of the policy", f"Allowed: {known}")])
    faults = []
    if job_type not in rules.job_types:
        faults.append(
            SpecFault("job_type", f"{family} is not allowed for {job_type}", f"It is for {', '.join(rules.job_types)}")
        )
    allowed = rules.architectures + (rules.encoder_architectures if job_type == "EMBEDDING" else [])
    architectures = config.get("architectures")
    named = [architectures] if isinstance(architectures, str) else architectures or []
    if not named or any(name not in allowed for name in named):
        faults.append(
            SpecFault(
                "config.architectures",
                f"{', '.join(map(str, named)) or 'no architecture'} in the model's config.json is not {family}",
                f"{family} means: {rules.rule}",
            )
        )
    elif (model_type := config.get("model_type")) not in rules.model_types:
        faults.append(
            SpecFault(
                "config.model_type",
                f"the model's config.json says {model_type!r} beside {named[0]}",
                f"Expected one of {', '.join(rules.model_types)}: the config is not that of a {family} model",
            )
        )
    elif rules.min_version:
        faults += _version_faults(family, rules, config)
    if faults:
        raise SpecError(faults)


def _version_faults(family: str, rules: Family, config: dict[str, Any]) -> list[SpecFault]:
    version = family_version(rules, config)
    if version is None:
        return [
            SpecFault(
                "config",
                f"nothing in the model's config.json shows {family} {rules.min_version} or later",
                f"{rules.rule} If it is such a model all the same, add "
                f'"{FAMILY_VERSION_KEY}": "{rules.min_version}" to its config.json',
            )
        ]
    if _numbers(version) < _numbers(rules.min_version or "0"):
        return [
            SpecFault(
                "config",
                f"the model is {family} {version}, but the policy wants {rules.min_version} or later",
                "Choose a newer base model",
            )
        ]
    return []


def family_version(rules: Family, config: dict[str, Any]) -> str | None:
    """The version of its family that a model's config.json states or shows, or None when it shows none."""
    stated = config.get(FAMILY_VERSION_KEY)
    if isinstance(stated, (str, int, float)) and _numbers(str(stated)):
        return str(stated)
    # transformers 5 writes `rope_parameters`; the releases before it `rope_theta` and `rope_scaling`.
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta", config.get("rope_theta")) or 0
    kind = rope.get("rope_type", rope.get("type"))
    for sign in rules.version_signs:
        if (
            (config.get("vocab_size") or 0) >= (sign.vocab_size_at_least or 0)
            and theta >= (sign.rope_theta_at_least or 0)
            and sign.rope_type in (None, kind)
        ):
            return sign.version
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """``"3.1"`` as ``(3, 1, 0)``; empty when it is no version of at most three numbers."""
    parts = version.split(".")
    if len(parts) > 3 or not all(part.isdecimal() for part in parts):
        return ()
    return tuple(map(int, parts)) + (0,) * (3 - len(parts))
