"""What a folder of a model holds: what was laid into it, changed in it or taken out of it is named."""

import json
from pathlib import Path

import pytest

from resources import content

WEIGHTS = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
"""Files that earlier releases hashed, and no other: the hash of such a folder is the same by either rule."""


def folder_of(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.mark.parametrize("name", ["generation_config.json", "adapter_config.json", "additional_chat_templates/a.jinja"])
@pytest.mark.parametrize("kept", ["listing", "seal"])
def test_a_file_laid_beside_those_of_a_model_is_named(tmp_path: Path, name: str, kept: str) -> None:
    folder = folder_of(tmp_path, WEIGHTS)
    known = content.listing(folder)
    digest = content.content_hash(folder)
    assert digest == content.old_content_hash(known)
    if kept == "seal":
        (folder / content.SEAL).write_text(json.dumps({"files": known, "facts": {}}), encoding="utf-8")
    assert content.difference(folder, digest, known) is None
    folder_of(folder, {name: '{"suppress_tokens": [1]}'})
    assert content.difference(folder, digest, known if kept == "listing" else None) == f"{name} (added) is not"


def test_what_an_earlier_release_hashed_is_compared_by_its_files_alone(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, WEIGHTS | {"generation_config.json": "{}"})
    known = content.listing(folder)
    digest = content.old_content_hash(known)
    assert digest != content.content_hash(folder)
    folder_of(folder, {"generation_config.json": '{"eos_token_id": 1}'})
    assert content.difference(folder, digest, known) is None, "it knew nothing of that file"
    folder_of(folder, {"tokenizer.json": '{"model": {}}'})
    assert content.difference(folder, digest, known) == "tokenizer.json is not"
