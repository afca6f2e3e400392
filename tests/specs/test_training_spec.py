"""The rules of a training job: what each job type needs, what it refuses, and that everything is said at once."""

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops_assets.specs.base_ref import BaseRef, parse_base_ref
from llmops_assets.specs.rules import check_base, check_dataset, image_for
from llmops_assets.specs.training import TrainJobSpec
from tests.specs.builders import GONE, JOBS, POLICY, faults_in, fields_of, job, training_faults


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_each_type_is_accepted(name):
    assert faults_in(TrainJobSpec, job(name)) == []


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("missing", ["lr", "batch_size", "num_epochs", "max_seq_len"])
def test_the_four_hyperparameters_are_required(name, missing):
    assert training_faults(name, **{f"hyperparams__{missing}": GONE}) == [f"hyperparams.{missing}"]


@pytest.mark.parametrize(
    "missing", ["job_type", "model_family", "dataset_ref", "method", "hyperparams", "resources", "output"]
)
def test_a_missing_field_is_named(missing):
    assert training_faults("SFT", **{missing: GONE}) == [missing]
    assert training_faults("SFT", **{missing: 3}) == [missing]


def test_a_job_type_that_is_none_brings_no_rules_of_others():
    assert training_faults("SFT", job_type="stf", base_model_ref=None) == ["job_type"]


@pytest.mark.parametrize("ref", [3, ["a"], {"name": "a"}])
def test_a_base_model_is_named_by_text(ref):
    assert training_faults("SFT", base_model_ref=ref) == ["base_model_ref"]


@pytest.mark.parametrize("block", [3, "x", [1], None])
def test_hyperparameters_that_are_no_block_are_one_fault(block):
    for name in JOBS:
        assert training_faults(name, hyperparams=block) == ["hyperparams"]


@pytest.mark.parametrize("name", ["SFT", "RAG_TUNING", "RLHF", "EMBEDDING"])
@pytest.mark.parametrize("base", [None, GONE])
def test_only_pretraining_goes_without_a_base_model(name, base):
    assert training_faults(name, base_model_ref=base) == ["base_model_ref"]


def test_pretraining_takes_no_base_model():
    assert training_faults("PRETRAIN", base_model_ref="llama-3-8b") == ["base_model_ref"]
    assert training_faults("PRETRAIN", base_model_ref=GONE) == []


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_pretraining_trains_every_weight(method):
    assert training_faults("PRETRAIN", method=method) == ["method"]


@pytest.mark.parametrize("name", ["SFT", "RAG_TUNING", "RLHF"])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_other_jobs_take_every_method(name, method):
    assert training_faults(name, method=method) == []


@pytest.mark.parametrize(("name", "block"), [("RAG_TUNING", "rag"), ("RLHF", "rlhf")])
def test_the_block_of_a_job_type_is_required_there(name, block):
    assert training_faults(name, **{block: GONE}) == [block]


@pytest.mark.parametrize("block", ["rag", "rlhf"])
def test_the_block_of_another_job_type_is_refused(block):
    owner = {"rag": "RAG_TUNING", "rlhf": "RLHF"}[block]
    for name in set(JOBS) - {owner}:
        assert training_faults(name, **{block: JOBS[owner][block]}) == [block], name


@pytest.mark.parametrize("block", ["architecture", "tokenizer"])
@pytest.mark.parametrize("name", ["SFT", "RAG_TUNING", "RLHF", "EMBEDDING"])
def test_a_model_is_designed_in_pretraining_only(name, block):
    assert training_faults(name, **{block: {}}) == [block]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("RAG_TUNING", "rag.retriever_type"),
        ("RAG_TUNING", "rag.retriever_model_ref"),
        ("RLHF", "rlhf.reward_model_ref"),
        ("RLHF", "rlhf.kl_coeff"),
        ("RLHF", "rlhf.ppo_steps"),
    ],
)
def test_every_field_of_a_job_types_block_is_required(name, path):
    assert training_faults(name, **{path.replace(".", "__"): GONE}) == [path]


