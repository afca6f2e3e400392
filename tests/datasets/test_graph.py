"""The four assets on a real Dagster instance: a good version goes through, a bad one stops itself and nothing else."""

import json
import random

import dagster as dg
import polars as pl
import pytest

from llmops_assets.datasets import assets, checks
from llmops_assets.datasets import suites as now
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.records import Records
from sensors import suites

TOPICS = ("통행료", "환불", "분실물", "단말기", "휴게소", "영수증")
PLACES = ("서수원", "남청주", "강릉", "동대구", "오산", "신탄진", "정읍", "문산")
ASKS = ("어떻게 하나요", "얼마나 걸리나요", "어디에 물어보나요", "꼭 해야 하나요", "왜 그런가요")
WORDS = [
    "접수",
    "절차",
    "확인",
    "서류",
    "창구",
    "누리집",
    "앱",
    "전화",
    "우편",
    "방문",
    "결제",
    "정산",
    "카드",
    "현금",
    "납부",
    "고지서",
    "할인",
    "감면",
    "등록",
    "변경",
    "해지",
    "교환",
    "반품",
    "수리",
    "설치",
    "점검",
    "배송",
    "조회",
    "발급",
    "재발급",
    "신청",
    "취소",
    "연장",
    "보증",
    "기간",
    "요금",
    "구간",
    "시간",
    "평일",
    "주말",
    "새벽",
    "저녁",
    "오늘",
    "어제",
    "이번",
    "다음",
    "처음",
    "다시",
    "빨리",
    "천천히",
    "미리",
    "나중에",
    "함께",
    "따로",
    "먼저",
    "급하게",
]


def rows(count: int, seed: int = 7) -> list[dict]:
    rng = random.Random(seed)
    made = []
    for number in range(count):
        topic = TOPICS[number % len(TOPICS)]
        words = " ".join(rng.sample(WORDS, 5))
        question = f"{rng.choice(PLACES)}에서 {topic} {words} {rng.choice(ASKS)}?"
        answer = f"{topic} 안내입니다. {words} 절차를 따라 주시면 됩니다."
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        made.append({"messages": messages, "metadata": {"category": topic, "conversation": f"c{number // 2}"}})
    return made


@pytest.fixture
def platform(tmp_path):
    artifacts = Artifacts(tmp_path / "artifacts")
    return {
        "artifacts": artifacts,
        "store": DatasetStore(artifacts.upath("datasets")),
        "records": Records(tmp_path / "records"),
        "catalog": Catalog(f"sqlite:///{tmp_path / 'catalog.db'}"),
        "policy": load_policy(),
    }


def register(platform, version: str, lines: list[str], type_: str = "sft_pair") -> str:
    spec = DatasetSpec.model_validate(
        {
            "name": "desk",
            "version": version,
            "type": type_,
            "schema_ref": f"{type_}@1",
            "files": ["rows.jsonl"],
            "owner": "data",
            "description": "made for a test",
            "split": {"group_by": "conversation", "ratios": [0.7, 0.15, 0.15]},
        }
    )
    platform["artifacts"].write_text("\n".join(lines), "uploads", spec.key, "rows.jsonl")
    platform["catalog"].register_dataset(spec, f"digest-{version}")
    return spec.key


