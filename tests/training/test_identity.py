"""The names of trainings and merges: what changes them, and what does not."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import identity
from resources import worker_code
from resources.worker_code import CARRIERS, OURS, ROOT, closure, code_hash, imports_of, library_versions
from tests.training.conftest import pretrain_spec, sft_spec
from tests.training.job_data import job_spec

NO_ENGINES = Path("/nowhere")


def spec(recipe: dict[str, Any]) -> TrainJobSpec:
    return TrainJobSpec.from_recipe(recipe, "desk@v1")


SPECS = {
    "PRETRAIN": spec(pretrain_spec()),
    "SFT": spec(sft_spec("hf:x")),
    "RLHF": spec(job_spec("RLHF", "llama", "hf:x", "lora")),
    "EMBEDDING": spec(job_spec("EMBEDDING", "bert", "hf:x")),
    "RAG_TUNING": spec(job_spec("RAG_TUNING", "llama", "hf:x", "lora")),
}


SHARDED = spec({**sft_spec("hf:x"), "output": {"artifact_name": "tiny-desk", "save_format": "hf"}})


def identity_of(one: TrainJobSpec = SPECS["SFT"], **changes: Any) -> dict[str, str]:
    values = {
        "rows": "rows", "models": {"base": "b"}, "precision": "fp32", "processes": 1, "pooling": None,
        "image": None, "engines": NO_ENGINES, **changes,
    }  # fmt: skip
    return identity.training_identity(one, **values)


def test_the_key_changes_with_all_that_changes_the_weights() -> None:
    known = identity.key_of(identity_of())
    assert known == identity.key_of(identity_of()) and len(known) == 12
    changes: list[dict[str, Any]] = [
        {"rows": "other"}, {"models": {"base": "c"}}, {"models": {"reward": "b"}}, {"precision": "bf16"},
        {"processes": 2}, {"pooling": "mean"}, {"image": "name@sha256:ab"},
        {"template_date": "2026-11-30"},
        {"one": spec(sft_spec("hf:x", seed=1))}, {"one": spec(sft_spec("hf:x", max_steps=13))},
    ]  # fmt: skip
    others = {identity.key_of(identity_of(**change)) for change in changes}
    assert len(others) == len(changes) and known not in others


def test_the_key_does_not_change_with_where_things_lie_or_how_they_are_judged() -> None:
    known = identity_of()
    assert identity_of(spec(sft_spec("hf:/another/home/x"))) == known
    assert identity_of(spec({**sft_spec("hf:x"), "evaluation": {"max_new_tokens": 7}})) == known
    assert (
        identity_of(spec({**sft_spec("hf:x"), "output": {"artifact_name": "tiny-desk", "save_format": "hf"}})) == known
    )
    assert identity_of(engines=Path("/elsewhere")) == known
    assert not [value for value in known.values() if "/" in value]
    image = [identity_of(image=name)["worker"] for name in ("registry/a:1@sha256:ab", "other/b:2@sha256:ab")]
    assert image == ["sha256:ab"] * 2, "an image is named by what it holds, not by its name"


def test_of_each_job_type_its_own_modules_count_and_those_that_they_import() -> None:
    modules = {kind: set(identity.training_modules(one)) for kind, one in SPECS.items()}
    for kind in SPECS:
        assert {identity.PLANNER[kind], identity.TRAINER[kind], "images.train.session"} <= modules[kind]
        assert "llmops_assets.training.steps" in modules[kind], "how many steps it takes"
        assert not {"images.train.merge", "images.train.generate", "images.train.harness"} & modules[kind]
    assert "images.train.reward" in modules["RLHF"] and "images.train.reward" not in modules["SFT"]
    assert "images.train.tokenizer" in modules["PRETRAIN"] and "images.train.encoder" not in modules["PRETRAIN"]
    assert {"images.train.sft", "llmops_assets.training.reader"} <= modules["RAG_TUNING"]
    assert "images.train.rank" in identity.training_modules(SPECS["SFT"], processes=2)
    axolotl = identity.training_modules(spec({**sft_spec("hf:x"), "trainer": "axolotl"}))
    assert set(identity.AXOLOTL) <= set(axolotl) and "images.train.sft" not in axolotl
    assert "images.train.merge_encoder" in identity.merging_modules(SPECS["EMBEDDING"])
    assert "images.train.merge_encoder" not in identity.merging_modules(SPECS["SFT"])


def test_every_module_that_the_worker_reaches_counts_or_is_named_as_one_that_carries_bytes() -> None:
    todo, reached = ["images.train.__main__", "images.train.train", "images.train.plan"], set()
    todo += [*identity.TRAINER.values(), *identity.AXOLOTL]
    while todo:
        module = todo.pop()
        if module not in reached and module.split(".")[0] in OURS:
            reached.add(module)
            todo += imports_of(module)
    assert all(any(m == name or m.startswith(f"{name}.") for m in reached) for name in CARRIERS), "each is reached"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, which the identity is made of instead of them."""
    for name in OURS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: function(*args, root=tmp_path)

    monkeypatch.setattr(identity, "closure", within(closure))
    monkeypatch.setattr(identity, "code_hash", within(code_hash))
    return tmp_path


