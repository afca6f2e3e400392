"""The data card of a folder says which of its files are data: followed, or refused with what to name."""

from pathlib import Path

import pytest
import yaml

from llmops_assets.datasets.reading.cards import SeveralConfigurations, chosen
from llmops_assets.datasets.reading.scan import ScanError, scan
from llmops_assets.datasets.versions.register import find_files
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.policy import load_policy

NAMES = [
    "README.jsonl",
    "data/test-00000.jsonl",
    "data/train-00000.jsonl",
    "en/all.jsonl",
    "ko/a/one.jsonl",
    "ko/two.csv",
]


def card(*configs: dict) -> str:
    return f"---\n{yaml.safe_dump({'license': 'mit', 'configs': list(configs)}, allow_unicode=True)}---\n# 데이터\n"


def config(files: object, name: str = "default", **more: object) -> dict:
    return {"config_name": name, **({} if files is None else {"data_files": files}), **more}


SPLIT = [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": ["data/test-*"]}]


@pytest.mark.parametrize(
    ("given", "files"),
    [
        (config("data/*.jsonl"), NAMES[1:3]),
        (config("*.jsonl"), ["README.jsonl"]),
        (config("**/*.jsonl"), [name for name in NAMES if name.endswith(".jsonl")]),
        (config("ko/**"), NAMES[4:]),
        (config("ko"), NAMES[4:]),
        (config("./ko/"), NAMES[4:]),
        (config(None, data_dir="ko"), NAMES[4:]),
        (config("a/*", data_dir="ko"), ["ko/a/one.jsonl"]),
        (config(["en/all.jsonl", "ko/tw?.csv"]), ["en/all.jsonl", "ko/two.csv"]),
        (config("{en,fr}/all.jsonl"), ["en/all.jsonl"]),
        (config("data/t[er]st-0*"), ["data/test-00000.jsonl"]),
        (config(SPLIT), NAMES[1:3]),
        (config({"train": "data/train-*", "test": "data/test-*"}), NAMES[1:3]),
        (config([{"split": "train", "path": "en/*"}], name="only"), ["en/all.jsonl"]),
    ],
)
def test_the_files_of_the_one_configuration_are_the_data(given: dict, files: list[str]) -> None:
    assert chosen(card(given), NAMES).files == sorted(files)


def test_splits_are_those_of_the_card() -> None:
    assert chosen(card(config(SPLIT)), NAMES).splits == {"train": [NAMES[2]], "test": [NAMES[1]]}


@pytest.mark.parametrize(
    "text", ["# no header", "---\nlicense: mit\n---\n", "---\nx: [\n---\n", "---\nconfigs: 3\n---\n", card()]
)
def test_a_card_without_configurations_says_nothing(text: str) -> None:
    assert chosen(text, NAMES).files is None


def test_of_several_the_default_is_read_and_the_others_are_named() -> None:
    for marked in (config("en/*", name="default"), config("en/*", name="en", default=True)):
        found = chosen(card(config("ko/**", name="ko"), marked), NAMES)
        assert found.files == ["en/all.jsonl"] and "not read: ko" in found.notes[-1]
    assert chosen(card(config("ko/**", name="ko"), config("fr/*", name="fr")), NAMES).files == NAMES[4:]


def test_several_without_a_default_are_refused_with_the_files_of_each(tmp_path: Path) -> None:
    text = card(config("ko/**", name="ko"), config("en/*", name="en"))
    with pytest.raises(SeveralConfigurations, match=r"2 configurations.*ko: ko/a/one.jsonl.*en: en/all.jsonl"):
        chosen(text, NAMES)
    assert chosen(card(config("ko/**", name="a"), config("ko/", name="b")), NAMES).files == NAMES[4:], "the same files"
    for name in ("ko/a.jsonl", "en/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"question": "언제 되나요?", "answer": "내일 됩니다"}\n', encoding="utf-8")
    (tmp_path / "README.md").write_text(card(config("ko/*", name="ko"), config("en/*", name="en")), encoding="utf-8")
    with pytest.raises(SpecError, match=r"several datasets.*Name the files of one"):
        find_files([str(tmp_path)])
    with pytest.raises(ScanError, match=r"several datasets.*Scan the files of one"):
        scan(str(tmp_path), load_policy())
    assert [name for name, _ in find_files([str(tmp_path / "ko")]).data] == ["a.jsonl"]


def test_a_pattern_that_no_file_fits_is_said() -> None:
    some = chosen(card(config(["data/train-*", "data/validation-*", "hf://other/x.jsonl"])), NAMES)
    assert some.files == [NAMES[2]] and "data/validation-*, hf://other/x.jsonl is not here" in some.notes[0]
    none = chosen(card(config("fr/*")), NAMES)
    assert none.files is None and "all files are read" in none.notes[0]


def test_registering_and_scanning_leave_other_files_out_by_name(tmp_path: Path) -> None:
    rows = {"data/train-0.jsonl": "어제", "data/test-0.jsonl": "오늘", "raw/export.jsonl": "내일"}
    for name, word in rows.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        row = f'{{"question": "{word} 통행료는 어디에서 내나요?", "answer": "{word} 요금소에서 냅니다"}}\n'
        (tmp_path / name).write_text(row, encoding="utf-8")
    (tmp_path / "README.md").write_text(card(config(SPLIT)), encoding="utf-8")
    folder = find_files([str(tmp_path)])
    assert [name for name, _ in folder.data] == ["data/test-0.jsonl", "data/train-0.jsonl"]
    assert folder.left_out["raw/export.jsonl"] == "not in the data card's configuration default"
    assert folder.splits == {"test": ["data/test-0.jsonl"], "train": ["data/train-0.jsonl"]}
    found = scan(str(tmp_path), load_policy())
    assert found.rows == 2 and any("raw/export.jsonl (not in the data card's" in note for note in found.notes)
