"""Test rows that a base was trained on are found through its lineage, and a model that scores on them is withheld."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from llmops_assets.datasets.similarity import one_row
from llmops_assets.evaluation.leakage import leaked_test_rows, trained_on
from llmops_assets.evaluation.suites import TEST
from llmops_assets.evaluation.verdicts import suites_unseen
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import BaseModelRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.names import training_key
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records
from tests.resources.samples import dataset

QUESTIONS = [f"{place} 영업소에서 {number}번 차로로 들어간 트럭의 통행료 환불은 어떻게 하나요?" for place, number in
             (("서울", 11), ("부산", 22), ("광주", 33), ("대전", 44))]  # fmt: skip
SHORT = "하이패스 분실"


def answer_to(question: str) -> str:
    """An answer whose words are those of no other."""
    words = ["고객센터에서", "사흘", "안에", "처리해", "드립니다", "영수증을", "준비해", "주세요"]
    return " ".join(f"{question[:2]}{word}" for word in words)


def made(kind: Any, **values: Any) -> Any:
    needed = {name: None for name, field in kind.model_fields.items() if field.is_required()}
    return kind.model_construct(**{**needed, **values})


class House:
    """A catalog, a store and records with one dataset version a call."""

    def __init__(self, root: Path) -> None:
        self.catalog = Catalog(f"sqlite:///{root / 'catalog.db'}")
        self.store, self.records = DatasetStore(str(root / "datasets")), Records(root / "records")

    def version(
        self, version: str, train: list[str], test: list[str], kind: str = "sft_pair", answers: list[str] | None = None
    ) -> str:
        key = f"desk@{version}"
        self.catalog.register_dataset(dataset(version), f"digest of {version}")
        manifests = {}
        for name, asked in (("train", train), ("test", test)):
            rows: dict[str, Any] = {"row_id": [f"{name}-{n}" for n in range(len(asked))]}
            if kind == "sft_pair":
                rows["messages"] = [
                    [{"role": "user", "content": one}, {"role": "assistant", "content": said}]
                    for one, said in zip(
                        asked, answers if answers and name == "test" else map(answer_to, asked), strict=True
                    )
                ]
                rows["tools"] = pl.Series([None] * len(asked), dtype=pl.String)
            else:
                rows["text"] = asked
            frame = pl.DataFrame(rows).with_columns(
                file=pl.lit("rows.jsonl"), line=pl.int_range(1, pl.len() + 1, dtype=pl.Int64)
            )
            manifests[name] = self.store.write(frame, kind="rows", dataset=key, step="splits", config_hash="0")
        counts = {"train": len(train), "test": len(test)}
        record = SplitsRecord(
            dataset=key,
            type=kind,
            manifests=manifests,
            rows=counts,
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash="d",
        )
        self.records.save(key, record)
        return key

    def training(self, key: str, digest: str, base: BaseModelRecord | None) -> PlanRecord:
        plan = made(PlanRecord, dataset=key, recipe=f"made-{digest}", training_key=f"key-{digest}", base=base)
        cell = training_key(key, plan.recipe)
        # Whole records, as they are read back.
        blank = {
            "spec": {},
            "model_dir": "",
            "rows": {},
            "failures": {},
            "precision": "fp32",
            "device": "",
            "example": "",
        }
        counts = {name: 0 for name, field in PlanRecord.model_fields.items() if field.annotation is int}
        flags = {name: False for name, field in PlanRecord.model_fields.items() if field.annotation is bool}
        values = {
            **plan.model_dump(exclude_none=True),
            **blank,
            **counts,
            **flags,
            "packing_efficiency": 1.0,
            "base": base,
        }
        values |= {"stop_token": None, "chat_template_hash": None, "seconds": None, "memory_advice": None}
        plan = PlanRecord.model_validate({**values, "steps": 1})
        self.records.save(cell, plan)
        merged = {"path": "", "content_hash": digest, "family": "llama", "parameters": 1, "chat_template_hash": None}
        merged |= {"max_logit_difference": None, "top1_agreement": None, "differs_from_base": True, "reloads": True}
        same = {"dataset": key, "recipe": plan.recipe, "training_key": plan.training_key}
        self.records.save(cell, MergedModelRecord(**same, **merged))
        return plan


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def base_of(ref: str, digest: str) -> BaseModelRecord:
    return BaseModelRecord(ref=ref, family="llama", path="", content_hash=digest)


def test_test_rows_that_a_base_learned_are_found_however_far_back_and_named(house: House) -> None:
    first = house.version(
        "v1", train=[QUESTIONS[0], QUESTIONS[1] + " 급합니다", SHORT], test=["다른 질문입니다만 들어 보세요"]
    )
    between = house.version(
        "v2", train=["아무 관계가 없는 이야기를 하나 적어 둡니다"], test=["또 다른 질문을 여기에 적어 둡니다"]
    )
    last = house.version("v3", train=["새로 배우는 것은 이것 하나뿐입니다만"], test=[*QUESTIONS, SHORT])
    oldest = house.training(first, "aaaa", None)
    middle = house.training(between, "bbbb", base_of(training_key(oldest.dataset, oldest.recipe), "aaaa"))
    # Merged anew since, so its weights are known by another hash: the lineage goes on by its name.
    plan = house.training(last, "cccc", base_of(training_key(middle.dataset, middle.recipe), "merged before"))
    assert trained_on(plan, house.records) == [last, between, first]
    found = leaked_test_rows(plan, house.catalog, house.records, house.store)
    assert found.share == 3 / 5
    assert {one["row"]: (one["stands in"], one["as"]) for one in found.rows} == {
        "test-0": (first, "train-0"),
        "test-1": (first, "train-1"),
        "test-4": (first, "train-2"),
    }
    record = made(EvaluationRecord, leaked={TEST: found.share}, leaked_rows=found.rows)
    verdict = suites_unseen(record, 0.01)
    assert not verdict.passed and f"60.0% of test, which its base learned: test-0 in {first} (train-0)" in verdict.text


def test_a_base_from_the_registry_has_its_lineage_too(house: House) -> None:
    first, last = (
        house.version("v1", QUESTIONS, ["질문이 하나 더 있습니다만"]),
        house.version("v2", ["새것입니다"], QUESTIONS[:2]),
    )
    oldest = house.training(first, "aaaa", None)
    about = {
        "name": "desk-base",
        "version": 3,
        "path": "",
        "content_hash": "other",
        "family": "llama",
        "job_type": "SFT",
    }
    version = RegisteredModelRecord(dataset=first, recipe=oldest.recipe, **about, mlflow_run_id=None, card="")
    house.records.save(training_key(first, oldest.recipe), version)
    plan = house.training(last, "bbbb", base_of("desk-base@3", "registered before"))
    assert leaked_test_rows(plan, house.catalog, house.records, house.store).share == 1.0


def test_prose_that_holds_the_words_of_a_question_is_no_leak_and_one_with_its_answer_is(house: House) -> None:
    corpus = house.version(
        "v1", [QUESTIONS[0], f"{QUESTIONS[1]} {answer_to(QUESTIONS[1])}"], ["글입니다"], kind="pretrain_corpus"
    )
    last = house.version("v2", ["새로 배우는 것은 이것뿐입니다"], QUESTIONS[:2])
    base = house.training(corpus, "aaaa", None)
    plan = house.training(last, "bbbb", base_of(training_key(base.dataset, base.recipe), "aaaa"))
    found = leaked_test_rows(plan, house.catalog, house.records, house.store)
    assert [one["row"] for one in found.rows] == ["test-1"]


def test_the_phrases_of_a_domain_and_a_shared_answer_are_no_leak_and_an_item_in_prose_is(house: House) -> None:
    shared = "환불은 앱에서 신청하면 사흘 안에 카드로 들어옵니다"
    asked = [
        "서울 영업소를 지나 강릉 방향으로 달리던 화물차 요금을 두 번 냈는데 환불은 어떻게 받나요",
        "부산 영업소를 지나 대구 방향으로 달리던 승용차 요금을 두 번 냈는데 돌려받을 방법이 있나요",
    ]
    # Every stretch of the first question stands somewhere beside the answer, and never all of them at once.
    words = asked[0].split()
    pieces = [f"안내문 {n}. {' '.join(words[n : n + 8])}. {shared}. 담당 부서 {n}" for n in range(len(words) - 7)]
    prose = f"상담 사례입니다.\n손님: “{asked[1]}?”\n직원: {shared}. 그 뒤로 손님은 만족하였습니다."
    others = [f"{asked[1]} 그 물음에는 아직 아무도 답하지 않았습니다 {n}" for n in range(2)]
    corpus = house.version("v1", [*pieces, prose], ["글입니다"], kind="pretrain_corpus")
    unanswered = house.version("v2", [*pieces, *others], ["글입니다"], kind="pretrain_corpus")
    found = {}
    for number, key in enumerate((corpus, unanswered)):
        last = house.version(f"v{number + 3}", ["새로 배우는 것은 이것뿐입니다"], asked, answers=[shared, shared])
        base = house.training(key, f"base{number}", None)
        plan = house.training(last, f"tuned{number}", base_of(training_key(base.dataset, base.recipe), f"base{number}"))
        found[key] = [one["row"] for one in leaked_test_rows(plan, house.catalog, house.records, house.store).rows]
    assert found == {corpus: ["test-1"], unanswered: []}


def test_an_item_is_found_in_a_document_however_many_others_share_its_phrases() -> None:
    questions = [f"{n}번 창구에서 받은 영수증을 잃어버렸는데 다시 받으려면 어디로 가야 하나요" for n in range(60)]
    answer = "신분증을 가지고 가까운 영업소 창구로 오시면 바로 드립니다"
    text = [f"서론 {n} {questions[n]}? {answer}. 결론 {n}" if n < 40 else f"{answer} 안내 {n}" for n in range(60)]
    rows = pl.DataFrame({"row_id": [str(n) for n in range(60)], "text": text}).with_columns(
        file=pl.lit("f"), line=pl.int_range(1, 61, dtype=pl.Int64)
    )
    asked = one_row.Asked([str(n) for n in range(60)], pl.Series(questions), pl.Series([answer] * 60))
    found = one_row.held(lambda columns: iter([rows]), "pretrain_corpus", asked, covered=1.0)
    assert found["item"].to_list() == found["row_id"].to_list() == [str(n) for n in range(40)]


def test_a_model_of_no_lineage_and_one_of_the_same_version_have_no_leak(house: House) -> None:
    key = house.version("v1", QUESTIONS[:2], QUESTIONS[2:])
    base = house.training(key, "aaaa", base_of("hf:somewhere", "ffff"))
    plan = house.training(key, "bbbb", base_of(training_key(base.dataset, base.recipe), "aaaa"))
    for one in (base, plan):
        assert leaked_test_rows(one, house.catalog, house.records, house.store).rows == []
