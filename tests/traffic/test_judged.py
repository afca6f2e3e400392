"""A judge's verdicts on traffic are corrected for its own errors, which people's reviews show."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from llmops_assets.evaluation.judge_error import Calibration, corrected_share
from llmops_assets.evaluation.lone_judge import good_or_bad
from llmops_assets.partitions import endpoints
from llmops_assets.records.traffic import JudgedAnswer, JudgedTrafficRecord
from llmops_assets.specs.evaluation_rules import JudgeEndpoint
from llmops_assets.specs.experiment_rules import Judging
from llmops_assets.specs.policy import load_policy
from llmops_assets.traffic import assets, judged
from resources.encryption import NO_KEYS
from sensors.traffic import make
from tests.traffic.test_traffic import DAY, NOON, Home, rating, row


@pytest.mark.parametrize(
    ("positive", "n", "se", "sp", "expected"),
    [
        # Lang & Reiczigel 2014, examples 1 to 4, as the documentation of prevSeSp in R's asht (Fay) has them.
        (4060, 11284, (178, 179), (358, 359), (0.349, 0.372)),
        (51, 2971, (32, 33), (20, 20), (0.0, 0.053)),
        (0.06 * 11862, 11862, (8, 10), (12, 12), (0.0, 0.147)),
        (259, 509, (84, 127), (96, 109), (0.58, 0.87)),
        (51, 509, (23, 41), (187, 195), (0.037, 0.195)),
    ],
)
def test_the_interval_is_the_published_one(positive, n, se, sp, expected):
    found = corrected_share(positive, n, Calibration(se[1], se[0], sp[1], sp[0]))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.005 if expected[0] == 0.58 else 0.0006)


def test_the_estimate_is_rogan_and_gladens_and_the_interval_holds_it():
    """epiR's documentation of epi.prev: 23 of 150 cows, Se .96, Sp .89: 5.1 per 100."""
    found = corrected_share(23, 150, Calibration(100, 96, 100, 89))
    assert found.share == pytest.approx(0.051, abs=0.0005) and found.low <= found.share <= found.high


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    for _ in range(400):
        judge = Calibration(40, int(rng.binomial(40, 0.9)), 40, int(rng.binomial(40, 0.8)))
        found = corrected_share(int(rng.binomial(200, 0.7 * 0.9 + 0.3 * 0.2)), 200, judge)
        inside += found is not None and found.low <= 0.7 <= found.high
    # 400 at .95 fall below .92 once in a thousand.
    assert inside >= 0.92 * 400


@pytest.mark.parametrize(
    ("good", "judged_answers", "calibration"),
    [(0, 0, (9, 9, 9, 9)), (5, 9, (0, 0, 9, 9)), (5, 9, (9, 9, 0, 0)), (5, 9, (10, 5, 10, 5)), (5, 9, (10, 1, 10, 2))],
)
def test_what_a_judge_without_calibration_or_by_chance_says_is_not_corrected(good, judged_answers, calibration):
    assert corrected_share(good, judged_answers, Calibration(*calibration)) is None


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [("GOOD", True), ("good.", True), ("**BAD**", False), ("GOOD or BAD", None), ("goodness", None), ("", None)],
)
def test_a_reply_that_is_no_verdict_is_none(reply, verdict):
    assert good_or_bad(reply) is verdict


class Judge(HTTPServer):
    """An OpenAI-compatible server that calls every answer good but those that hold the word 틀린."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.prompts: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        self.server.prompts.append(prompt)
        answer = prompt.partition("<answer>")[2].partition("</answer>")[0]
        message = {"role": "assistant", "content": "BAD" if "틀린" in answer else "GOOD"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        about = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
        data = json.dumps({**about, "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Nothing: the test's output is its own."""


@pytest.fixture
def judge() -> Iterator[Judge]:
    server = Judge()
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    yield server
    server.shutdown()
    server.server_close()


def with_judge(judge: Judge, **rules):
    policy = load_policy()
    asked = JudgeEndpoint(base_url=f"http://127.0.0.1:{judge.server_port}/v1", model="big", concurrency=2)
    evaluation = policy.evaluation.model_copy(update={"judge": asked})
    return policy.model_copy(update={"evaluation": evaluation, "judging": Judging(**rules)})


def materialise(home: Home, policy) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [assets.traffic, assets.judged_traffic],
        partition_key=dg.MultiPartitionKey({"endpoint": "desk", "day": DAY}),
        instance=home.instance,
        resources={
            "catalog": home.catalog,
            "artifacts": home.artifacts,
            "records": home.records,
            "policy": dg.ResourceDefinition.hardcoded_resource(policy),
        },
        raise_on_error=False,
    )


