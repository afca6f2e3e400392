"""The rules of a dataset version."""

import json

import pytest
from pydantic import ValidationError

from llmops_assets.specs.dataset import DATASET_TYPES, DatasetSpec
from tests.specs.builders import GONE, changed, fields_of

DATASET = {
    "name": "desk",
    "version": "v1",
    "type": "sft_pair",
    "files": ["desk.jsonl"],
    "owner": "support",
    "description": "Conversations of the support desk",
}


def faults(**changes):
    return fields_of(DatasetSpec, changed(DATASET, **changes))


@pytest.mark.parametrize("type_", DATASET_TYPES)
def test_each_type_is_accepted_with_the_schema_of_its_name(type_):
    spec = DatasetSpec.model_validate(changed(DATASET, type=type_))
    assert spec.schema_ref == f"{type_}@1"
    assert spec.key == "desk@v1"
    assert spec.status == "active"
    assert spec.split.ratios == (0.8, 0.1, 0.1)


@pytest.mark.parametrize("missing", ["name", "version", "type", "owner", "description"])
def test_required_fields_are_enforced(missing):
    assert faults(**{missing: GONE}) == [missing]


@pytest.mark.parametrize("blank", ["owner", "description"])
def test_a_required_text_says_something(blank):
    assert faults(**{blank: "  "}) == [blank]


def test_the_data_lies_somewhere():
    assert faults(files=[]) == ["files"]
    assert faults(files=GONE, storage_uri="s3://bucket/desk") == []


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        ("name", "a|b"),
        ("name", "desk@v1"),
        ("name", "고객"),
        ("version", 1),
        ("version", "v 1"),
        ("type", "chat"),
        ("schema_ref", "rag_qa@1"),
        ("status", "gone"),
        ("mapping", {"prompt": 3}),
        ("split.ratios", [0.8, 0.1, 0.2]),
        ("split.ratios", [1.2, -0.1, -0.1]),
        ("split.ratios", [0.0, 0.5, 0.5]),
        ("split.ratios", [0.9, 0.1]),
        ("split.seed", -1),
    ],
)
def test_a_bad_value_is_a_fault_of_its_field(path, bad):
    found = faults(**{path.replace(".", "__"): bad})
    assert found, "accepted"
    assert all(field.startswith(path) for field in found)


def test_a_version_cannot_be_changed_afterwards():
    spec = DatasetSpec.model_validate(DATASET)
    with pytest.raises(ValidationError):
        spec.version = "v2"


def test_a_spec_survives_being_stored_as_json():
    spec = DatasetSpec.model_validate(changed(DATASET, mapping={"prompt": "질문"}, split__ratios=[0.7, 0.2, 0.1]))
    assert DatasetSpec.model_validate_json(spec.model_dump_json()) == spec
    assert DatasetSpec.model_validate(json.loads(spec.model_dump_json())) == spec


def test_all_faults_are_reported_at_once():
    found = faults(name="a b", type="chat", ownr="x", owner=GONE, files=GONE, split={"ratios": [1, 1, 1], "sed": 1})
    assert found == ["files", "name", "owner", "ownr", "split.ratios", "split.sed", "type"]
