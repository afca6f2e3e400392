"""Documents on a real Dagster instance become splits, and a person in one of them is gone from all that came of it."""

import json
import os

import dagster as dg
import polars as pl
import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.datasets import assets, checks
from llmops_assets.documents import assets as document_assets
from llmops_assets.documents import checks as document_checks
from llmops_assets.local.stack import prepare_home
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import CleanRecord, SplitsRecord
from llmops_assets.records.documents import QuestionAnswersRecord
from llmops_assets.specs.settings import Settings
from sensors.intents import make
from tests.documents.server import serving
from tests.erasure.test_erasure import held
from tests.erasure.test_erasure import home as home
from tests.sensors.test_sensors import evaluate

NAME = "박돌멘"
TOPICS = (
    "통행료 환불",
    "단말기 교환",
    "분실물 보관",
    "영수증 발급",
    "감면 신청",
    "휴게소 이용",
    "미납 요금",
    "고객 상담",
)
ACTS = (
    "접수 창구에 신청서를 내야",
    "누리집에서 본인 확인을 마쳐야",
    "전화로 담당 부서에 알려야",
    "우편으로 서류를 보내야",
)


def manual(first: int) -> str:
    """A manual of one section a topic, each with numbers of its own."""
    parts = []
    for number, topic in enumerate(TOPICS):
        act, days = ACTS[(number + first) % len(ACTS)], 5 + 3 * number + first
        parts.append(
            f"# {topic} {first}편\n\n{topic} 업무는 {act} 시작되고, {days}일 안에 결과를 문자로 알려 드립니다."
        )
        parts.append(f"{topic} 비용은 {1000 + 370 * number + first}원이며, {ACTS[number % 4]} 돌려받을 수 있습니다.")
    return "\n\n".join(parts) + "\n"


def materialise(w, key: str) -> dg.ExecuteInProcessResult:
    os.environ["DAGSTER_HOME"] = str(w.settings.dagster_home)
    names = ("artifacts", "store", "records", "catalog", "policy", "settings")
    resources = {name: getattr(w, name) for name in names}
    definitions = dg.Definitions(
        assets=dg.load_assets_from_modules([document_assets, assets]),
        asset_checks=dg.load_asset_checks_from_modules([document_checks, checks]),
        resources=resources,
    )
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, [key])
        job = definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(partition_key=key, instance=instance, raise_on_error=False, resources=resources)


def generate(address: str, *arguments: str) -> None:
    command = ["dataset", "generate", *arguments, "--endpoint", address, "--model", "small", "--rows", "3"]
    result = CliRunner().invoke(app, [*command, "--passage-chars", "300"])
    assert result.exit_code == 0, result.output + repr(result.exception)


def provenance(w, manifests: list[str]) -> list[dict]:
    rows = pl.concat([w.store.read(manifest) for manifest in manifests])
    return [json.loads(extra)["provenance"] for extra in rows["extra"]]


@pytest.fixture(scope="module")
def written(home, tmp_path_factory):
    prepare_home(Settings())
    w = common.wiring()
    folder = tmp_path_factory.mktemp("documents")
    for number in range(3):
        (folder / f"manual-{number}.md").write_text(manual(7 * number), encoding="utf-8")
    planted = manual(40).replace(
        "\n\n# 영수증", f"\n\n담당자 {NAME}에게 물어보시면 서류 목록을 바로 알려 드립니다.\n\n# 영수증"
    )
    (folder / "manual-9.md").write_text(planted, encoding="utf-8")
    (folder / "scan.pdf").write_bytes(b"%PDF-1.4 broken")
    with serving("strict") as (address, server):
        generate(address, str(folder), "--name", "manual@v1")
        result = materialise(w, "manual@v1")
        yield w, result, server


def test_documents_become_splits_with_provenance(written):
    w, result, _ = written
    assert result.success, [e.message for e in result.all_events if e.is_failure]
    passed = {e.check_name: e.passed for e in result.get_asset_check_evaluations()}
    assert {name: passed[name] for name in ("passages_answered", "grounded", "traced")} == dict.fromkeys(
        ("passages_answered", "grounded", "traced"), True
    )
    record, splits = (w.records.load(r, "manual@v1") for r in (QuestionAnswersRecord, SplitsRecord))
    assert (record.documents, record.unreadable_documents, record.failed_passages) == (5, 1, 0)
    assert record.ungrounded_rows == record.passages and record.rows >= 60
    refused = w.store.read(record.quarantine)
    assert set(refused["field"]) == {"document", "groundedness"}
    assert refused.filter(field="document")["file"].to_list() == ["scan.pdf"]
    sources = provenance(w, list(splits.manifests.values()))
    assert len(sources) == sum(splits.rows.values()) >= 30
    assert all(s["document"].startswith("manual-") and s["end"] > s["start"] for s in sources)


