"""A day of traffic is what the log had of it, without what nobody agreed to, and goes when its time is over."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from llmops_assets.partitions import endpoints
from llmops_assets.records.traffic import TrafficRecord
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.traffic import checks, days, verdicts
from llmops_assets.traffic.assets import traffic
from resources.artifacts import Artifacts
from resources.catalog import Catalog, tables
from resources.encryption import NO_KEYS, Keyring
from resources.records import Records
from sensors.traffic import make
from tests.resources.samples import experiment, exposure

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=2)
DAY = NOON.date().isoformat()
KEY = Keyring([b"k" * 32])


def row(number: int, **changes) -> dict:
    values = {"experiment": None, "source": "model", "worker": "w1", "sequence": number, "query": f"질문 {number}"}
    values |= {"at": NOON + timedelta(seconds=number), "response": f"답 {number}", "user": f"u{number % 3}"}
    return exposure(f"req-{number}", **(values | changes))


def rating(number: int, value: int, **changes) -> dict:
    values = {"request_id": f"req-{number}", "at": NOON + timedelta(hours=1), "user": f"u{number % 3}"}
    names = ("comment", "correction", "scores", "event", "worker", "sequence")
    return values | {"rating": value} | dict.fromkeys(names) | changes


class Home:
    def __init__(self, root: Path, keys: Keyring) -> None:
        self.catalog = Catalog(f"sqlite:///{root / 'catalog.db'}")
        self.artifacts = Artifacts(root / "artifacts", keys)
        self.records = Records(root / "records", keys)
        self.instance = dg.DagsterInstance.ephemeral()
        self.instance.add_dynamic_partitions(endpoints.name, ["desk"])

    def run(
        self, day: str = DAY, policy: Policy | None = None, **rules
    ) -> tuple[TrafficRecord, dict[str, dg.AssetCheckEvaluation]]:
        key, found = self._materialise([traffic], day, policy, rules)
        evaluated = {e.check_name: e for e in found.get_asset_check_evaluations()}
        return self.records.load(TrafficRecord, str(key)), evaluated

    def check(self, policy: Policy) -> dg.AssetCheckEvaluation:
        """What the check of personal data says of the day as it was written."""
        selection = dg.AssetSelection.checks(checks.nothing_personal_in_traffic)
        _, found = self._materialise(selection, DAY, policy, {})
        return found.get_asset_check_evaluations()[0]

    def _materialise(
        self, selection, day: str, policy: Policy | None, rules: dict
    ) -> tuple[dg.MultiPartitionKey, dg.ExecuteInProcessResult]:
        changed = policy or load_policy()
        changed = changed.model_copy(update={"traffic": changed.traffic.model_copy(update=rules)})
        key = dg.MultiPartitionKey({"endpoint": "desk", "day": day})
        # A run of checks alone takes its partition as tags.
        tags = {"dagster/partition": str(key), "dagster/partition/endpoint": "desk", "dagster/partition/day": day}
        where = {"tags": tags} if isinstance(selection, dg.AssetSelection) else {"partition_key": key}
        return key, dg.materialize(
            [traffic, checks.nothing_personal_in_traffic, checks.no_gap_in_traffic, checks.traffic_with_consent],
            **where,
            instance=self.instance,
            resources={
                "catalog": self.catalog,
                "artifacts": self.artifacts,
                "records": self.records,
                "policy": dg.ResourceDefinition.hardcoded_resource(changed),
            },
            selection=selection,
            raise_on_error=False,
        )


@pytest.fixture(params=[NO_KEYS, KEY], ids=["no key", "a key"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    return Home(tmp_path, request.param)


def test_a_day_holds_its_requests_with_the_last_of_what_was_said_of_them(home: Home):
    exposures = [row(number) for number in range(1, 7)]
    exposures += [row(9, at=NOON + timedelta(days=1), sequence=9), row(10, endpoint="help", sequence=10)]
    feedback = [
        rating(1, 2, worker="w1", sequence=7),
        rating(1, 4, at=NOON + timedelta(hours=2), correction="더 나은 답", worker="w1", sequence=8),
        rating(1, 1, user="somebody else", at=NOON + timedelta(hours=3)),
        rating(2, 5, at=NOON + timedelta(days=3), scores={"tone": 0.5}),
        rating(9, 1),
    ]
    home.catalog.add_traffic(exposures, feedback)
    record, evaluated = home.run()
    assert (record.requests, record.users, record.rated, record.corrected) == (6, 3, 2, 1)
    assert record.is_whole and record.gaps == {}
    assert {name: one.passed for name, one in evaluated.items()} == {
        "nothing_personal_in_traffic": True,
        "no_gap_in_traffic": True,
        "traffic_with_consent": True,
    }
    frame = days.read(home.artifacts, "desk", DAY)
    assert frame["request_id"].to_list() == [f"req-{n}" for n in range(1, 7)]
    first, second = frame.rows(named=True)[:2]
    assert (first["rating"], first["correction"], first["ratings"], first["foreign_ratings"]) == (4, "더 나은 답", 3, 1)
    assert (second["rating"], second["scores"]) == (5, '{"tone": 0.5}')
    sealed = home.artifacts.upath(*days.file_of("desk", DAY)).read_bytes()
    assert sealed.startswith(b"PAR1") is not bool(home.artifacts.keys)
    assert home.run()[0] == record, "it is made again from the same rows"


def test_what_is_missing_is_said_and_what_was_refused_or_overlooked_is_not_kept(tmp_path: Path):
    home = Home(tmp_path, NO_KEYS)
    said = [row(1), row(2, consent=False), row(3, consent=True), row(7), row(8, worker="w2", sequence=4)]
    said.append(row(9, query="제 번호는 010-1234-5678입니다", sequence=8))
    home.catalog.add_traffic(said, [rating(2, 1, correction="to be forgotten")])
    record, evaluated = home.run()
    assert record.gaps == {"w1": 3} and record.masked_again == 1
    assert not evaluated["no_gap_in_traffic"].passed
    assert "3 entries of the log are missing (w1: 3)" in evaluated["no_gap_in_traffic"].description
    assert evaluated["no_gap_in_traffic"].severity is dg.AssetCheckSeverity.WARN
    frame = days.read(home.artifacts, "desk", DAY)
    refused = frame.rows(named=True)[1]
    assert (refused["query"], refused["response"], refused["correction"], refused["rating"]) == (None, None, None, 1)
    assert "010-1234-5678" not in frame["query"][5] and evaluated["nothing_personal_in_traffic"].passed
    assert evaluated["traffic_with_consent"].passed
    _, evaluated = home.run(consent="required")
    assert not evaluated["traffic_with_consent"].passed
    assert "4 requests are kept with their texts without consent" in evaluated["traffic_with_consent"].description


def test_a_verdict_names_the_rows_that_hold_personal_data(tmp_path: Path):
    home = Home(tmp_path, NO_KEYS)
    home.catalog.add_traffic([row(1), row(2, response="x@y")], [])
    home.run()
    frame = days.read(home.artifacts, "desk", DAY)
    verdict, rows = verdicts.nothing_personal(frame, lambda text: ["EMAIL"] if "@" in text else [])
    assert not verdict.passed and "1 texts hold personal data" in verdict.text
    assert rows == [{"request_id": "req-2", "column": "response", "found": "EMAIL"}]


def test_what_is_past_its_retention_goes_and_the_sums_and_running_experiments_stay(tmp_path: Path):
    home = Home(tmp_path, NO_KEYS)
    old = NOON - timedelta(days=40)
    home.catalog.create_experiment(experiment("concluded", duration_hours=2000))
    home.catalog.decide_experiment("concluded", "promote", "clear", {})
    home.catalog.create_experiment(experiment(duration_hours=2000))
    with home.catalog.database.write("test") as transaction:
        transaction.execute(tables.experiments.update().values(started_at=old))
    said = [row(1), row(2, at=old), row(3, at=old, experiment="concluded"), row(4, at=old, experiment="base-or-tuned")]
    home.catalog.add_traffic([*said, row(5, at=old, endpoint="help")], [rating(2, 3, at=old), rating(4, 3, at=old)])
    home.run(old.date().isoformat(), retention_days=3650)
    assert list(days.days_of(home.artifacts)) == [("desk", old.date().isoformat())]
    before = home.catalog.user_statistics(endpoint="desk", experiment="concluded")
    home.run(retention_days=30)
    assert list(days.days_of(home.artifacts)) == [("desk", DAY)]
    assert home.catalog.exposures()["request_id"].sort().to_list() == ["req-1", "req-4", "req-5"]
    assert home.catalog.feedback()["request_id"].to_list() == ["req-4"]
    # Sums whose rows are gone are not made anew from nothing, whatever the policy calls slow by now.
    after = home.catalog.user_statistics(endpoint="desk", experiment="concluded", slow_ms=1.0)
    assert after.equals(before) and after["requests"].sum() == 1
    assert [line["detail"]["requests"] for line in home.catalog.audit_log() if line["action"] == "traffic.expire"] == [
        2
    ]


def test_each_day_that_is_over_is_asked_for_until_it_is_compacted(tmp_path: Path):
    home = Home(tmp_path, NO_KEYS)
    home.catalog.add_traffic([row(1), row(2, at=NOON - timedelta(days=3)), row(3, at=datetime.now(UTC))], [])
    home.catalog.add_traffic([row(4, endpoint="gone")], [])
    sensor, cursor = make(60, first_pause=timedelta(0)), None

    def tick() -> dict[str, str]:
        nonlocal cursor
        resources = {"catalog": home.catalog, "records": home.records}
        result = sensor(dg.build_sensor_context(instance=home.instance, cursor=cursor, resources=resources))
        if isinstance(result, dg.SkipReason):
            return {}
        cursor = result.cursor
        return {request.run_key: request.partition_key for request in result.run_requests}

    def start(key: str, partition: str) -> dg.DagsterRun:
        name, _, attempt = key.rpartition(":")
        tags = {"dagster/partition": partition, "llmops/intent": name, "llmops/attempt": attempt}
        return create_run_for_test(home.instance, status=dg.DagsterRunStatus.STARTED, tags=tags)

    earlier = (NOON - timedelta(days=3)).date().isoformat()
    names = {f"{day}|desk": f"traffic:{day}|desk" for day in (earlier, DAY)}
    asked = tick()
    assert asked == {f"{name}:1": partition for partition, name in names.items()}
    runs = {partition: start(key, partition) for key, partition in asked.items()}
    assert tick() == {}, "what is under way is not asked for again"
    home.instance.report_run_canceled(runs[f"{DAY}|desk"])
    (again,) = tick().items()
    assert again == (f"{names[f'{DAY}|desk']}:2", f"{DAY}|desk")
    figures = {"requests": 1, "users": 1, "rated": 0, "corrected": 0, "failed": 0, "masked_again": 0}
    for partition in names:
        about = {"endpoint": "desk", "day": partition[:10], "file": "f", "is_whole": True}
        home.records.save(partition, TrafficRecord(**about, **figures))
    assert tick() == {}
    # Settled: the instance is not asked again before another day is over.
    home.instance = None
    assert tick() == {}
