"""Multiple choice by log-likelihood, BERTScore and lm-evaluation-harness, each by the worker on a real tiny model."""

import os
from pathlib import Path
from typing import Any

import pytest

from images.ask import bertscore, choices, harness
from llmops_assets.evaluation.answers import Model, choose
from llmops_assets.evaluation.suites import Item, items_of
from llmops_assets.records.jobs import BertscoreJob, ChoicesJob, HarnessJob
from llmops_assets.specs.suite import SuiteSpec
from tests.evaluation.conftest import make_tiny_model, read_jsonl, write_jsonl
from tests.evaluation.test_suites import chat_frame

CHOICES = ["네", "아니요", "잘 모르겠습니다"]


def suite(**spec: Any) -> list[Item]:
    rows = [(f"r{n}", "c", f"{n}번 차로는 {'열렸' * (n % 5 + 1)}나요?", CHOICES[n % 3], {}) for n in range(12)]
    return items_of(chat_frame(rows), "lanes@v1", spec=SuiteSpec(judge="multiple_choice", **spec))


class InProcess:
    """The worker's tasks in this process, which has paid for torch already."""

    def __init__(self) -> None:
        self.jobs: list[ChoicesJob] = []

    def run(self, context: Any, job: ChoicesJob, *, work_dir: Path) -> dict[str, Any]:
        self.jobs.append(job)
        return choices.run(job)