def test_a_reward_model_may_be_left_to_the_job_when_it_is_said():
    assert training_faults("RLHF", rlhf__reward_model_ref=None) == []
    assert training_faults("RLHF", rlhf__reward_model_ref=None, rlhf__reward_lr=1e-4) == []
    assert training_faults("RLHF", rlhf__reward_lr=1e-4) == ["rlhf.reward_lr"]
    keys = [
        TrainJobSpec.model_validate(job("RLHF", rlhf__reward_model_ref=None, **more)).recipe_key()
        for more in ({}, {"rlhf__reward_lr": 1e-4})
    ]
    assert keys[0] != keys[1]


def test_what_has_no_effect_in_preference_training_is_refused_all_at_once():
    dpo = {"reward_model_ref": "rm", "kl_coeff": 0.0, "ppo_steps": 5, "algorithm": "dpo", "temperature": 0.5}
    assert set(training_faults("RLHF", rlhf=dpo)) == {
        "rlhf.ppo_steps",
        "rlhf.reward_model_ref",
        "rlhf.temperature",
        "rlhf.kl_coeff",
    }
    assert training_faults("RLHF", rlhf={"reward_model_ref": None, "kl_coeff": 0.1, "algorithm": "dpo"}) == []
    broken = {"hyperparams__batch_size": 3, "rlhf__max_new_tokens": 2048, "hyperparams__eval_steps": 5}
    assert set(training_faults("RLHF", **broken)) == {
        "rlhf.num_generations",
        "rlhf.max_new_tokens",
        "hyperparams.eval_steps",
    }


def test_an_encoder_needs_other_rows_in_its_batch_and_a_reader_a_whole_template():
    assert training_faults("EMBEDDING", hyperparams__batch_size=1) == ["hyperparams.batch_size"]
    assert training_faults("EMBEDDING", hyperparams__packing=True) == ["hyperparams.packing"]
    assert training_faults("RAG_TUNING", rag__template="{question} {question}") == ["rag.template"] * 2
    assert training_faults("SFT", embedding={}) == ["embedding"]


@pytest.mark.parametrize("name", ["RAG_TUNING", "RLHF"])
def test_long_sequences_are_refused_where_the_policy_says_so(name):
    assert training_faults(name, hyperparams__max_seq_len=4096) == []
    assert training_faults(name, hyperparams__max_seq_len=4097) == ["hyperparams.max_seq_len"]
    assert training_faults("SFT", hyperparams__max_seq_len=4097) == []


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("PRETRAIN", {"llama", "mistral", "gemma", "qwen"}),
        ("SFT", {"llama", "mistral", "gemma", "qwen"}),
        ("RAG_TUNING", {"llama", "mistral", "qwen"}),
        ("RLHF", {"llama", "mistral", "gemma", "qwen"}),
        ("EMBEDDING", {"mistral", "qwen", "bert"}),
    ],
)
def test_families_are_those_of_the_job_type(name, allowed):
    for family in ("llama", "mistral", "gemma", "qwen", "bert", "phi", "Llama"):
        assert training_faults(name, model_family=family) == ([] if family in allowed else ["model_family"]), family


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("job_type", "sft"),
        ("method", "dora"),
        ("trainer", "unsloth"),
        ("dataset_ref", "desk"),
        ("dataset_ref", "desk@"),
        ("dataset_ref", "desk@v1|x"),
        ("base_model_ref", "a|b|c"),
        ("base_model_ref", "hf:"),
        ("base_model_ref", "desk|recipe"),
        ("base_model_ref", ""),
        ("hyperparams.lr", 0),
        ("hyperparams.lr", -1e-4),
        ("hyperparams.lr", float("nan")),
        ("hyperparams.lr", float("inf")),
        ("hyperparams.lr", "fast"),
        ("hyperparams.lr", True),
        ("hyperparams.batch_size", 0),
        ("hyperparams.batch_size", 4.5),
        ("hyperparams.batch_size", "4"),
        ("hyperparams.batch_size", True),
        ("hyperparams.num_epochs", 0),
        ("hyperparams.max_seq_len", 1),
        ("hyperparams.max_steps", 0),
        ("hyperparams.gradient_accumulation_steps", 0),
        ("hyperparams.warmup_ratio", 1.5),
        ("hyperparams.weight_decay", -1),
        ("hyperparams.scheduler", "quadratic"),
        ("hyperparams.lora_rank", 0),
        ("hyperparams.lora_alpha", 0),
        ("hyperparams.lora_dropout", 1),
        ("hyperparams.target_modules", []),
        ("hyperparams.precision", "fp64"),
        ("hyperparams.seed", -1),
        ("hyperparams.packing", "yes"),
        ("hyperparams.save_steps", 0),
        ("hyperparams.eval_steps", 0),
        ("hyperparams.early_stopping", {"patience": 0}),
        ("resources.gpus", -1),
        ("resources.gpus", 9),
        ("resources.nodes", 0),
        ("resources.nodes", 5),
        ("output.artifact_name", "a|b"),
        ("output.artifact_name", "../up"),
        ("output.artifact_name", "-x"),
        ("output.save_format", "gguf"),
        ("evaluation.suites", ["kobest"]),
        ("evaluation.judge", "vibes"),
        ("evaluation.max_new_tokens", 0),
    ],
)
def test_a_bad_value_is_a_fault_of_its_field(path, bad):
    found = training_faults("SFT", **{path.replace(".", "__"): bad})
    assert found, "accepted"
    assert all(field.startswith(path) for field in found)


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("architecture.hidden_size", 130),
        ("architecture.num_heads", 3),
        ("architecture.num_kv_heads", 3),
        ("architecture.vocab_size", 300),
        ("architecture.initializer_range", 0),
        ("tokenizer.vocab_size", 100),
    ],
)
def test_a_design_that_cannot_be_built_is_refused(path, bad):
    assert training_faults("PRETRAIN", **{path.replace(".", "__"): bad})


