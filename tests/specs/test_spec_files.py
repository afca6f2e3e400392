"""Spec files: their kind, and every fault with its line."""

import json
from pathlib import Path

import pytest

from llmops_assets.specs.base import SpecError, SpecFault
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.files import load_spec, validate_file
from llmops_assets.specs.training import TrainJobSpec
from tests.specs.builders import DEPLOYMENT, EXPERIMENT, JOBS, POLICY, job
from tests.specs.test_dataset_spec import DATASET

EXAMPLES = Path(__file__).parents[2] / "examples" / "specs"
SFT = """\
job_type: SFT
model_family: llama
base_model_ref: llama-3-8b
dataset_ref: desk@v1
method: lora
hyperparams:
  lr: 2e-4
  batch_size: 4
  num_epochs: 3
  max_seq_len: 2048
resources: {gpus: 1}
output: {artifact_name: model}
"""


def write(tmp_path, text, name="spec.yaml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def found(path):
    return [(fault.field, fault.line) for fault in validate_file(path, POLICY)]


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_every_example_is_valid(path):
    assert [str(fault) for fault in validate_file(path, POLICY)] == []


def test_there_is_an_example_of_everything_in_yaml_and_json():
    specs = {path: load_spec(path, POLICY) for path in EXAMPLES.iterdir()}
    for suffix in (".yaml", ".json"):
        of = [spec for path, spec in specs.items() if path.suffix == suffix]
        assert {spec.job_type for spec in of if isinstance(spec, TrainJobSpec)} == set(JOBS)
        for kind in (DatasetSpec, DeploymentSpec, ExperimentSpec):
            assert any(isinstance(spec, kind) for spec in of)
    for path, spec in specs.items():
        assert specs[path.with_suffix(".json")] == spec


@pytest.mark.parametrize(
    ("data", "model"),
    [(DATASET, DatasetSpec), (DEPLOYMENT, DeploymentSpec), (EXPERIMENT, ExperimentSpec)]
    + [(data, TrainJobSpec) for data in JOBS.values()],
)
@pytest.mark.parametrize("explicit", [False, True])
def test_the_kind_is_recognised_or_said(tmp_path, data, model, explicit):
    data = {"kind": model.kind, **data} if explicit else data
    spec = load_spec(write(tmp_path, json.dumps(data), "spec.json"), POLICY)
    assert type(spec) is model


def test_a_kind_that_cannot_be_told_is_asked_for(tmp_path):
    (fault,) = validate_file(write(tmp_path, "name: x\n"), POLICY)
    assert "kind" in fault.hint
    (fault,) = validate_file(write(tmp_path, "kind: trian\njob_type: SFT\n"), POLICY)
    assert (fault.field, fault.line) == ("kind", 1)
    assert "'train'" in fault.hint


def test_faults_have_their_line(tmp_path):
    text = SFT.replace("lr: 2e-4", "lr: fast").replace("max_seq_len", "max_seq_length").replace("gpus: 1", "gpus: 100")
    assert found(write(tmp_path, text)) == [
        ("hyperparams.max_seq_len", 6),
        ("hyperparams.lr", 7),
        ("hyperparams.max_seq_length", 10),
        ("resources.gpus", 11),
    ]


def test_faults_in_json_have_their_line_too(tmp_path):
    text = json.dumps(job("SFT", method="dora"), indent=2)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if '"method"' in row)
    assert found(write(tmp_path, text, "spec.json")) == [("method", line)]
    text = json.dumps(job("SFT", evaluation={"suites": ["a@v1", "b"]}), indent=2)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if '"b"' in row)
    assert found(write(tmp_path, text, "spec.json")) == [("evaluation.suites[1]", line)]
    tabs = json.dumps(job("SFT", method="dora"), indent="\t")
    assert [field for field, _ in found(write(tmp_path, tabs, "spec.json"))] == ["method"]


def test_a_fault_reads_as_a_sentence_that_says_what_to_do(tmp_path):
    path = write(tmp_path, SFT.replace("batch_size", "batch_sise"))
    texts = [str(fault) for fault in validate_file(path, POLICY)]
    assert f"{path}:8: hyperparams.batch_sise: unknown key. Did you mean 'batch_size'?" in texts
    assert f"{path}:6: hyperparams.batch_size: required, but missing. Add 'batch_size'" in texts


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("SFT", "stf", "job_type: 'stf' is not one of PRETRAIN, SFT, RAG_TUNING, RLHF, EMBEDDING. Did you mean 'SFT'?"),
        ("method: lora", "method: dora", "method: 'dora' is not one of full, lora, qlora. Did you mean 'lora'?"),
        ("desk@v1", "desk", "dataset_ref: 'desk' is not allowed here. Write NAME@VERSION, for example support-desk@v1"),
        ("batch_size: 4", "batch_size: '4'", "batch_size: should be a whole number, not '4'. Write it without quotes"),
        ("batch_size: 4", "batch_size: 4.5", "batch_size: should be a whole number, not 4.5"),
        ("2e-4", "fast", "lr: should be a number, not 'fast'"),
        ("2e-4", "yes", "lr: should be a number, not true"),
        ("2e-4", "", "lr: should be a number, not null"),
        ("2e-4", "2", "lr: should be less than or equal to 1, but is 2"),
        ("2e-4", ".inf", "lr: should be a finite number, but is infinite"),
        ("{gpus: 1}", "1", "resources: should be a block of 'key: value' lines, not 1"),
        (
            "SFT",
            "PRETRAIN",
            "base_model_ref: a PRETRAIN job starts from nothing. Remove it, or choose another job_type",
        ),
        ("SFT\n", "SFT\n1: x\n", "[1]: a key should be text. Put it in quotes, or remove it"),
        ("SFT\n", "SFT\nrag: {a: 1}\n", "rag.a: unknown key. Known here: retriever_type, retriever_model_ref"),
        ("SFT\n", "SFT\nzzz: 1\n", "zzz: unknown key. Known here: job_type, model_family,"),
        ("desk@v1", "x" * 200, "dataset_ref: '" + "x" * 56 + "..."),
    ],
)
def test_messages_say_what_is_wrong_and_what_to_do(tmp_path, old, new, message):
    texts = [str(fault) for fault in validate_file(write(tmp_path, SFT.replace(old, new)), POLICY)]
    assert any(message in text for text in texts), texts


