"""Settings that would do nothing, or something else than they say, are refused before anything runs."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.chain import deployment_spec, pretrain_spec, sft_spec
from llmops_assets.operations.specs import load_checked
from llmops_assets.specs.base import Spec, SpecError
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from tests.truth.conftest import fault
from tests.truth.table import Row

BASE = "corpus@v1|tiny-base-0011aabb"


def changed(spec: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The spec with values by dotted name (two underscores for a dot)."""
    for name, value in changes.items():
        part, names = spec, name.split("__")
        for step in names[:-1]:
            part = part.setdefault(step, {})
        part[names[-1]] = value
    return spec


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        fault("misspelt-setting", TrainJobSpec, changed(sft_spec(BASE), hyperparams__learning_rate=1e-4)),
        fault("rank-of-a-full-training", TrainJobSpec, changed(sft_spec(BASE), hyperparams__lora_rank=64)),
        fault("packing-that-does-nothing", TrainJobSpec, changed(pretrain_spec(), hyperparams__packing=True)),
        fault("judge-that-judges-nothing", TrainJobSpec, changed(pretrain_spec(), evaluation__judge="contains")),
        fault("half-precision-on-a-cpu", TrainJobSpec, changed(sft_spec(BASE), hyperparams__precision="bf16")),
        fault(
            "encoder-without-bertscore",
            TrainJobSpec,
            changed(sft_spec(BASE), evaluation__encoder="/models/bert", evaluation__metrics=["bleu"]),
        ),
        fault(
            "warm-up-without-a-schedule",
            TrainJobSpec,
            changed(sft_spec(BASE), hyperparams__scheduler="constant", hyperparams__warmup_steps=10),
        ),
        fault(
            "share-without-a-canary", DeploymentSpec, deployment_spec(rollout={"traffic_split": {"old": 50, "new": 50}})
        ),
    ],
)
def test_a_setting_without_effect_is_refused_by_its_name(
    tmp_path: Path, row: Row, kind: type[Spec], spec: dict[str, Any]
) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(spec, allow_unicode=True), encoding="utf-8")
    wiring = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    with pytest.raises(SpecError) as refusal:
        load_checked(wiring, file, kind)
    row.assert_says(str(refusal.value))