def graph(platform, **more) -> dg.Definitions:
    return dg.Definitions(
        assets=dg.load_assets_from_modules([assets]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        resources=platform,
        **more,
    )


def materialise(platform, key: str, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(dataset_versions.name, [key])
    job = graph(platform).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(partition_key=key, instance=instance, raise_on_error=False, resources=platform)


def test_a_bad_version_is_blocked_and_its_neighbour_is_not(platform):
    good_rows = rows(240)
    good_rows[3]["messages"][0]["content"] += " 제 연락처는 010-1234-5678이고 주민등록번호는 900101-1234567입니다."
    good_rows[5] = json.loads(json.dumps(good_rows[4]))
    good = [json.dumps(row, ensure_ascii=False) for row in good_rows]
    good[10] = good[10][:30]
    bad = [line[:40] if number % 3 == 0 else line for number, line in enumerate(good)]
    with dg.DagsterInstance.ephemeral() as instance:
        good_key, bad_key = register(platform, "good", good), register(platform, "bad", bad)
        failed = materialise(platform, bad_key, instance)
        passed = materialise(platform, good_key, instance)

        assert not failed.success
        assert passed.success, [e.message for e in passed.all_events if e.is_failure]
        verdicts = {e.check_name: e for e in failed.get_asset_check_evaluations()}
        assert not verdicts["quarantine_share"].passed
        assert "of 240 rows were refused" in verdicts["quarantine_share"].description
        assert {e.check_name for e in passed.get_asset_check_evaluations() if not e.passed} == set()
        names = ("dataset", "quality_report", "splits")
        made = {name: instance.get_materialized_partitions(dg.AssetKey(name)) for name in names}
        assert made == {"dataset": {good_key, bad_key}, "quality_report": {good_key}, "splits": {good_key}}

    records, store = platform["records"], platform["store"]
    source, quality = records.load(DatasetRecord, good_key), records.load(QualityRecord, good_key)
    cleaned, divided = records.load(CleanRecord, good_key), records.load(SplitsRecord, good_key)
    assert (source.rows, source.quarantined) == (239, 1)
    refused = store.read(source.quarantine).to_dicts()[0]
    assert (refused["file"], refused["line"]) == ("rows.jsonl", 11)
    assert quality.pii == {"KR_RRN": 1, "PHONE_NUMBER": 1}
    assert quality.exact_duplicates == 1
    assert cleaned.dropped_by_reason == {"exact duplicate": 1}
    assert sum(divided.rows.values()) == cleaned.rows == 238
    everything = pl.concat([store.read(manifest) for manifest in divided.manifests.values()])
    text = json.dumps(everything["messages"].to_list(), ensure_ascii=False)
    assert "010-1234-5678" not in text and "900101-1234567" not in text
    assert "[전화번호]이고 주민등록번호는 [주민등록번호]입니다" in text
    page = (platform["artifacts"].path("reports", good_key, "quality.html")).read_text()
    assert "010-1234-5678" not in page and "http" not in page.replace("http-equiv", "")


def test_the_same_files_again_give_the_same_version(platform):
    lines = [json.dumps(row, ensure_ascii=False) for row in rows(60)]
    with dg.DagsterInstance.ephemeral() as instance:
        key = register(platform, "v1", lines)
        assert materialise(platform, key, instance).success
        first = platform["records"].load(SplitsRecord, key)
        assert materialise(platform, key, instance).success
        assert platform["records"].load(SplitsRecord, key) == first


def test_training_rows_that_hold_the_questions_of_a_suite_are_blocked(platform):
    made = rows(120)
    asked = [row["messages"][0]["content"] for row in made]
    with dg.DagsterInstance.ephemeral() as instance:
        suite = register(
            platform, "exam", [json.dumps(row, ensure_ascii=False) for row in rows(10, seed=99)], "eval_suite"
        )
        assert materialise(platform, suite, instance).success
        clean = register(platform, "clean", [json.dumps(row, ensure_ascii=False) for row in made])
        assert materialise(platform, clean, instance).success
        question = rows(10, seed=99)[4]["messages"][0]["content"]
        for number in range(20):
            made[number]["messages"][0]["content"] = f"{asked[number]} {question}"
        seen = register(platform, "seen", [json.dumps(row, ensure_ascii=False) for row in made])
        failed = materialise(platform, seen, instance)
    assert not failed.success
    (verdict,) = [e for e in failed.get_asset_check_evaluations() if e.check_name == "no_contamination"]
    assert not verdict.passed and "desk@exam" in verdict.description
    (line,) = verdict.metadata["items"].records
    assert (line.data["suite"], line.data["file"]) == ("desk@exam", "rows.jsonl")


def due(platform, instance: dg.DagsterInstance) -> list[tuple[str, ...]]:
    """The check-only runs that the sensor of the suites asks for: partition and checks."""
    sensor = suites.make(5)
    definitions = graph(platform, sensors=[sensor])
    context = dg.build_sensor_context(
        instance=instance,
        definitions=definitions,
        resources={name: platform[name] for name in sensor.required_resource_keys},
    )
    found = sensor.evaluate_tick(context).run_requests
    assert all(request.asset_selection == [] for request in found)
    return sorted((request.tags[suites.PARTITION_TAG], *request.asset_check_keys) for request in found)


def check_again(platform, key: str, instance: dg.DagsterInstance) -> list[dg.AssetCheckEvaluation]:
    """The run that the daemon makes of such a request."""
    job = graph(platform).resolve_implicit_global_asset_job_def()
    asked = job.get_subset(asset_selection=frozenset(), asset_check_selection=frozenset([suites.CHECK]))
    done = asked.execute_in_process(partition_key=key, instance=instance, raise_on_error=False)
    return done.get_asset_check_evaluations()


def test_a_suite_that_is_registered_later_is_compared_with_the_splits_that_are_there(platform):
    made, exam = rows(120), rows(10, seed=99)
    clean = register(platform, "clean", [json.dumps(row, ensure_ascii=False) for row in made])
    for number in range(20):
        made[number]["messages"][0]["content"] += " " + exam[4]["messages"][0]["content"]
    seen = register(platform, "seen", [json.dumps(row, ensure_ascii=False) for row in made])
    with dg.DagsterInstance.ephemeral() as instance:
        assert materialise(platform, clean, instance).success and materialise(platform, seen, instance).success
        assert due(platform, instance) == []
        suite = register(platform, "exam", [json.dumps(row, ensure_ascii=False) for row in exam], "eval_suite")
        assert materialise(platform, suite, instance).success
        assert due(platform, instance) == [(clean, suites.CHECK), (seen, suites.CHECK)]

        (passed,), (failed,) = check_again(platform, clean, instance), check_again(platform, seen, instance)
        assert passed.passed and not failed.passed and failed.blocking
        assert failed.check_name == "no_contamination" and suite in failed.description
        assert due(platform, instance) == []
        # What waits for the splits asks the same, whether or not the sensor was there.
        records, store = platform["records"], platform["store"]
        found = now.compared(
            records.load(SplitsRecord, seen), now.registered_suites(platform["catalog"], records), records, store
        )
        assert found.leaked == {suite: 1} and not now.verdict(found, 0.01).passed
        assert now.verdict(found, 0.1).passed