def test_a_design_must_hold_the_rows_it_is_trained_on():
    changes = {"architecture__max_position_embeddings": 1024}
    assert training_faults("PRETRAIN", **changes) == ["hyperparams.max_seq_len"]
    spec = TrainJobSpec.model_validate(job("PRETRAIN"))
    assert spec.architecture.max_position_embeddings == spec.hyperparams.max_seq_len == 2048


@pytest.mark.parametrize("name", ["lora_rank", "lora_alpha", "lora_dropout", "target_modules", "train_embeddings"])
def test_a_setting_without_effect_is_refused(name):
    value = {"target_modules": "all-linear", "train_embeddings": True, "lora_dropout": 0.1}.get(name, 8)
    assert training_faults("SFT", method="full", **{f"hyperparams__{name}": value}) == [f"hyperparams.{name}"]
    assert training_faults("SFT", method="lora", **{f"hyperparams__{name}": value}) == []


def test_warm_up_is_given_once_and_to_a_schedule_that_has_one():
    both = {"hyperparams__warmup_steps": 10, "hyperparams__warmup_ratio": 0.1}
    assert training_faults("SFT", **both) == ["hyperparams.warmup_ratio"]
    one = {"hyperparams__warmup_steps": 10, "hyperparams__scheduler": "constant"}
    assert training_faults("SFT", **one) == ["hyperparams.scheduler"]


def test_early_stopping_needs_the_best_checkpoint():
    stopping = {"hyperparams__early_stopping": {}, "hyperparams__save_steps": 100}
    assert training_faults("SFT", **stopping, hyperparams__eval_steps=30) == ["hyperparams.save_steps"]
    spec = TrainJobSpec.model_validate(job("SFT", **stopping))
    assert spec.hyperparams.eval_steps == 100


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_an_adapter_has_its_defaults_written_out(method):
    hyper = TrainJobSpec.model_validate(job("SFT", method=method)).hyperparams
    assert (hyper.lora_rank, hyper.lora_alpha, hyper.lora_dropout) == (16, 32.0, 0.0)
    assert hyper.target_modules == "all-linear"
    assert TrainJobSpec.model_validate(job("SFT", hyperparams__lora_rank=4)).hyperparams.lora_alpha == 8.0
    assert TrainJobSpec.model_validate(job("SFT", method="full")).hyperparams.lora_rank is None