def test_a_fault_without_a_file_reads_without_one():
    assert str(SpecFault("lr", "missing")) == "lr: missing"
    assert str(SpecFault("", "empty", "Write it", file="a.yaml")) == "a.yaml: (the whole file): empty. Write it"


def test_without_a_policy_only_the_form_is_judged(tmp_path):
    path = write(tmp_path, SFT.replace("llama\n", "phi\n"))
    assert load_spec(path).model_family == "phi"
    with pytest.raises(SpecError, match="model_family"):
        load_spec(path, POLICY)
    with pytest.raises(SpecError) as caught:
        load_spec(write(tmp_path, SFT.replace("llama\n", "phi\n").replace("lr: 2e-4", "lr: x")))
    assert [fault.field for fault in caught.value.faults] == ["hyperparams.lr"]


def test_another_image_is_for_a_role_in_files_too(tmp_path):
    path = write(tmp_path, SFT + "image: mine:1\n")
    assert found(path) == [("image", 13)]
    assert validate_file(path, POLICY, role="admin") == []


def test_yaml_that_means_another_type_is_explained(tmp_path):
    text = "name: desk\nversion: 2026-10-01\ntype: sft_pair\nfiles: [a]\nowner: o\ndescription: d\n"
    (fault,) = validate_file(write(tmp_path, text), POLICY)
    assert (fault.field, fault.line) == ("version", 2)
    assert "quotes" in fault.hint


def test_a_key_given_twice_is_a_fault(tmp_path):
    assert found(write(tmp_path, SFT + "method: full\n")) == [("method", 13)]
    twice = json.dumps(JOBS["SFT"])[:-1] + ', "method": "full"}'
    assert [field for field, _ in found(write(tmp_path, twice, "spec.json"))] == ["method"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("job_type: [SFT\nmethod: x\n", 2),
        ("job_type: SFT\n\tmethod: full\n", 2),
        ("a: *unknown\n", 1),
        (SFT + "a: &a [*a]\n", 13),
        (SFT + "---\n" + SFT, 14),
        ("", None),
        ("- a\n- b\n", None),
        ("just words", None),
        (b"\xff\xfe\x00", None),
        ("[" * 5000, None),
        ("!!python/object/apply:os.system [true]", 1),
        ("x: " + "y" * 300_000, None),
        ("#" * 300_000 + "\n" + SFT, None),
        (SFT + "rag: " + "[" * 30 + "]" * 30 + "\n", 13),
    ],
)
def test_a_file_that_is_no_spec_is_refused(tmp_path, text, line):
    path = write(tmp_path, text)
    (fault,) = validate_file(path, POLICY)
    assert fault.file == str(path)
    assert line is None or fault.line == line
    with pytest.raises(SpecError):
        load_spec(path)


@pytest.mark.parametrize(
    "text", ["{", '{"job_type": }', "[" * 5000, "[]", "3", "", '{"rag":' + "[" * 900 + "]" * 900 + "}"]
)
def test_json_that_is_no_spec_is_refused(tmp_path, text):
    assert len(validate_file(write(tmp_path, text, "spec.json"), POLICY)) == 1


def test_an_absent_file_is_a_fault(tmp_path):
    (fault,) = validate_file(tmp_path / "absent.yaml", POLICY)
    assert "cannot be read" in fault.message


@pytest.mark.parametrize("text", ["1: x\n", "null: x\n", "? [a, b]\n: x\n", "2026-10-01: x\n"])
def test_a_key_that_is_no_text_is_a_fault(tmp_path, text):
    assert validate_file(write(tmp_path, SFT + text), POLICY)


def test_loading_raises_every_fault(tmp_path):
    path = write(tmp_path, SFT.replace("SFT", "RLHF").replace("2048", "8192"))
    with pytest.raises(SpecError) as caught:
        load_spec(path, POLICY)
    assert {fault.field for fault in caught.value.faults} == {"rlhf", "hyperparams.max_seq_len"}


def test_a_byte_order_mark_is_no_matter(tmp_path):
    assert isinstance(load_spec(write(tmp_path, b"\xef\xbb\xbf" + SFT.encode()), POLICY), TrainJobSpec)
