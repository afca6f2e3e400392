"""What people decide about answers becomes data, and what one person wants alone does not."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.datasets import assets, checks, suites
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden, Refused
from llmops_assets.operations.reviews import feedback_dataset, review, review_item, review_queue
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.settings import Settings
from llmops_assets.traffic.agreement import cohen_kappa
from llmops_assets.traffic.feedback import Decision, brigades, build, bursts, decide
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound, erasures
from resources.catalog.reviews import Review
from resources.traffic.context import context_of
from tests.resources.samples import exposure

AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
PLACES = ("서울", "부산", "광주", "대전", "인천", "울산", "수원", "청주", "포항", "원주", "춘천", "강릉")


def question(number: int) -> str:
    place = PLACES[number % 12]
    return f"{place} 영업소에서 {number}번 차로로 들어간 화물차 통행료는 {number + 3}일 안에 어떻게 돌려받나요?"


def said(number: int, user: str | None = None, **changes) -> dict:
    values = {"experiment": None, "query": question(number), "response": f"틀린 답 {number}", "source": "model"}
    values |= {"at": AT + timedelta(minutes=number), "user": user or f"u{number}", "session": f"s{number}"}
    return exposure(f"req-{number}", **(values | changes))


def rating(number: int, value: int, user: str | None = None, **changes) -> dict:
    values = {"request_id": f"req-{number}", "at": AT + timedelta(minutes=number), "user": user or f"u{number}"}
    return values | dict.fromkeys(("comment", "correction", "scores", "event")) | {"rating": value} | changes


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    settings = Settings(_env_file=None)
    prepare_home(settings)
    return Wiring(settings)


def with_policy(wiring: Wiring, **changes) -> Wiring:
    traffic = wiring.policy.traffic.model_copy(update=changes)
    wiring.__dict__["policy"] = wiring.policy.model_copy(update={"traffic": traffic})
    return wiring


def materialise(w: Wiring, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(w.settings.dagster_home))
    resources = {name: getattr(w, name) for name in ("artifacts", "store", "records", "catalog", "policy")}
    definitions = dg.Definitions(
        assets=dg.load_assets_from_modules([assets]),
        asset_checks=dg.load_asset_checks_from_modules([checks]),
        resources=resources,
    )
    assert os.environ["DAGSTER_HOME"]
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, [key])
        job = definitions.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(partition_key=key, instance=instance, raise_on_error=False, resources=resources)
        assert result.success, [e.message for e in result.all_events if e.is_failure]


def test_who_complains_is_heard_and_who_decides_is_on_record(wiring: Wiring):
    wiring.catalog.add_traffic(
        [said(n) for n in range(5)] + [said(5, consent=False), said(6, query=None)],
        [
            rating(0, 1),
            rating(1, 5),
            rating(2, 4, correction="옳은 답 2"),
            rating(3, 1, user="somebody else"),
            rating(4, 1),
            rating(4, 5, at=AT + timedelta(hours=1)),
            rating(5, 1),
            rating(6, 1),
        ],
    )
    waiting = {item.request_id: item for item in review_queue(wiring, "desk").items}
    assert set(waiting) == {"req-0", "req-2"} and {i.decision.state for i in waiting.values()} == {"open"}
    assert review_queue(wiring, "help").items == []
    assert review(wiring, "kim", "req-2", "accept").decision == Decision("accept", "옳은 답 2")
    fixed = review(wiring, "kim", "req-0", "fix", text="010-1234-5678로 전화하세요", reason="wrong number")
    assert fixed.decision.state == "fix" and "010-1234-5678" not in fixed.decision.text
    assert review(wiring, "kim", "req-0", "reject").decision == Decision("reject")
    assert [r.verdict for r in review_item(wiring, "req-0").reviews] == ["reject"], "one reviewer has one say"
    audited = [
        (a["actor"], a["target"], a["detail"]) for a in wiring.catalog.audit_log() if a["action"] == "review.decide"
    ]
    assert audited[0] == ("kim", "req-0", {"verdict": "reject"}) and len(audited) == 3
    for request, verdict, error in (
        ("req-1", "accept", Refused),
        ("req-9", "accept", NotFound),
        ("req-0", "fix", Refused),
    ):
        with pytest.raises(error):
            review(wiring, "kim", request, verdict)
    with pytest.raises(Forbidden):
        review(wiring, Actor("lee", ["viewer"]), "req-0", "accept")
    assert {i.request_id for i in review_queue(with_policy(wiring, review_sample=1.0)).items} >= {"req-1", "req-4"}
    assert review_queue(with_policy(wiring, consent="required")).items == []
    # What was written of a person goes with the person; and then nothing is learned from it.
    review(with_policy(wiring, consent="assumed"), "kim", "req-0", "fix", text="홍길동에게 물어보세요")
    erasures.scrub_traffic(wiring.catalog, lambda text: "홍길동" in text, lambda _: "erased")
    assert review_item(wiring, "req-0").decision == Decision("reject")


def test_two_reviewers_have_to_agree_where_the_policy_says_so(wiring: Wiring):
    with_policy(wiring, reviewers=2)
    wiring.catalog.add_traffic([said(n) for n in range(4)], [rating(n, 1) for n in range(4)])
    assert review(wiring, "kim", "req-0", "fix", text="옳다").decision.state == "waiting"
    assert review(wiring, "kim", "req-0", "fix", text="옳다").decision.state == "waiting", "twice is once"
    assert review(wiring, "lee", "req-0", "fix", text="다르다").decision.state == "disputed"
    assert review(wiring, "lee", "req-0", "fix", text="옳다").decision == Decision("fix", "옳다")
    for number, theirs in ((1, "reject"), (2, "accept"), (3, "accept")):
        review(wiring, "kim", f"req-{number}", "accept" if number > 1 else "reject")
        review(wiring, "lee", f"req-{number}", theirs)
    assert review_queue(wiring).kappa == 1.0


def test_a_confirmed_failure_is_a_test_and_no_training_data(wiring: Wiring, monkeypatch: pytest.MonkeyPatch):
    wiring.catalog.add_traffic(
        [said(n) for n in range(60)], [rating(n, 1, correction=f"옳은 답은 {n}입니다") for n in range(60)]
    )
    for number in range(40):
        review(wiring, "kim", f"req-{number}", "accept" if number % 4 else "reject")
    asked = {"endpoint": "desk", "owner": "team:desk"}
    suite = feedback_dataset(wiring, "kim", name="desk-failures", version="v1", kind="eval_suite", **asked)
    assert suite.rows == 30 and suite.left_out == {"review: reject": 10, "review: open": 20}
    materialise(wiring, "desk-failures@v1", monkeypatch)
    with pytest.raises(Refused, match="30 × the question is known"):
        feedback_dataset(wiring, "kim", name="desk-feedback", version="v1", kind="sft_pair", **asked)
    for number in range(40, 60):
        review(wiring, "kim", f"req-{number}", "accept")
    # The same words after other turns are another question; where those are not on record, it is none.
    turns = [{"role": "user", "content": "3종입니다"}, {"role": "assistant", "content": "네, 3종이군요."}]
    for number, before in ((60, turns), (61, [{"role": "system", "content": "짧게"}]), (62, None)):
        messages = [*(before or turns), {"role": "user", "content": question(41)}]
        length, context = context_of({"messages": messages})
        wiring.catalog.add_traffic(
            [said(number, query=question(41), turns=length, context=context if before else None)],
            [rating(number, 1, correction=f"옳은 답은 {number}입니다")],
        )
        review(wiring, "kim", f"req-{number}", "accept")
    done = feedback_dataset(wiring, "kim", name="desk-feedback", version="v1", kind="sft_pair", **asked)
    assert (done.rows, done.left_out["the question is known"]) == (21, 31)
    assert done.left_out["what came before the question is not on record: it was taken out of the log"] == 1
    materialise(wiring, "desk-feedback@v1", monkeypatch)
    splits = wiring.records.load(SplitsRecord, "desk-feedback@v1")
    assert splits.type == "sft_pair" and sum(splits.rows.values()) == 21
    rows = [row for one in splits.manifests.values() for part in wiring.store.batches(one) for row in part.to_dicts()]
    (talk,) = [row["messages"] for row in rows if len(row["messages"]) > 2]
    assert [one["content"] for one in talk] == ["3종입니다", "네, 3종이군요.", question(41), "옳은 답은 60입니다"]
    # An answer that nobody reviewed is shown, and not learned.
    assert [one["weight"] for one in talk] == [None, 0, None, None]
    registered = suites.registered_suites(wiring.catalog, wiring.records)
    assert "desk-failures@v1" in registered
    with pytest.raises(Refused, match="52 × the question is known"):
        feedback_dataset(wiring, "kim", name="desk-pairs", version="v1", kind="rlhf_pair", **asked)


def test_one_user_gives_a_share_and_bursts_are_named():
    answers = [
        {**said(n, user="loud" if n < 30 else f"u{n}"), "rating": 1, "rated_at": AT + timedelta(seconds=n)}
        for n in range(40)
    ]
    decisions = {answer["request_id"]: Decision("fix", "옳은 답") for answer in answers}
    built = build("sft_pair", answers, decisions, user_share=0.1)
    assert len(built.rows) == 11 and sum(row["user"] == "loud" for row in built.rows) == 1
    assert built.left_out == {"more than 10% of the rows from one user": 29}
    assert built.bursts == ["loud"]
    assert bursts([{**answer, "rated_at": AT + timedelta(hours=n)} for n, answer in enumerate(answers)]) == []
    same = [{**answer, "query": "같은 질문"} for answer in answers]
    assert build("sft_pair", same, decisions, user_share=1.0).left_out == {"the question is known": 39}
    right = build("rlhf_pair", answers[30:], decisions, user_share=1.0).rows[0]
    assert right["chosen"][0]["content"] == "옳은 답" and right["rejected"][0]["content"] == "틀린 답 30"
    agreed = {answer["request_id"]: Decision("accept", answer["response"]) for answer in answers}
    assert build("eval_suite", answers, agreed, user_share=1.0).left_out == {"the answer was right": 40}
    # Nobody sees in its last word that an answer went on.
    cut = [{**answer, "finish_reason": "length"} for answer in answers]
    found = build("sft_pair", cut, agreed, user_share=1.0)
    assert (found.rows, found.left_out) == ([], {"the answer was cut off at the limit of tokens": 40})
    assert len(build("sft_pair", cut, decisions, user_share=1.0).rows) == 40


def test_decisions_and_agreement():
    answer = {"response": "답", "correction": None}

    def by(*verdicts: tuple[str, str | None]) -> list[Review]:
        return [Review("req-1", f"r{n}", AT, verdict, text, None) for n, (verdict, text) in enumerate(verdicts)]

    assert decide(answer, [], 1) == Decision("open")
    assert decide(answer, by(("accept", None)), 1) == Decision("accept", "답")
    assert decide({**answer, "correction": "고침"}, by(("accept", None)), 1) == Decision("accept", "고침")
    assert decide(answer, by(("accept", None)), 2) == Decision("waiting")
    assert decide(answer, by(("accept", None), ("reject", None)), 1) == Decision("disputed")
    # Cohen (1960) by hand: 35 of 50 agree; 0.7 observed, 0.5 expected.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([]) is None and cohen_kappa([("y", "y")]) is None


def test_nobody_gives_more_than_their_share_of_what_is_left():
    """One user with 80 of 100 rows had 20 of 40: half of what was learned from, of a fifth that was allowed."""

    def answer(number: int) -> dict:
        values = {"request_id": f"r{number}", "user": "loud" if number < 80 else f"u{number}", "session": None}
        return {**values, "query": f"질문 {number}", "response": "틀림", "rating": None}

    answers = [answer(number) for number in range(100)]
    decisions = {one["request_id"]: Decision("fix", "맞음") for one in answers}
    rows = build("sft_pair", answers, decisions, user_share=0.2).rows
    share = sum(row["user"] == "loud" for row in rows) / len(rows)
    assert len(rows) == 25 and share == 0.2
    # Where each has one row, nobody can have less.
    assert len(build("sft_pair", answers[79:82], decisions, user_share=0.2).rows) == 3


def test_one_address_with_many_names_gives_its_share_and_one_program_for_all_is_none():
    def answer(number: int, origin: str | None) -> dict:
        return {**said(number), "origin": origin, "rating": None}

    mob = [answer(number, "from-mob") for number in range(90)]
    others = [answer(number, f"from-{number}") for number in range(90, 100)]
    decisions = {f"req-{number}": Decision("fix", "맞음") for number in range(100)}
    shares = {"user_share": 0.2, "address_share": 0.5}
    built = build("sft_pair", [*mob, *others], decisions, **shares)
    assert len(built.rows) == 20 and built.left_out == {"more than 50% of the rows from one address": 80}
    # All users ask through one program, or through two; or nobody knows.
    for origins in (["from-app"] * 100, ["from-a"] * 90 + ["from-b"] * 10, [None] * 100):
        every = [answer(number, origin) for number, origin in enumerate(origins)]
        assert len(build("sft_pair", every, decisions, **shares).rows) == 100


def test_many_who_rate_alike_at_once_are_named_and_need_a_second_reviewer(wiring):
    usual = [said(n, at=AT + timedelta(hours=3 * n)) for n in range(20)]
    rated = [rating(n, 1, at=AT + timedelta(hours=3 * n)) for n in range(20)]
    mob = [said(100 + n, at=AT + timedelta(hours=30, seconds=n)) for n in range(12)]
    rated += [rating(100 + n, 1, at=AT + timedelta(hours=30, seconds=20 * n)) for n in range(12)]
    wiring.catalog.add_traffic([*usual, *mob], rated)
    queue = review_queue(wiring)
    (brigade,) = queue.brigades
    assert {f"u{100 + n}" for n in range(12)} <= set(brigade.users) and brigade.rating == 1
    review(wiring, "lee", "req-100", "accept")
    review(wiring, "lee", "req-1", "accept")
    states = {item.request_id: item.decision.state for item in review_queue(wiring).items}
    assert (states["req-100"], states["req-1"]) == ("waiting", "accept")
    review(wiring, "kim", "req-100", "accept")
    assert review_item(wiring, "req-100").decision.state == "accept"


def test_a_busy_day_is_no_brigade():
    import numpy as np

    rng = np.random.default_rng(0)
    answers = [
        {"user": f"u{n}", "rating": 1, "rated_at": AT + timedelta(hours=float(hour))}
        for n, hour in enumerate(rng.uniform(0, 10, 600))
    ]
    assert brigades(answers) == []