def test_blocks_may_be_given_as_objects():
    whole = TrainJobSpec.model_validate(job("SFT", evaluation={"suites": ["questions@v1"]}))
    parts = {name: getattr(whole, name) for name in TrainJobSpec.model_fields}
    assert TrainJobSpec(**parts) == whole
    assert TrainJobSpec.model_validate(whole) is whole
    found = fields_of(TrainJobSpec, {**parts, "method": "full"})
    assert found == [f"hyperparams.{name}" for name in ("lora_alpha", "lora_dropout", "lora_rank", "target_modules")]


@pytest.mark.parametrize("data", [None, 3, "SFT", []])
def test_what_is_no_block_is_no_job(data):
    with pytest.raises(ValidationError):
        TrainJobSpec.model_validate(data)


def test_a_minus_before_zero_is_no_other_setting():
    keys = {TrainJobSpec.model_validate(job("SFT", hyperparams__weight_decay=x)).recipe_key() for x in (0, 0.0, -0.0)}
    assert len(keys) == 1


def test_precision_follows_the_device():
    assert TrainJobSpec.model_validate(job("SFT")).hyperparams.precision == "bf16"
    assert TrainJobSpec.model_validate(job("SFT", resources={"gpus": 0})).hyperparams.precision == "fp32"
    assert training_faults("SFT", resources={"gpus": 0}, hyperparams__precision="fp16") == ["hyperparams.precision"]
    assert training_faults("SFT", resources={"gpus": 0, "gpu_type": "h100"}) == ["resources.gpu_type"]


def test_axolotl_trains_no_embeddings():
    assert training_faults("EMBEDDING", trainer="axolotl") == ["trainer"]
    assert training_faults("SFT", trainer="axolotl") == []


def test_all_faults_are_reported_at_once_whatever_their_kind():
    data = job(
        "RAG_TUNING",
        model_family="gemma",
        method="dora",
        base_model_ref=None,
        dataset_ref="qa",
        hyperparams={"lr": "fast", "max_seq_len": 8192, "batchsize": 4, "warmup_steps": 1, "warmup_ratio": 0.1},
        rlhf=JOBS["RLHF"]["rlhf"],
        rag=GONE,
        output={},
        image="mine:latest",
    )
    assert fields_of(TrainJobSpec, data) == sorted(
        [
            "base_model_ref",
            "dataset_ref",
            "hyperparams.batch_size",
            "hyperparams.batchsize",
            "hyperparams.lr",
            "hyperparams.max_seq_len",
            "hyperparams.num_epochs",
            "hyperparams.warmup_ratio",
            "image",
            "method",
            "model_family",
            "output.artifact_name",
            "rag",
            "rlhf",
        ]
    )


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("block", ["", "hyperparams", "resources", "output", "evaluation"])
def test_unknown_keys_are_refused_with_the_nearest_known_one(name, block):
    near = {"": "trainr", "hyperparams": "batch_sise", "resources": "gpu", "output": "artifactname"}
    key = near.get(block, "suite")
    path = f"{block}.{key}" if block else key
    (fault,) = faults_in(TrainJobSpec, job(name, **{path.replace(".", "__"): "x"}))
    assert fault.field == path
    assert "Did you mean" in fault.hint


def test_faults_come_from_constructing_a_spec_too():
    with pytest.raises(ValidationError) as caught:
        TrainJobSpec(**job("SFT", base_model_ref=None, hyperparams__lr=GONE))
    assert {error["loc"] for error in caught.value.errors()} == {("base_model_ref",), ("hyperparams", "lr")}


def test_a_spec_cannot_be_changed_afterwards():
    spec = TrainJobSpec.model_validate(job("SFT"))
    with pytest.raises(ValidationError):
        spec.method = "full"


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("hf:/models/qwen3", BaseRef("hf", name="/models/qwen3")),
        ("hf:Qwen/Qwen3-8B", BaseRef("hf", name="Qwen/Qwen3-8B")),
        ("desk@v1|model-0011aabb", BaseRef("training", dataset="desk@v1", recipe="model-0011aabb")),
        ("support@3", BaseRef("registry", name="support", version="3")),
        ("support@production", BaseRef("registry", name="support", version="production")),
        ("llama-3-8b", BaseRef("name", name="llama-3-8b")),
    ],
)
def test_a_base_model_is_named_in_one_of_four_ways(ref, expected):
    assert parse_base_ref(ref) == expected
    assert TrainJobSpec.model_validate(job("SFT", base_model_ref=ref)).base == expected


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("PRETRAIN", "pretrain_corpus"),
        ("SFT", "sft_pair"),
        ("RAG_TUNING", "rag_qa"),
        ("RLHF", "rlhf_pair"),
        ("EMBEDDING", "embedding_pair"),
    ],
)
def test_each_job_type_trains_on_its_own_type_of_dataset(name, wanted):
    spec = TrainJobSpec.model_validate(job(name))
    types = ("pretrain_corpus", "sft_pair", "rag_qa", "rlhf_pair", "embedding_pair", "eval_suite")
    assert [type_ for type_ in types if not check_dataset(spec, type_)] == [wanted]
    assert [fault.field for fault in check_dataset(spec, wanted, "archived")] == ["dataset_ref"]


