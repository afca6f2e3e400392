"""The policy file, and models verified by their own config.json."""

import pytest
import yaml

from llmops_assets.specs.base import SpecError
from llmops_assets.specs.families import verify_family
from llmops_assets.specs.job_types import JOB_TYPES
from llmops_assets.specs.policy import DEFAULT_POLICY, load_policy
from tests.specs.builders import POLICY

LLAMA_3 = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 128256,
    "rope_theta": 500000.0,
}
LLAMA_2 = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32000}


def config(architecture, model_type, **more):
    return {"architectures": [architecture], "model_type": model_type, **more}


def refused(family, model_config, job_type="SFT"):
    with pytest.raises(SpecError) as caught:
        verify_family(POLICY.families, family, model_config, job_type)
    return [fault.field for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("family", "model_config"),
    [
        ("mistral", config("MistralForCausalLM", "mistral")),
        ("gemma", config("GemmaForCausalLM", "gemma")),
        ("gemma", config("Gemma2ForCausalLM", "gemma2")),
        ("gemma", config("Gemma3ForCausalLM", "gemma3_text")),
        ("qwen", config("Qwen2ForCausalLM", "qwen2")),
        ("qwen", config("Qwen3ForCausalLM", "qwen3")),
        ("llama", LLAMA_3),
    ],
)
def test_a_model_is_of_the_family_that_its_config_shows(family, model_config):
    verify_family(POLICY.families, family, model_config, "SFT")
    for other in set(POLICY.families) - {family}:
        assert refused(other, model_config), other


@pytest.mark.parametrize("architecture", ["LlamaForSequenceClassification", "PhiForCausalLM", "Qwen3MoeForCausalLM"])
def test_another_architecture_is_refused(architecture):
    for family in POLICY.families:
        assert "config.architectures" in refused(family, config(architecture, "llama"))


@pytest.mark.parametrize("architectures", [None, [], "", ["LlamaForCausalLM", "EvilForCausalLM"]])
def test_a_config_that_does_not_say_is_refused(architectures):
    assert refused("llama", {**LLAMA_3, "architectures": architectures}) == ["config.architectures"]


def test_an_architecture_under_another_model_type_is_refused():
    assert refused("qwen", config("Qwen3ForCausalLM", "llama")) == ["config.model_type"]
    assert refused("qwen", {"architectures": ["Qwen3ForCausalLM"]}) == ["config.model_type"]


def test_bert_is_for_embedding_only():
    bert = config("BertModel", "bert")
    verify_family(POLICY.families, "bert", bert, "EMBEDDING")
    verify_family(POLICY.families, "bert", config("BertForMaskedLM", "bert"), "EMBEDDING")
    for job_type in set(JOB_TYPES) - {"EMBEDDING"}:
        assert refused("bert", bert, job_type) == ["job_type"]


def test_a_backbone_without_head_is_for_embedding_only():
    backbone = config("Qwen3Model", "qwen3")
    verify_family(POLICY.families, "qwen", backbone, "EMBEDDING")
    assert refused("qwen", backbone, "SFT") == ["config.architectures"]


@pytest.mark.parametrize(
    "model_config",
    [
        LLAMA_3,
        {**LLAMA_3, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {**LLAMA_2, "vocab_size": 128256, "rope_parameters": {"rope_theta": 500000.0, "rope_type": "default"}},
        {**LLAMA_2, "llmops_family_version": "3.0"},
        {**LLAMA_2, "llmops_family_version": "3"},
        {**LLAMA_2, "llmops_family_version": "3.3"},
    ],
)
def test_llama_3_and_later_are_accepted(model_config):
    verify_family(POLICY.families, "llama", model_config, "SFT")


@pytest.mark.parametrize(
    "model_config",
    [
        LLAMA_2,
        {**LLAMA_2, "rope_theta": 10000.0},
        {**LLAMA_2, "vocab_size": 32016, "rope_theta": 1_000_000},  # CodeLlama
        {**LLAMA_2, "vocab_size": 46336, "rope_theta": 10000.0},  # a Llama 2 with a Korean vocabulary
        {**LLAMA_3, "rope_theta": None},
        {**LLAMA_3, "llmops_family_version": "2.0"},
        {**LLAMA_2, "llmops_family_version": "three"},
        {**LLAMA_2, "llmops_family_version": ""},
    ],
    ids=["no base", "short base", "code", "korean", "no theta", "says 2", "says no number", "says nothing"],
)
def test_earlier_llamas_are_refused(model_config):
    assert refused("llama", model_config) == ["config"]


def test_one_architecture_may_be_written_without_a_list():
    verify_family(POLICY.families, "llama", {**LLAMA_3, "architectures": "LlamaForCausalLM"}, "SFT")


def test_an_unknown_family_is_refused():
    assert refused("phi", LLAMA_3) == ["model_family"]


def test_the_shipped_policy_says_what_a_gate_wants():
    gate = POLICY.gates["SFT"]
    assert (gate.metric, gate.suite, gate.judge) == ("accuracy", "test", "exact")
    assert gate.passes(0.90, 200)
    assert not gate.passes(0.8999, 200)
    assert not gate.passes(1.0, 199)
    assert not gate.passes(float("nan"), 200)
    assert gate.text == "accuracy of test >= 0.9 on 200 items or more"
    perplexity = POLICY.gates["PRETRAIN"]
    assert perplexity.passes(100.0, perplexity.n_at_least)
    assert not perplexity.passes(100.1, perplexity.n_at_least)
    assert perplexity.text == "perplexity of test <= 100.0 on 50 items or more"


def edited(tmp_path, edit):
    data = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
    edit(data)
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    return path


def test_a_family_is_added_in_the_policy_file(tmp_path):
    def edit(data):
        data["families"]["phi"] = {
            "architectures": ["Phi3ForCausalLM"],
            "model_types": ["phi3"],
            "job_types": ["SFT"],
            "rule": "Phi3ForCausalLM",
        }

    policy = load_policy(edited(tmp_path, edit))
    verify_family(policy.families, "phi", config("Phi3ForCausalLM", "phi3"), "SFT")


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (lambda data: data["limits"].update(max_sample=1), "limits.max_sample"),
        (lambda data: data["datasets"]["minhash"].update(jaccard=1.5), "datasets.minhash.jaccard"),
        (lambda data: data["gates"]["SFT"].update(at_most=1.0), "gates.SFT"),
        (lambda data: data["gates"].pop("RLHF"), ""),
        (lambda data: data["images"]["serve"].pop("RAG"), ""),
        (lambda data: data.pop("experiments"), "experiments"),
        (lambda data: data["families"]["llama"].update(job_types=["CHAT"]), "families.llama.job_types[0]"),
    ],
)
def test_a_faulty_policy_is_refused_with_its_field(tmp_path, edit, field):
    path = edited(tmp_path, edit)
    with pytest.raises(SpecError) as caught:
        load_policy(path)
    assert [(fault.field, fault.file) for fault in caught.value.faults] == [(field, str(path))]


@pytest.mark.parametrize("text", ["families: [", "", "- a"])
def test_a_file_that_is_no_policy_is_refused(tmp_path, text):
    path = tmp_path / "policy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError, match=r"policy\.yaml"):
        load_policy(path)
    with pytest.raises(SpecError, match="cannot be read"):
        load_policy(tmp_path / "absent.yaml")


def test_every_type_of_personal_data_has_a_placeholder_of_its_own():
    placeholders = POLICY.datasets.pii.placeholders
    assert placeholders["PERSON"] == "[이름]"
    assert placeholders["KR_RRN"] == "[주민등록번호]"
    assert len(set(placeholders.values())) == len(placeholders)
