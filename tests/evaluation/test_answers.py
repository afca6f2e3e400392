"""What a model answered before: kept whole, and asked for again where what is kept cannot be read."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmops_assets.evaluation.answers import Model, ask
from llmops_assets.evaluation.suites import items_of
from llmops_assets.records.jobs import GenerateJob
from tests.evaluation.test_suites import chat_frame

ITEMS = items_of(chat_frame([(f"r{n}", None, f"질문 {n}", "답", {}) for n in range(3)]), "s@v1", "exact")


class Echo:
    """A worker that answers each question with itself, and counts how often it was started."""

    def __init__(self) -> None:
        self.runs = 0

    def run(self, context: Any | None, job: GenerateJob, *, work_dir: Path) -> dict[str, Any]:
        self.runs += 1
        prompts = [json.loads(line) for line in Path(job.prompts_file).read_text().splitlines()]
        rows = [
            {
                "id": p["id"],
                "text": p["messages"][-1]["content"],
                "tokens": 1,
                "finish_reason": "stop",
                "token_ids": [1],
                "prompt_ids": [2],
            }
            for p in prompts
        ]
        Path(job.output_file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"items": len(rows), "settings": {}}


@pytest.mark.parametrize(
    ("file", "left"),
    [
        ("output.jsonl", b'{"id": "s@v1/r0", "te'),
        ("output.jsonl", b""),
        ("complete.json", b'{"depends_on": {"task": "gene'),
        ("complete.json", b""),
        ("complete.json", b'{"sha256": "0"}'),
        ("complete.json", b'{"seal": 1, "result": {}}'),
        (".seal.key", b""),
    ],
)
def test_half_a_file_is_asked_for_again(tmp_path: Path, file: str, left: bytes) -> None:
    worker, model = Echo(), Model(str(tmp_path), "hash")

    def answers() -> list[str]:
        found, _ = ask(worker, None, model, ITEMS, tmp_path / "cache", max_new_tokens=4, batch_size=2)
        return [answer.text for answer in found]

    whole = answers()
    assert answers() == whole and worker.runs == 1
    (damaged,) = (tmp_path / "cache").rglob(file)
    damaged.write_bytes(left)
    assert answers() == whole and worker.runs == 2
    assert answers() == whole and worker.runs == 2


class Says(Echo):
    """A worker whose model says one thing to everything."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def run(self, context: Any | None, job: GenerateJob, *, work_dir: Path) -> dict[str, Any]:
        found = super().run(context, job, work_dir=work_dir)
        rows = [json.loads(line) | {"text": self.text} for line in Path(job.output_file).read_text().splitlines()]
        Path(job.output_file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return found


def test_answers_that_were_exchanged_for_another_models_are_not_used_however_they_are_sealed(tmp_path: Path) -> None:
    workers = {"one": Says("하나"), "two": Says("둘")}

    def answers(name: str, most: int = 4) -> set[str]:
        model = Model(str(tmp_path), name)
        found, _ = ask(workers[name], None, model, ITEMS, tmp_path / "cache", max_new_tokens=most, batch_size=2)
        return {answer.text for answer in found}

    assert answers("one") == {"하나"} and answers("two") == {"둘"}
    sealed = {path.parent: json.loads(path.read_text()) for path in (tmp_path / "cache").rglob("complete.json")}
    (one,) = (folder for folder, seal in sealed.items() if seal["depends_on"]["model"] == "one")
    (two,) = (folder for folder in sealed if folder != one)
    right, wrong = ((folder / "output.jsonl").read_bytes() for folder in (one, two))
    for mark in (sealed[one]["seal"], sealed[two]["seal"], hashlib.sha256(wrong).hexdigest()):
        (one / "output.jsonl").write_bytes(wrong)
        (one / "complete.json").write_text(json.dumps(sealed[one] | {"seal": mark}))
        runs = workers["one"].runs
        assert answers("one") == {"하나"} and workers["one"].runs == runs + 1
        assert (one / "output.jsonl").read_bytes() == right
    # What the worker reported with them is sealed too.
    again = json.loads((one / "complete.json").read_text())
    (one / "complete.json").write_text(json.dumps(again | {"result": {"items": 3, "settings": {"precision": "bf16"}}}))
    runs = workers["one"].runs
    assert answers("one") == {"하나"} and workers["one"].runs == runs + 1
    # Of a seal that holds nothing is asked again.
    assert answers("one") == {"하나"} and workers["one"].runs == runs + 1