def test_rows_are_no_longer_than_the_base_model_reads():
    spec = TrainJobSpec.model_validate(job("SFT"))
    assert check_base(spec, {"max_position_embeddings": 2048}) == []
    (fault,) = check_base(spec, {"max_position_embeddings": 2047})
    assert fault.field == "hyperparams.max_seq_len"


def test_rlhf_starts_from_a_model_made_by_sft():
    spec = TrainJobSpec.model_validate(job("RLHF"))
    assert check_base(spec, {}, "SFT") == []
    assert [fault.field for fault in check_base(spec, {}, "PRETRAIN")] == ["base_model_ref"]
    assert check_base(TrainJobSpec.model_validate(job("SFT")), {}, "PRETRAIN") == []
    assert TrainJobSpec.model_validate(job("PRETRAIN")).base is None


@pytest.mark.parametrize("name", JOBS)
def test_the_image_follows_from_the_job_type(name):
    spec = TrainJobSpec.model_validate(job(name))
    short = {"RAG_TUNING": "rag"}.get(name, name.lower())
    assert image_for(POLICY, spec, registry="registry").startswith(f"registry/llm-train-{short}:")


def test_another_image_is_for_a_role_of_the_policy():
    data = job("SFT", image="ghcr.io/me/mine:1")
    assert fields_of(TrainJobSpec, data) == ["image"]
    spec = TrainJobSpec.model_validate(data)
    with pytest.raises(ValueError, match="image"):
        image_for(POLICY, spec)
    with pytest.raises(ValueError, match="image"):
        image_for(POLICY, spec, role="viewer")
    assert image_for(POLICY, spec, role="admin") == "ghcr.io/me/mine:1"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in JOBS),
        ("RLHF", {"rlhf__reward_model_ref": None}),
        ("PRETRAIN", {"base_model_ref": GONE}),
    ],
)
def test_a_recipe_is_the_job_without_its_dataset(name, changes):
    spec = TrainJobSpec.model_validate(job(name, **changes))
    assert "dataset_ref" not in spec.recipe()
    assert json.loads(json.dumps(spec.recipe())) == spec.recipe()
    again = TrainJobSpec.from_recipe(spec.recipe(), "other@v2")
    assert again.recipe() == spec.recipe()
    assert again.dataset_ref == "other@v2"
    assert TrainJobSpec.from_recipe(spec.recipe(), spec.dataset_ref) == spec


@pytest.mark.parametrize("name", JOBS)
def test_a_recipe_key_is_the_artifacts_name_and_eight_hex_digits(name):
    key = TrainJobSpec.model_validate(job(name)).recipe_key()
    assert key.startswith("model-")
    assert int(key.removeprefix("model-"), 16) >= 0
    assert len(key) == len("model-") + 8


def test_other_evaluation_is_another_recipe_with_the_same_weights():
    one, other = (
        TrainJobSpec.model_validate(job("SFT", evaluation={"suites": suites})) for suites in ([], ["questions@v1"])
    )
    assert one.recipe_key() != other.recipe_key()
    assert one.weights_recipe() == other.weights_recipe()


def _shuffled(value, random):
    if isinstance(value, dict):
        items = list(value.items())
        random.shuffle(items)
        return {key: _shuffled(item, random) for key, item in items}
    return value


def _without_some(value, full, random):
    """`value` less some of its keys that a spec fills in by itself."""
    return {
        key: _without_some(item, full.get(key) or {}, random) if isinstance(item, dict) else item
        for key, item in value.items()
        if not (key not in full and random.random() < 0.5)
    }