@pytest.mark.parametrize(
    ("module", "kinds", "merges"),
    [
        ("images/train/order.py", {"PRETRAIN", "SFT", "RLHF", "EMBEDDING", "RAG_TUNING"}, {"EMBEDDING", "RAG_TUNING"}),
        ("images/train/likelihood.py", {"RLHF"}, set()),
        ("images/train/tokenizer.py", {"PRETRAIN"}, set()),
        ("images/train/plan_encoder.py", {"EMBEDDING", "RAG_TUNING"}, {"EMBEDDING", "RAG_TUNING"}),
        ("llmops_assets/training/reader.py", {"RAG_TUNING"}, set()),
        ("llmops_assets/training/steps.py", set(SPECS), None),
        ("images/train/merge.py", set(), set(SPECS)),
        ("images/train/__main__.py", set(), set()),
        ("llmops_assets/training/report.py", set(), set()),
        ("llmops_assets/specs/training.py", set(), set()),
        ("resources/dataset_store.py", set(), set()),
    ],
)
def test_a_changed_helper_changes_the_names_of_what_it_helps_to_make_and_of_nothing_else(
    tree: Path, module: str, kinds: set[str], merges: set[str] | None
) -> None:
    def names() -> tuple[dict[str, str], dict[str, str]]:
        trained = {kind: identity_of(one)["worker"] for kind, one in SPECS.items()}
        merged = {
            kind: identity.merge_identity(one, weights="w", precision="fp32", image=None)["worker"]
            for kind, one in SPECS.items()
        }
        return trained, merged

    before = names()
    path = tree / module
    path.write_text(path.read_text() + "\n# A remark.\n", encoding="utf-8")
    assert names() == before, "a comment does nothing"
    path.write_text(path.read_text() + "\nCHANGED = 1\n", encoding="utf-8")
    trained, merged = names()
    assert {kind for kind in SPECS if trained[kind] != before[0][kind]} == kinds
    if merges is not None:
        assert {kind for kind in SPECS if merged[kind] != before[1][kind]} == merges


def test_another_version_of_a_library_is_another_training(monkeypatch: pytest.MonkeyPatch) -> None:
    known, merged = identity_of(), identity.merge_identity(SPECS["SFT"], weights="w", precision="fp32", image=None)
    assert "torch 2.13.0" in known["libraries"] and "trl " in known["libraries"]
    assert "bitsandbytes" not in known["libraries"]
    assert "bitsandbytes" in identity_of(spec(sft_spec("hf:x", "qlora")))["libraries"]
    there = worker_code._version
    monkeypatch.setattr(worker_code, "_version", lambda name: "9.9" if name == "trl" else there(name))
    later = identity_of()
    assert identity.key_of(later) != identity.key_of(known)
    assert identity.what_changed(known, later) == f"libraries: trl {there('trl')} became trl 9.9"
    assert identity.merge_identity(SPECS["SFT"], weights="w", precision="fp32", image=None) == merged
    assert "release" in identity.what_changed({}, later)
    assert identity.what_changed(known, {**known, "worker": "x", "precision": "bf16"}) == (
        "precision: fp32 became bf16; another worker"
    )


def test_the_libraries_of_axolotl_are_those_of_its_own_environment(tmp_path: Path) -> None:
    one = spec({**sft_spec("hf:x"), "trainer": "axolotl"})
    before = identity_of(one, engines=tmp_path)
    site = tmp_path / "axolotl" / "lib" / "python3.11" / "site-packages"
    for name, version in (("axolotl", "0.19.0"), ("torch", "2.13.0+cu126"), ("other", "1")):
        folder = site / f"{name}-{version}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    after = identity_of(one, engines=tmp_path)
    assert "axolotl/axolotl 0.19.0" in after["libraries"] and "axolotl/torch 2.13.0," in after["libraries"] + ","
    assert identity.key_of(after) != identity.key_of(before) and "other" not in after["libraries"]
    assert library_versions(["no-such-library"]) == {}


def test_how_a_watermark_is_made_is_part_of_what_is_trained_with_one(tree: Path) -> None:
    marked = spec({**sft_spec("hf:x"), "watermark": {}})
    before = [identity_of(one, image="a@sha256:b") for one in (marked, SPECS["SFT"])]
    path = tree / "llmops_assets" / "training" / "watermark.py"
    path.write_text(path.read_text() + "\nCHANGED = 1\n", encoding="utf-8")
    after = [identity_of(one, image="a@sha256:b") for one in (marked, SPECS["SFT"])]
    assert after[0] != before[0] and after[1] == before[1]


def test_what_is_merged_otherwise_is_named_otherwise() -> None:
    def key(one: TrainJobSpec = SPECS["SFT"], **changes: Any) -> str:
        return identity.key_of(
            identity.merge_identity(one, **{"weights": "w", "precision": "fp32", "image": None, **changes})
        )

    names = [key(), key(weights="v"), key(precision="bf16"), key(image="a@sha256:b"), key(SHARDED)]
    assert len(set(names)) == len(names)