def test_a_choice_is_scored_as_the_model_itself_would(tiny_model: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompt = {"id": "a", "messages": [{"role": "user", "content": "열렸나요?"}], "choices": CHOICES}
    files = {"prompts_file": str(write_jsonl(tmp_path / "p", [prompt])), "output_file": str(tmp_path / "o")}
    choices.run(ChoicesJob.model_validate({"model_dir": str(tiny_model), **files}))
    (row,) = read_jsonl(tmp_path / "o")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    before = tokenizer.apply_chat_template(prompt["messages"], add_generation_prompt=True, return_dict=False)
    for choice, nll, count in zip(CHOICES, row["nll"], row["choice_tokens"], strict=True):
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = model(torch.tensor([before + ids])).logits[0].log_softmax(-1)
        alone = -sum(logits[len(before) - 1 + n, token].item() for n, token in enumerate(ids))
        assert nll == pytest.approx(alone, abs=2e-3) and count == len(ids)


def test_neither_the_batch_nor_the_order_changes_a_choice(tiny_model: Path, tmp_path: Path) -> None:
    model = Model(str(tiny_model), "m")
    one, _ = choose(InProcess(), None, model, suite(), tmp_path / "1", batch_size=1)
    many, _ = choose(InProcess(), None, model, suite()[::-1], tmp_path / "16", batch_size=16)
    assert one == many[::-1] and len({a.nll for a in one}) == 12
    again, result = choose(InProcess(), None, model, suite()[::-1], tmp_path / "1", batch_size=16)
    assert result["cached"] and again == many


def test_length_normalisation_is_as_the_suite_says(tiny_model: Path, tmp_path: Path) -> None:
    model, worker = Model(str(tiny_model), "m"), InProcess()
    plain, _ = choose(worker, None, model, suite(), tmp_path, batch_size=8)
    for norm, length in (("characters", len), ("bytes", lambda text: len(text.encode()))):
        chosen, _ = choose(worker, None, model, suite(length_norm=norm), tmp_path, batch_size=8)
        for a, b in zip(plain, chosen, strict=True):
            costs = [nll / length(choice) for nll, choice in zip(a.nll, CHOICES_SORTED, strict=True)]
            assert b.text == CHOICES_SORTED[costs.index(min(costs))]
    assert len(worker.jobs) == 1, "the likelihoods are the same: the model is asked once"


CHOICES_SORTED = sorted(CHOICES)


def test_a_model_without_a_chat_template_continues_the_text(tmp_path: Path) -> None:
    plain = make_tiny_model(tmp_path / "plain", chat=False)
    answers, result = choose(InProcess(), None, Model(str(plain), "p"), suite(), tmp_path / "c", batch_size=8)
    assert len(answers) == 12 and result["settings"]["choices"] == "log-likelihood as a continuation"


def test_a_question_longer_than_the_context_keeps_its_end(tmp_path: Path) -> None:
    short = make_tiny_model(tmp_path / "short", context=64)
    long = {"id": "a", "messages": [{"role": "user", "content": "가" * 200}], "choices": ["네", "아니요"]}
    files = {"prompts_file": str(write_jsonl(tmp_path / "p", [long])), "output_file": str(tmp_path / "o")}
    assert choices.run(ChoicesJob.model_validate({"model_dir": str(short), **files}))["truncated"] == 1
    assert all(nll > 0 for nll in read_jsonl(tmp_path / "o")[0]["nll"])
    write_jsonl(tmp_path / "p", [long | {"choices": ["네", "가" * 100]}])
    with pytest.raises(ValueError, match="prompt a: a choice is longer than the model's context"):
        choices.run(ChoicesJob.model_validate({"model_dir": str(short), **files}))


def test_choices_that_cannot_be_chosen_from_are_named() -> None:
    spec = SuiteSpec(judge="multiple_choice")
    rows = [("a", None, "q", "세 번째", {"choices": ["첫째", "둘째"]}), ("b", None, "q", "x", {"choices": ["x"]})]
    with pytest.raises(ValueError, match=r"'세 번째' is none of the choices 첫째, 둘째.*two or more different"):
        items_of(chat_frame(rows), "s@v1", spec=spec)


def test_bertscore_of_equal_texts_is_one_whatever_the_batch(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [
        {"id": "same", "answer": "환불됩니다.", "references": ["모릅니다.", "환불됩니다."]},
        {"id": "other", "answer": "휴게소", "references": ["환불은 사흘 안에 처리됩니다."]},
        {"id": "empty", "answer": "", "references": ["환불됩니다."]},
    ]
    files = {"pairs_file": str(write_jsonl(tmp_path / "p", pairs)), "output_file": str(tmp_path / "o")}
    found = []
    for size in (1, 8):
        bertscore.run(BertscoreJob.model_validate({"model_dir": str(tiny_model), "batch_size": size, **files}))
        found.append({row["id"]: row["f1"] for row in read_jsonl(tmp_path / "o")})
    assert found[0] == found[1]
    assert found[0]["same"] == 1 and 0 < found[0]["other"] < 1 and found[0]["empty"] == 0


TASK = {
    "task": "lanes",
    "output_type": "multiple_choice",
    "doc_to_text": "질문: {{question}}\n답변:",
    "doc_to_choice": ["네", "아니요"],
    "doc_to_target": "label",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}


@pytest.fixture
def documents(tmp_path: Path) -> str:
    return str(write_jsonl(tmp_path / "d", [{"question": f"{n}번 차로 열렸나요?", "label": n % 2} for n in range(8)]))


def test_lm_eval_runs_a_local_task_offline(
    tiny_model: Path, tmp_path: Path, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    job = {"config": TASK, "docs_file": documents, "output_file": str(tmp_path / "o")}
    assert harness.run(HarnessJob.model_validate(job | {"mode": "render"}))["items"] == 8
    assert read_jsonl(tmp_path / "o")[1] == {
        "doc": {"question": "1번 차로 열렸나요?", "label": 1},
        "prompt": "질문: 1번 차로 열렸나요?\n답변:",
        "choices": ["네", "아니요"],
        "target": "아니요",
    }
    job |= {"mode": "evaluate", "model_dir": str(tiny_model)}
    result = harness.run(HarnessJob.model_validate(job | {"batch_size": 1}))
    one = read_jsonl(tmp_path / "o")
    harness.run(HarnessJob.model_validate(job | {"batch_size": 8}))
    assert one == read_jsonl(tmp_path / "o"), "the batch changes nothing"
    share = sum(row["score"] for row in one) / 8
    assert result["settings"]["results"]["acc,none"] == pytest.approx(share)
    assert all((row["answer"] == ["네", "아니요"][n % 2]) == (row["score"] == 1) for n, row in enumerate(one))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"include": "../../../etc/passwd"}, "no task that lm-eval ships"),
        ({"doc_to_text": "{{ ''.__class__ }}"}, "holds '__'"),
        ({"task": None}, "no `task`"),
    ],
)
def test_a_task_reaches_nothing_outside_of_its_documents(
    change: dict, message: str, tmp_path: Path, documents: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    job = {"mode": "render", "config": TASK | change, "docs_file": documents, "output_file": str(tmp_path / "o")}
    with pytest.raises(ValueError, match=message):
        harness.run(HarnessJob.model_validate(job))