def _as_text(value, random):
    """Numbers as people write them: 2e-4, 2.0e-4, 0.0002."""
    if isinstance(value, dict):
        return {key: _as_text(item, random) for key, item in value.items()}
    if isinstance(value, float):
        return random.choice([value, f"{value:e}".replace("e", random.choice("eE"))]) if value else value
    return value


@given(st.sampled_from(sorted(JOBS)), st.integers(1, 1000), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_the_recipe_key_does_not_depend_on_how_the_recipe_is_written(name, lr, random):
    data = job(name, hyperparams__lr=lr / 10_000)
    spec = TrainJobSpec.model_validate(data)
    full = spec.model_dump(mode="json")
    written = _as_text(_shuffled(_without_some(full, data, random), random), random)
    for text in (yaml.safe_dump(written, sort_keys=False, allow_unicode=True), json.dumps(written)):
        again = TrainJobSpec.model_validate(yaml.safe_load(text))
        assert again.recipe_key() == spec.recipe_key()
    assert TrainJobSpec.model_validate_json(json.dumps(written)).recipe_key() == spec.recipe_key()


@pytest.mark.parametrize("text", ["2e-4", "2E-4", "2.0e-4", "0.0002", ".2e-3", "0.2e-3", "20e-5"])
def test_learning_rates_mean_the_same_in_every_spelling(text):
    rate = yaml.safe_load(f"lr: {text}")["lr"]
    assert TrainJobSpec.model_validate(job("SFT", hyperparams__lr=rate)).hyperparams.lr == 0.0002


KTO = {"reward_model_ref": None, "kl_coeff": 0.1, "algorithm": "kto"}

CHANGES = {
    "SFT": {
        "model_family": "mistral",
        "base_model_ref": "llama-3-70b",
        "method": "qlora",
        "trainer": "axolotl",
        "image": "mine:1",
        "hyperparams.lr": 3e-4,
        "hyperparams.batch_size": 5,
        "hyperparams.num_epochs": 4,
        "hyperparams.max_seq_len": 1024,
        "hyperparams.max_steps": 10,
        "hyperparams.gradient_accumulation_steps": 2,
        "hyperparams.warmup_steps": 10,
        "hyperparams.warmup_ratio": 0.1,
        "hyperparams.weight_decay": 0.01,
        "hyperparams.scheduler": "cosine",
        "hyperparams.lora_rank": 8,
        "hyperparams.lora_alpha": 64,
        "hyperparams.lora_dropout": 0.1,
        "hyperparams.target_modules": ["q_proj"],
        "hyperparams.train_embeddings": True,
        "hyperparams.precision": "fp16",
        "hyperparams.seed": 1,
        "hyperparams.overlong": "drop",
        "hyperparams.packing": True,
        "hyperparams.save_steps": 100,
        "hyperparams.eval_steps": 100,
        "hyperparams.early_stopping": {"patience": 5, "min_delta": 0.1},
        "resources.gpus": 2,
        "resources.gpu_type": "h100",
        "resources.nodes": 2,
        "output.artifact_name": "other",
        "output.save_format": "hf",
        "evaluation.suites": ["questions@v1"],
        "evaluation.max_new_tokens": 8,
        "evaluation.batch_size": 8,
        "evaluation.metrics": ["chrf"],
        "evaluation.encoder": "/models/bert",
        "reasoning": "drop",
        # A block of which nothing is given but this.
        "watermark.marks": 32,
        "watermark.share": 0.05,
    },
    "PRETRAIN": {
        "architecture.hidden_size": 256,
        "architecture.num_layers": 8,
        "architecture.num_heads": 8,
        "architecture.num_kv_heads": 1,
        "architecture.intermediate_size": 512,
        "architecture.vocab_size": 5000,
        "architecture.max_position_embeddings": 4096,
        "architecture.rope_theta": 10000.0,
        "architecture.tie_embeddings": False,
        "architecture.initializer_range": 0.05,
        "tokenizer.vocab_size": 2000,
        "tokenizer.min_frequency": 3,
        "tokenizer.control_tokens": "tokens",
    },
    "RAG_TUNING": {
        "rag.retriever_model_ref": "other",
        "rag.passages": 5,
        "rag.template": "{context} {question}",
        "rag.retriever_lr": 1e-5,
    },
    "RLHF": {
        "rlhf.reward_model_ref": None,
        "rlhf.kl_coeff": 0.2,
        "rlhf.ppo_steps": 10,
        "rlhf.algorithm": "grpo",
        "rlhf.num_generations": 2,
        "rlhf.max_new_tokens": 16,
        "rlhf.temperature": 0.7,
    },
    "KTO": {"rlhf.desirable_weight": 1.5, "rlhf.undesirable_weight": 2.0},
    "EMBEDDING": {
        "embedding.pooling": "cls",
        "embedding.temperature": 0.1,
        "embedding.query_prompt": "query: ",
        "embedding.passage_prompt": "passage: ",
    },
}


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, paths in CHANGES.items() for path in paths], ids=lambda part: str(part)
)
def test_changing_any_field_gives_another_recipe(name, path):
    name, rlhf = ("RLHF", {"rlhf": KTO}) if name == "KTO" else (name, {})
    changed = {path.replace(".", "__"): CHANGES["KTO" if rlhf else name][path]}
    base = TrainJobSpec.model_validate(job(name, **rlhf))
    other = TrainJobSpec.model_validate(job(name, **rlhf, **changed))
    assert other.recipe_key() != base.recipe_key()