def test_a_day_is_judged_beside_what_people_say(tmp_path: Path, judge: Judge):
    home = Home(tmp_path, NO_KEYS)
    answers = [row(n, response=f"{'틀린' if n % 4 == 0 else '맞는'} 답 {n}") for n in range(40)]
    answers[39] |= {"status": 502, "response": None}
    home.catalog.add_traffic(answers, [rating(n, 1) for n in range(8)])
    for n in range(8):
        home.catalog.reviews.decide(f"req-{n}", "lee", "reject" if n in (0, 4, 5) else "accept", None, None)
    result = materialise(home, with_judge(judge, shares={"desk": 1.0}))
    assert result.success
    record = home.records.load(JudgedTrafficRecord, f"{DAY}|desk")
    assert len(record.verdicts) == 39 and sum(one.sampled for one in record.verdicts) == 39
    people = {one.request_id: one.people for one in record.verdicts if one.people is not None}
    assert people == {f"req-{n}": n not in (0, 4, 5) for n in range(8)}
    found = judged.summary([record])
    # Of five good ones it calls five good, of three bad ones two bad: it did not see what was wrong with the fifth.
    assert (found.calibration, found.called_good) == (Calibration(5, 5, 3, 2), 29)
    assert found.corrected is not None and found.corrected.share < 29 / 39
    assert found.kappa == pytest.approx(0.7143, abs=1e-4)
    (event,) = result.asset_materializations_for_node("judged_traffic")
    shown = {name: value.value for name, value in event.metadata.items()}
    assert shown["judged by people too"] == 8 and "corrected" in shown["good answers of base@1"]
    assert all("답" in prompt for prompt in judge.prompts) and len(judge.prompts) == 39
    # No word of anybody is in the record.
    assert "답" not in record.model_dump_json()


def test_a_sample_is_the_same_each_time_and_no_larger_than_its_bound(tmp_path: Path, judge: Judge):
    home = Home(tmp_path, NO_KEYS)
    home.catalog.add_traffic([row(n) for n in range(200)], [])
    for _ in range(2):
        materialise(home, with_judge(judge, share=0.2))
    record = home.records.load(JudgedTrafficRecord, f"{DAY}|desk")
    first, second = judge.prompts[: len(record.verdicts)], judge.prompts[len(record.verdicts) :]
    assert 20 <= len(record.verdicts) <= 60 and sorted(first) == sorted(second)
    materialise(home, with_judge(judge, share=1.0, most_per_day=7))
    assert len(home.records.load(JudgedTrafficRecord, f"{DAY}|desk").verdicts) == 7


def test_without_a_judge_or_with_one_that_is_away_the_day_itself_is_there(tmp_path: Path, judge: Judge):
    home = Home(tmp_path, NO_KEYS)
    home.catalog.add_traffic([row(n) for n in range(3)], [])
    for policy, words in ((load_policy(), "set evaluation.judge"), (with_judge(judge, share=1.0), "did not answer")):
        if "answer" in words:
            judge.shutdown()
            judge.server_close()
        result = materialise(home, policy)
        (failed,) = [event for event in result.all_events if event.is_step_failure]
        assert failed.step_key.endswith("judged_traffic") and result.asset_materializations_for_node("traffic")
        assert words in str(failed.step_failure_data.error) + str(failed.step_failure_data.user_failure_data)
    assert home.records.find(JudgedTrafficRecord, f"{DAY}|desk") is None


def test_over_time_and_by_model_it_is_corrected_by_all_that_people_judged():
    def day(number: int, good: int, people: dict[int, bool]) -> JudgedTrafficRecord:
        verdicts = [
            JudgedAnswer(request_id=str(n), model_ref=f"m@{n % 2}", good=n < good, sampled=True, people=people.get(n))
            for n in range(20)
        ]
        name = f"2026-11-{number:02}"
        return JudgedTrafficRecord(endpoint="desk", day=name, judge="big", requests=20, share=1, verdicts=verdicts)

    every = [day(1, 15, {0: True, 19: False}), day(2, 10, {1: True, 18: False, 9: False})]
    assert judged.summary(every).calibration == Calibration(2, 2, 3, 2)
    assert judged.summary(every, "m@0").judged == 20
    assert judged.over_time(every).axes[0].get_legend() is not None
    assert judged.over_time([day(1, 15, {}), day(2, 10, {})]).axes[0].lines


def test_only_a_day_of_an_endpoint_that_is_judged_asks_for_it(tmp_path: Path, judge: Judge):
    home = Home(tmp_path, NO_KEYS)
    home.instance.add_dynamic_partitions(endpoints.name, ["other"])
    home.catalog.add_traffic([row(1), row(2, endpoint="other", at=NOON + timedelta(seconds=9))], [])
    sensor = make(5, is_judged=with_judge(judge, shares={"desk": 0.1}).is_judged)
    resources = {"catalog": home.catalog, "records": home.records}
    found = sensor(dg.build_sensor_context(instance=home.instance, resources=resources))
    assert isinstance(found, dg.SensorResult)
    asked = {
        r.partition_key.partition("|")[2]: {k.to_user_string() for k in r.asset_selection} for r in found.run_requests
    }
    assert asked == {"desk": {"traffic", "judged_traffic"}, "other": {"traffic"}}
