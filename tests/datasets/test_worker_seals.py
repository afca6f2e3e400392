"""What passes between the platform and its worker is sealed on the disk, and read on both sides."""

import json
from pathlib import Path, PurePosixPath

import polars as pl
import pytest

from images.ask import generate
from images.train import pairs, rows, sealed
from images.train.chat import Row
from llmops_assets.evaluation.answers import Model, kept
from llmops_assets.records.jobs import GenerateJob, PlanJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders, marked_job
from resources.artifacts import Artifacts
from resources.at_rest import holds_rows, reseal
from resources.encryption import EncryptionError, Keyring, is_sealed, new_key
from resources.records import Records
from resources.trainer import Trainer
from tests.training.conftest import sft_spec

QUESTION = "아무도 읽지 못할 질문\u2028quokka"


@pytest.fixture
def keys(monkeypatch) -> Keyring:
    keys = Keyring.parse(new_key())
    monkeypatch.setattr(sealed, "keys", lambda: keys)
    return keys


class Worker:
    """Answers as the real worker does: reads its input and writes its output by the worker's own functions."""

    def __init__(self, keys: Keyring) -> None:
        self.keys, self.calls = keys, 0

    def run(self, context, job, *, work_dir: Path) -> dict:
        self.calls += 1
        asked = generate.read_jsonl(job.prompts_file)
        generate.write_jsonl(job.output_file, [{"id": row["id"], "text": row["text"]} for row in asked])
        return {"items": len(asked)}


def ask(worker: Worker, cache: Path) -> list[dict]:
    inputs = [{"id": "a", "text": QUESTION}, {"id": "b", "text": "zwei"}]
    model = Model(str(cache), "hash")
    return kept(worker, None, model, GenerateJob, {"max_new_tokens": 8}, {}, inputs, "inputs", cache)[0]


def test_questions_and_answers_are_sealed_and_found_again(tmp_path, keys):
    worker = Worker(keys)
    assert ask(worker, tmp_path) == [{"id": "a", "text": QUESTION}, {"id": "b", "text": "zwei"}]
    files = [path for path in tmp_path.rglob("*.jsonl")]
    assert len(files) == 2 and all(is_sealed(path.read_bytes()) for path in files)
    ask(worker, tmp_path)
    assert worker.calls == 1
    # Under another key the same answers are still known, once they are sealed with it.
    for path in files:
        path.write_bytes(keys.seal(keys.open(path.read_bytes())))
    ask(worker, tmp_path)
    assert worker.calls == 1
    with pytest.raises(EncryptionError, match="sealed with key"):
        ask(Worker(Keyring.parse(new_key())), tmp_path)


def test_token_rows_are_sealed(tmp_path, keys):
    path = tmp_path / "train.parquet"
    rows.save(path, ["a"], [Row([1, 2], [0, 1], False, False, 0, None)])
    assert is_sealed(path.read_bytes())
    assert rows.load(path)["ids"].to_list() == [[1, 2]]
    with pytest.raises(pl.exceptions.PolarsError):
        pl.read_parquet(path)
    assert pairs.sealed is sealed


def test_the_rows_of_a_watermark_are_sealed_on_their_way_to_the_worker(tmp_path, keys):
    spec = TrainJobSpec.from_recipe({**sft_spec("hf:x"), "watermark": {"marks": 8}}, "desk@v1")
    job = PlanJob(spec=spec, store="s", manifests={}, plan_dir="p")
    with marked_job.with_marks(job, spec, b"k" * 32, 60, tmp_path, keys) as complete:
        path = Path(complete.extra_rows)
        assert is_sealed(path.read_bytes()) and sealed.read_parquet(path).height >= 8
    assert not path.exists()


def test_the_worker_is_handed_the_key_and_nothing_else_of_ours(tmp_path, monkeypatch):
    keys = Keyring.parse(new_key())
    monkeypatch.setenv("LLMOPS_ENCRYPTION_KEY_FILE", "/etc/none")
    monkeypatch.setenv("LLMOPS_CATALOG_URL", "postgresql://secret")
    seen = {}

    class Client:
        def run(self, *, context, command, env):
            seen.update(command=command, env=env)
            job = json.loads(Path(command[-1]).read_text())
            Path(job["result"]).write_text("{}")

    files = dict.fromkeys(("model_dir", "prompts_file", "output_file"), "x")
    job = GenerateJob(**files, max_new_tokens=8)
    Trainer(Client(), locks=tmp_path, keys=keys).run(object(), job, work_dir=tmp_path)
    assert Keyring.from_environment(seen["env"]).ids == keys.ids
    assert "LLMOPS_ENCRYPTION_KEY_FILE" in seen["command"] and "LLMOPS_CATALOG_URL" in seen["command"]
    assert not any(keys.environment()["LLMOPS_ENCRYPTION_KEY"] in word for word in seen["command"])
    assert keys.environment()["LLMOPS_ENCRYPTION_KEY"] not in (tmp_path / "generate.json").read_text()


def test_another_key_leaves_the_folder_of_a_plan_whole(tmp_path, keys):
    folder = tmp_path / "artifacts" / "models" / "sft" / "desk" / "0123" / "plan"
    folder.mkdir(parents=True)
    rows.save(folder / "train.parquet", ["a"], [Row([1, 2], [0, 1], False, False, 0, None)])
    folders.seal(folder, {"rows": 1})
    both = Keyring.parse(f"{new_key()},{keys.environment()['LLMOPS_ENCRYPTION_KEY']}")
    done = reseal(Artifacts(tmp_path / "artifacts", both), Records(tmp_path / "records", both), both)
    assert done.changed == 1
    assert folders.facts(folder) == {"rows": 1}
    assert is_sealed((folder / "train.parquet").read_bytes())


@pytest.mark.parametrize(
    ("name", "sealed_at_rest"),
    [
        ("uploads/desk@v1/rows.jsonl", True),
        ("datasets/chunks/ab/abcd.parquet", True),
        ("datasets/manifests/abcd.json", False),
        ("datasets/configs/abcd.json", False),
        ("reports/desk@v1/quality.html", True),
        ("answers/0123/output.jsonl", True),
        ("answers/0123/complete.json", False),
        ("answers/judge-0123.jsonl", False),
        ("models/sft/desk/0123/plan/train.parquet", True),
        ("models/sft/desk/0123/evaluation/recipe/answers.jsonl", True),
        ("models/sft/desk/0123/evaluation/recipe/README.md", False),
        ("models/sft/desk/0123/merged/model.safetensors", False),
        ("models/sft/desk/0123/plan/.lock", False),
    ],
)
def test_what_is_sealed_is_what_is_read_back_by_those_who_hold_the_keys(name, sealed_at_rest):
    assert holds_rows(PurePosixPath(name)) == sealed_at_rest