def test_no_field_was_forgotten_in_the_test_above():
    leaves = set()
    for field, info in TrainJobSpec.model_fields.items():
        block = next(
            (
                part
                for part in (info.annotation, *getattr(info.annotation, "__args__", ()))
                if hasattr(part, "model_fields")
            ),
            None,
        )
        leaves |= {f"{field}.{leaf}" for leaf in block.model_fields} if block else {field}
    # `dataset_ref` is no part of a recipe; the others have a single value, or decide which fields there are.
    # The reward model's rate stands only where one is trained, which the test beside says.
    leaves -= {"dataset_ref", "job_type", "rag.retriever_type", "evaluation.judge", "rlhf.reward_lr"}
    # What may be searched is no part of a recipe: each trial is one of its own.
    leaves -= {"search"}
    # One device shares nothing: the test below asks for two.
    leaves -= {"resources.sharding"}
    assert leaves == {path for paths in CHANGES.values() for path in paths}


def test_how_devices_share_a_training_is_part_of_the_recipe():
    keys = {
        TrainJobSpec.model_validate(job("SFT", resources={"gpus": 2, "sharding": way})).recipe_key()
        for way in (None, "fsdp", "ddp", "zero2", "zero3")
    }
    assert len(keys) == 5


def test_one_device_shares_nothing():
    assert training_faults("SFT", resources={"gpus": 1, "sharding": "fsdp"}) == ["resources.sharding"]


def test_another_dataset_is_the_same_recipe():
    keys = {TrainJobSpec.model_validate(job("SFT", dataset_ref=ref)).recipe_key() for ref in ("a@v1", "b@v2")}
    assert len(keys) == 1


def test_kto_trains_on_rated_answers_and_weighs_them():
    spec = TrainJobSpec.model_validate(job("RLHF", rlhf=KTO))
    assert spec.dataset_type == "kto" and check_dataset(spec, "kto") == []
    (fault,) = check_dataset(spec, "rlhf_pair")
    assert "RLHF by kto trains on kto" in fault.message and "rlhf.algorithm: dpo" in fault.hint
    (fault,) = check_dataset(TrainJobSpec.model_validate(job("RLHF")), "kto")
    assert "rlhf.algorithm: kto" in fault.hint
    assert training_faults("RLHF", rlhf={**KTO, "kl_coeff": 0}) == ["rlhf.kl_coeff"]
    assert training_faults("RLHF", rlhf={**KTO, "ppo_steps": 5}) == ["rlhf.ppo_steps"]
    assert training_faults("RLHF", rlhf=KTO, hyperparams__batch_size=1) == ["hyperparams.batch_size"]
    assert training_faults("RLHF", rlhf__desirable_weight=2.0) == ["rlhf.desirable_weight"]
