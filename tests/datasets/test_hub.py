"""A folder from a hub: its data is taken, what lies beside it is left out by name, and both are said."""

import json
from pathlib import Path

import pytest
from upath import UPath

from llmops_assets.datasets.reading.hub import not_data, sort_out, splits_of
from llmops_assets.datasets.reading.readers import all_files
from llmops_assets.datasets.reading.scan import ScanError, scan
from llmops_assets.datasets.versions.register import find_files, left_out_of, register
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.policy import load_policy
from tests.datasets.test_register import ROW, house, spec  # noqa: F401

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def repo(tmp_path) -> Path:
    files = {
        "README.md": "---\nlicense: mit\n---\n# 상담 데이터\n",
        "README_ko.md": "# 설명\n",
        "LICENSE": "MIT",
        ".gitattributes": "*.parquet filter=lfs\n",
        ".git/config": "[core]\n",
        ".git/objects/ab/cd": "x",
        ".cache/huggingface/data.lock": "",
        "dataset_infos.json": json.dumps({"default": {"features": {}}}),
        "data/train.jsonl": ROW,
        "data/test.jsonl": ROW.replace("묻", "또 묻"),
        "data/extra.parquet": POINTER,
        "data/model.safetensors.index.json": "{}",
        "data/faiss.index": "x",
        "img/logo.png": "x",
    }
    for name, text in files.items():
        path = tmp_path / "repo" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "repo"


def test_what_is_no_data_is_left_out_by_name(repo):
    folder = sort_out(all_files(UPath(repo)))
    assert [name for name, _ in folder.data] == ["data/test.jsonl", "data/train.jsonl"]
    assert set(folder.left_out) == {
        "README.md", "README_ko.md", "LICENSE", ".gitattributes", ".git/", ".cache/", "dataset_infos.json",
        "data/extra.parquet", "data/model.safetensors.index.json", "data/faiss.index", "img/logo.png",
    }  # fmt: skip
    assert "git lfs pull" in folder.left_out["data/extra.parquet"]
    assert any("splits (test: data/test.jsonl; train: data/train.jsonl)" in words for words in folder.words())


def test_scan_and_registering_say_what_was_left_out(repo, house):  # noqa: F811
    found = scan(str(repo), load_policy())
    assert found.rows == 2 and found.files == ["data/test.jsonl", "data/train.jsonl"]
    assert "README.md (a data card)" in found.summary()["notes"][1]
    assert found.summary()["lines"] == "2 lines = 2 rows"
    assert register(spec(), [str(repo)], **house)
    left_out = left_out_of(house["artifacts"], spec())
    assert left_out["README.md"] == "a data card" and left_out[".git/"] == "hidden"
    assert not register(spec(), [str(repo)], **house)


@pytest.mark.parametrize("name", ["README.md", "dataset_infos.json", "data/extra.parquet", ".gitattributes"])
def test_a_file_that_is_named_and_is_no_data_is_refused_with_the_reason(repo, name):
    with pytest.raises(SpecError, match="is no data: "):
        find_files([repo / name])
    with pytest.raises(ScanError, match="git lfs pull" if "parquet" in name else "is no data: "):
        scan(str(repo / name), load_policy())


def test_a_folder_without_data_says_what_it_has_instead(tmp_path):
    (tmp_path / "README.md").write_text("# 카드")
    with pytest.raises(SpecError, match=r"holds no files of data .*README.md \(a data card\)"):
        find_files([tmp_path])
    with pytest.raises(ScanError, match=r"README.md \(a data card\)"):
        scan(str(tmp_path), load_policy())
    # What a model writes rows about may be a README.
    assert [name for name, _ in find_files([tmp_path], documents=True).data] == ["README.md"]


@pytest.mark.parametrize(
    "name",
    ["rows.jsonl", "data/train-00000-of-00001.parquet", "notice-2024.md", "state.jsonl", "config.jsonl", "a/index.json",
     "readme_answers.jsonl", "license.csv", "test.tsv.gz"],
)  # fmt: skip
def test_data_with_a_name_like_that_is_data(name):
    assert not_data(name) is None


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00002.parquet", "data/validation-00000.parquet"], {"train", "validation"}),
        (["train/a.jsonl", "dev/a.jsonl", "test/a.jsonl"], {"train", "validation", "test"}),
        (["chats.jsonl", "contest.jsonl", "latest.jsonl"], set()),
    ],
)
def test_files_of_splits_are_known_by_their_names(names, splits):
    assert set(splits_of(names)) == splits


def test_questions_of_a_retrieval_benchmark_are_no_passages(tmp_path):
    text = json.dumps({"_id": "1", "text": "연안부두는 남쪽에 있습니다."}, ensure_ascii=False) + "\n"
    files = {"corpus.jsonl": text, "queries.jsonl": text, "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\t1\t1\n"}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    folder = sort_out(all_files(UPath(tmp_path)))

    assert [name for name, _ in folder.data] == ["corpus.jsonl"]
    assert set(folder.left_out) == {"queries.jsonl", "qrels/test.tsv"}
    assert "query, positive" in folder.words()[0]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a.xls", "as .xlsx, or as CSV"),
        ("a.zip", "unpack"),
        ("a.hwp", "its text"),
        ("a.xml", "JSON lines"),
    ],
)
def test_a_file_that_is_not_read_says_what_to_do(tmp_path, name, advice):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ScanError, match=advice):
        scan(str(tmp_path / name), load_policy())