def test_rows_of_a_model_are_held_to_the_higher_score(written):
    w, _, _ = written
    clean = w.store.read(w.records.load(CleanRecord, "manual@v1").manifest, ["quality_score"])
    assert clean["quality_score"].min() >= w.policy.datasets.min_generated_score == 0.7


def test_the_sensor_lets_a_model_write_only_where_that_is_registered(written):
    w, _, _ = written
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["manual@v1"])
        found = evaluate(make(5), instance, catalog=w.catalog, records=w.records)
        assert isinstance(found, dg.SkipReason), "the run that made its splits has acknowledged it"
    w.catalog.intents.want("ingest", "manual@v1", "test")
    w.records.path(SplitsRecord, "manual@v1").rename(w.settings.root / "kept.json")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["manual@v1"])
        (request,) = evaluate(make(5), instance, catalog=w.catalog, records=w.records).run_requests
    (w.settings.root / "kept.json").rename(w.records.path(SplitsRecord, "manual@v1"))
    w.catalog.intents.withdraw("ingest", "manual@v1", "test")
    assert "question_answers" in {key.to_user_string() for key in request.asset_selection}


def test_a_server_that_is_gone_fails_the_run_and_says_so(written, tmp_path):
    w, _, _ = written
    (tmp_path / "other.md").write_text(manual(90), encoding="utf-8")
    with serving("locked") as (address, _):
        generate(address, str(tmp_path / "other.md"), "--name", "locked@v1")
        failed = materialise(w, "locked@v1")
    assert not failed.success
    error = next(e.step_failure_data.error for e in failed.all_events if e.is_step_failure)
    assert "refuses the key" in error.to_string() and "ask again when it is mended" in error.to_string()


def test_a_person_in_a_document_is_gone_from_all_that_came_of_it(written, home):
    w, _, server = written
    asked = len(server.asked)
    assert any(NAME in json.dumps(body, ensure_ascii=False) for body in server.asked)
    command = ["dataset", "forget", "manual", "--match", NAME, "--yes", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert json.loads(result.stdout)["versions"] == {"manual@v1": "manual@v1-e1"}
    assert held(home) == []
    documents = {p.name: p.read_text("utf-8") for p in w.artifacts.upath("uploads", "manual@v1-e1").iterdir()}
    # The scan cannot be shown to be free of the person's data.
    assert sorted(documents) == ["manual-0.md", "manual-1.md", "manual-2.md", "manual-9.md"]
    assert documents["manual-0.md"] == manual(0) and documents["manual-9.md"].split() == manual(40).split()
    assert materialise(w, "manual@v1-e1").success
    record = w.records.load(QuestionAnswersRecord, "manual@v1-e1")
    again = [body["messages"][1]["content"] for body in server.asked[asked:]]
    assert len(again) == record.passages - record.reused_passages == 1
    assert NAME not in "".join(again)


def refusal(result: dg.ExecuteInProcessResult, check: str) -> str:
    (found,) = [e for e in result.get_asset_check_evaluations() if e.check_name == check]
    assert not found.passed
    return found.description


def test_documents_without_text_say_which_and_why_and_not_to_ask_again(written, tmp_path):
    w, _, server = written
    asked = len(server.asked)
    (tmp_path / "scan.pdf").write_bytes(b"%PDF-1.4 broken")
    for name in ("short.md", "empty.txt"):
        (tmp_path / name).write_text("끝" if name == "short.md" else "", encoding="utf-8")
    generate("http://127.0.0.1:9/v1", str(tmp_path), "--name", "scans@v1")
    result = materialise(w, "scans@v1")
    assert len(server.asked) == asked
    reason = refusal(result, "passages_answered")
    assert "nothing to ask about: 3 of 3 documents cannot be read" in reason
    assert "scan.pdf: it cannot be read as a PDF" in reason and "register them anew" in reason
    assert "is asked" not in reason and "llmops dataset quarantine scans@v1" in reason
    shown = CliRunner().invoke(app, ["dataset", "quarantine", "scans@v1", "--json"])
    assert shown.exit_code == 0, shown.output
    lines = json.loads(shown.stdout)
    assert {line["file"] for line in lines} == {"scan.pdf", "short.md", "empty.txt"}
    assert {line["step"] for line in lines} == {"question_answers"} and all(line["reason"] for line in lines)
