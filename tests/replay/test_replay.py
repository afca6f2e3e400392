"""Replay before exposure: which requests are asked again, what is better, and what keeps a candidate from its users."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from llmops_assets.evaluation.llm_judge import compare as judge_pairs
from llmops_assets.experiments.inference import confidence_sequence
from llmops_assets.partitions import endpoints
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.replay import ReplayRecord
from llmops_assets.replay import verdicts
from llmops_assets.replay.assets import replay_report
from llmops_assets.replay.carry_out import replay
from llmops_assets.replay.checks import as_good_as_before
from llmops_assets.replay.compare import Answer, Pair, compare, win_share
from llmops_assets.replay.sample import Asked, sample
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.serving_rules import Replay
from llmops_assets.traffic import days
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.content import content_hash
from resources.records import Records
from resources.tracking import Tracking
from resources.traffic.context import Sent, context_of
from resources.trainer import Trainer
from tests.evaluation.test_llm_judge import server
from tests.resources.samples import exposure
from tests.serving.conftest import deployment_spec
from tests.serving.conftest import models as models

RULES = Replay(requests=40, max_new_tokens=8)
POLICY = load_policy()
NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)


def policy(**rules):
    serving = POLICY.serving.model_copy(update={"replay": RULES.model_copy(update=rules)})
    return POLICY.model_copy(update={"serving": serving})


def row(number: int, **changes) -> dict:
    values = {"experiment": None, "source": "model", "model_ref": "desk@1", "user": f"u{number % 10}"}
    values |= {"at": NOON + timedelta(seconds=number), "query": f"질문 {number}?", "response": f"답 {number}."}
    return exposure(f"req-{number}", **(values | {"prompt_tokens": 10} | changes))


def traffic(*rows: dict) -> pl.DataFrame:
    frame = pl.DataFrame(list(rows), infer_schema_length=None)
    given = [r.get("correction") for r in rows]
    return frame.with_columns(pl.Series("correction", given, dtype=pl.String), pl.col("consent").cast(pl.Boolean))


def test_every_user_gives_one_before_any_gives_a_second_and_the_budget_is_kept() -> None:
    rows = [row(n, user="chatty" if n < 80 else f"u{n}") for n in range(100)]
    found = sample(traffic(*rows), ["d"], "desk@2", RULES.model_copy(update={"requests": 25}), "assumed")
    users = Counter(asked.user for asked in found.requests)
    assert len(found.requests) == 25 and len(users) == 21 and users["chatty"] == 5
    assert sample(traffic(*reversed(rows)), ["d"], "desk@2", RULES, "assumed") == sample(
        traffic(*rows), ["d"], "desk@2", RULES, "assumed"
    )
    small = sample(traffic(*rows), ["d"], "desk@2", RULES.model_copy(update={"token_budget": 100}), "assumed")
    assert small.tokens == 5 * 18 <= 100 and len(small.requests) == 5
    assert small.left_out["beyond the budget of requests or tokens"] == 95


def test_what_may_not_or_cannot_be_replayed_is_left_out_with_its_reason() -> None:
    rows = [
        row(0, consent=False),
        row(1, status=502),
        row(2, response=None),
        row(3, query=None),
        row(4, model_ref="desk@2"),
        row(5, response="  "),
        row(6),
        row(7, query="질문 6? "),
        row(8, consent=True),
    ]
    found = sample(traffic(*rows), ["d"], "desk@2", RULES, "assumed")
    assert sorted(asked.request_id for asked in found.requests)[-1] == "req-8" and len(found.requests) == 2
    assert found.left_out == {
        "no consent": 1,
        "was not answered": 2,
        "no question or no answer on record": 2,
        "answered by the candidate itself": 1,
        "asked already, by somebody else or the same": 1,
    }
    strict = sample(traffic(*rows), ["d"], "desk@2", RULES, "required")
    assert [asked.request_id for asked in strict.requests] == ["req-8"]
    assert sample(None, [], "desk@2", RULES, "assumed").requests == ()


def talk(*turns: dict, session: str | None = "s", user: str = "u", first: int = 0) -> list[dict]:
    """Turns of one conversation, each of which was shown what came before it: 10 tokens a question, 5 an answer."""
    rows = []
    for place, changes in enumerate(turns):
        shown = {"prompt_tokens": 10 + 15 * place, "completion_tokens": 5}
        rows.append(row(first + place, session=session, user=user, **(shown | changes)))
    return rows


def test_a_conversation_is_replayed_with_the_turns_before_each_request() -> None:
    rows = talk(
        {"query": "환불되나요?", "response": "네."}, {"query": "언제요?", "response": "내일이요."}, {"query": "왜요?"}
    )
    found = {one.query: one for one in sample(traffic(*rows), ["d"], "desk@2", RULES, "assumed").requests}
    assert found["환불되나요?"].messages == ({"role": "user", "content": "환불되나요?"},)
    assert [m["role"] for m in found["왜요?"].messages] == ["user", "assistant"] * 2 + ["user"]
    assert [m["content"] for m in found["왜요?"].messages] == ["환불되나요?", "네.", "언제요?", "내일이요.", "왜요?"]
    assert found["언제요?"].conversation == "user: 환불되나요?\n\nassistant: 네.\n\nuser: 언제요?"


@pytest.mark.parametrize("session", ["s", None])
def test_what_follows_in_time_and_was_not_shown_what_came_before_stands_alone(session: str | None) -> None:
    """A new question of the same user, in the same session too: its prompt is no longer than its words."""
    rows = talk({}, {}, {"prompt_tokens": 10}, {"prompt_tokens": 25}, session=session)
    found = {
        one.request_id: len(one.messages) // 2
        for one in sample(traffic(*rows), ["d"], "x@1", RULES, "assumed").requests
    }
    assert found == {"req-0": 0, "req-1": 1, "req-2": 0, "req-3": 1}
    # A document of its own in the prompt, and a request whose tokens nobody counted.
    for tokens in (900, None):
        alone = sample(traffic(*talk({}, {"prompt_tokens": tokens}, session=session)), ["d"], "x@1", RULES, "assumed")
        assert [one.is_lone for one in alone.requests] == [True, True]


def test_a_turn_that_is_not_on_record_leaves_out_what_came_after_it() -> None:
    rows = talk({}, {"query": None, "response": None, "consent": False}, {}) + talk({}, {}, user="v", first=3)
    found = sample(traffic(*rows), ["d"], "desk@2", RULES, "assumed")
    assert sorted(one.request_id for one in found.requests) == ["req-0", "req-3", "req-4"]
    assert found.left_out == {"no consent": 1, "what came before it is not on record": 1}
    # What failed was shown to nobody: the next try goes on where the last answer was.
    failed = talk({}, {"status": 502, "response": None}, {"prompt_tokens": 25})
    last = next(one for one in sample(traffic(*failed), ["d"], "x@1", RULES, "assumed").requests if not one.is_lone)
    assert (last.request_id, *(m["content"] for m in last.messages)) == ("req-2", "질문 0?", "답 0.", "질문 2?")


def test_what_was_sent_is_on_record_and_is_asked_again() -> None:
    """The same words with other turns before them are other questions; nobody runs tools here."""
    told = {"role": "system", "content": "존댓말로"}

    def said(number: int, *before: dict, **more) -> dict:
        messages = [*before, {"role": "user", "content": "왜요?"}]
        turns, context = context_of({"messages": messages, **more})
        return row(number, query="왜요?", turns=turns, context=context, prompt_tokens=10 + 15 * number, session="s")

    turn = [{"role": "user", "content": "환불되나요?"}, {"role": "assistant", "content": "아니요."}]
    rows = [said(0), said(1, told), said(2, told, *turn), said(3, told, *turn), said(4, tools=[{"type": "function"}])]
    image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    rows += [said(5, {"role": "user", "content": image}), row(6, query="왜요?", turns=3, context=None)]
    found = sample(traffic(*rows), ["d"], "desk@2", RULES, "assumed")
    assert sorted(tuple(m["role"] for m in one.messages) for one in found.requests) == [
        ("system", "user"), ("system", "user", "assistant", "user"), ("user",)
    ]  # fmt: skip
    assert found.left_out == {
        "what came before it is not on record": 2,
        "asked with tools, which nobody runs here": 1,
        "asked already, by somebody else or the same": 1,
    }


def test_the_same_words_in_two_conversations_are_two_questions_and_alone_they_are_one() -> None:
    again = {"query": "더 자세히요"}
    rows = talk({}, again) + talk({}, again, user="v", session="t", first=2)
    rows += [row(4, query="영업시간은?"), row(5, query="영업시간은?", user="w")]
    found = sample(traffic(*rows), ["d"], "desk@2", RULES, "assumed")
    assert sum(one.query == "더 자세히요" for one in found.requests) == 2
    assert found.left_out == {"asked already, by somebody else or the same": 1}


def test_a_number_of_an_earlier_turn_is_not_the_models() -> None:
    known = asked(0, messages=Sent.after([("제 번호는 010-1234-5678 입니다", "네.")], "질문 0").messages)
    assert compared([(known, said("010-1234-5678 맞습니다"))]).personal == 0


def asked(number: int, answer: str = "네.", user: str | None = None, **changes) -> Asked:
    values = {"finish_reason": "stop", "latency_ms": 100.0, "prompt_tokens": 10}
    return Asked(f"req-{number}", user or f"u{number}", f"질문 {number}", answer, "desk@1", **(values | changes))


def compared(pairs: list[tuple[Asked, Answer]], judged: dict[str, float] | None = None):
    return compare(
        [a for a, _ in pairs],
        [b for _, b in pairs],
        alpha=0.05,
        expected_users=40,
        judged=judged or {},
        personal=Masker.of(POLICY).types,
    )


def said(text: str, finish_reason: str = "stop") -> Answer:
    return Answer(text, 3, finish_reason, 0.2)


@pytest.mark.parametrize(
    ("old", "new", "win", "by"),
    [
        (asked(0), said("네."), 0.5, "rule"),
        (asked(0), said("아니요."), 0.5, "rule"),
        (asked(0), said(" "), 0.0, "rule"),
        (asked(0), said("죄송하지만 도와드릴 수 없습니다."), 0.0, "rule"),
        (asked(0, "죄송하지만 도와드릴 수 없습니다."), said("네."), 1.0, "rule"),
        (asked(0), said("그것은 이런", "length"), 0.0, "rule"),
        (asked(0, "모릅니다.", correction="1,200원입니다."), said("1,200원입니다."), 1.0, "correction"),
        (asked(0, "1,200원입니다.", correction="1,200원입니다."), said("900원입니다."), 0.0, "correction"),
        (asked(1), said("아니요."), 1.0, "judge"),
    ],
)
def test_who_says_which_answer_is_better(old: Asked, new: Answer, win: float, by: str) -> None:
    (pair,) = compared([(old, new)], {"req-1": 1.0}).pairs
    assert (pair.win, pair.by) == (win, by)
    assert (pair.change == 0) == (old.answer == new.text)


def test_the_interval_is_over_users_and_has_a_width_where_nobody_differs() -> None:
    pairs = [Pair(asked(n, user=f"u{n % 30}"), said("x"), 1.0 if n < 900 else 0.5, "judge", 1.0) for n in range(960)]
    every = win_share(pairs, 0.05, 40)
    assert every.n == 30 and every.difference == pytest.approx(30 / 32 - 0.5 + 1 / 32)
    # The numbers of the sequence itself, with the least variance of 30 alike users: q = 3/30, R = the further end.
    alike = win_share([Pair(asked(n), said("x"), 0.0, "judge", 1.0) for n in range(30)], 0.05, 40)
    se = (0.1 * 0.9 * 1.0 / 30) ** 0.5
    expected = confidence_sequence(-0.5, se, 30, 40, 0.05)
    assert (alike.se, alike.low, alike.high) == pytest.approx((se, expected.low, expected.high))
    assert alike.high < 0
    # One user who asked a thousand times proves nothing.
    loud = [Pair(asked(n, user="loud"), said("x"), 0.0, "judge", 1.0) for n in range(1000)]
    assert win_share([*loud, Pair(asked(0, user="b"), said("x"), 0.5, "rule", 1.0)], 0.05, 40).high > 0
    assert win_share(loud, 0.05, 40) is None


def record_of(pairs: list[tuple[Asked, Answer]], judged: dict[str, float] | None = None) -> ReplayRecord:
    from llmops_assets.replay.carry_out import _record
    from llmops_assets.replay.sample import Sample

    chosen = Sample(tuple(a for a, _ in pairs), ("2026-01-01",), Counter(), 100)
    return _record(MODEL, deployment_spec(), policy(), chosen, compared(pairs, judged))


MODEL = RegisteredModelRecord(
    name="desk",
    version=2,
    path="/m",
    content_hash="c",
    dataset="d@v1",
    recipe="r",
    family="llama",
    job_type="SFT",
    mlflow_run_id=None,
    card="/m/card.md",
)


def test_what_is_worse_beyond_chance_blocks_and_what_is_not_known_does_not() -> None:
    worse = record_of([(asked(n), said(f"다른 답 {n}")) for n in range(40)], {f"req-{n}": 0.0 for n in range(40)})
    found = verdicts.replayed(worse, RULES)
    assert not found.passed and "its answers are worse than those that users got" in found.text
    few = record_of([(asked(n), said("x")) for n in range(3)], {f"req-{n}": 0.0 for n in range(3)})
    assert verdicts.replayed(few, RULES).passed
    as_good = record_of([(asked(n), said(f"다른 답 {n}")) for n in range(40)])
    assert verdicts.replayed(as_good, RULES).passed and as_good.won == as_good.lost == 0
    refusing = record_of(
        [(asked(n), said("죄송하지만 도와드릴 수 없습니다." if n < 12 else "네.")) for n in range(100)]
    )
    assert refusing.refusals_now == 12 and "it refuses 12 of 100" in verdicts.replayed(refusing, RULES).text
    telling = record_of([(asked(n), said("전화 010-1234-5678" if n < 2 else "네.")) for n in range(40)])
    found = verdicts.replayed(telling, RULES)
    assert not found.passed and "2 of its 40 answers hold personal data" in found.text
    # What a model says is kept masked.
    assert not any("1234-5678" in one.now for one in telling.changed_most) and telling.changed_most


def test_a_number_that_was_in_the_question_is_not_the_models() -> None:
    repeated = asked(0, "[전화]", correction=None)
    mine = Asked("r", "u", "제 번호는 010-1234-5678 입니다", "네.", "desk@1", "stop", 1.0, 5)
    assert compared([(mine, said("010-1234-5678 맞습니다")), (repeated, said("네."))]).personal == 0


def test_the_policys_judge_is_asked_in_both_orders(tmp_path: Path) -> None:
    with server(lambda a, b: "A" if "좋은" in a else "B" if "좋은" in b else "A") as (endpoint, prompts):
        pairs = [("k1", "질문", "좋은 답", "답"), ("k2", "둘째", "답", "좋은 답"), ("k3", "질문", "하나", "둘")]
        assert judge_pairs(endpoint, pairs, tmp_path) == {"k1": 1.0, "k2": 0.0, "k3": 0.5}
        assert len(prompts) == 6
        assert judge_pairs(endpoint, pairs, tmp_path)["k1"] == 1.0 and len(prompts) == 6
    with server(lambda a, b: "perhaps") as (endpoint, _):
        assert judge_pairs(endpoint, [("k", "질문", "하나", "셋")], tmp_path / "other") == {}


def test_an_endpoint_that_answers_from_documents_is_not_replayed(tmp_path: Path) -> None:
    spec = deployment_spec(serve_target="RAG", job_type="RAG_TUNING", rag={"index": "docs"})
    found = replay(MODEL, spec, Artifacts(tmp_path), policy(), lambda *_: pytest.fail("it was asked"), tmp_path)
    assert found.pairs == 0 and "passages" in found.note and verdicts.replayed(found, RULES).passed


def test_a_replay_on_record_counts_for_the_same_weights_and_rules_and_for_a_day() -> None:
    record, now = record_of([(asked(n), said("네.")) for n in range(3)]), datetime.now(UTC)
    assert verdicts.is_of(record, "c", policy(), now)
    assert not verdicts.is_of(record, "other", policy(), now)
    assert not verdicts.is_of(record, "c", policy(requests=41), now)
    assert not verdicts.is_of(record, "c", policy(), now + timedelta(days=2))
    assert not verdicts.is_of(None, "c", policy(), now)


def test_a_registered_model_is_asked_what_users_asked_and_nobody_is_exposed(
    tmp_path: Path, models: dict[str, Path]
) -> None:
    catalog, artifacts = Catalog(f"sqlite:///{tmp_path}/catalog.db"), Artifacts(tmp_path / "artifacts")
    tracking, records = Tracking(f"sqlite:///{tmp_path}/mlflow.db"), Records(tmp_path / "records")
    tags = {"dataset": "d@v1", "recipe": "r", "family": "llama", "job_type": "SFT", "state": "approved"}
    tracking.register("desk", models["new"], None, tags | {"content_hash": content_hash(models["new"])})
    catalog.want_endpoint(deployment_spec("desk", model_ref="desk@1"))
    rows = [row(n, user=f"u{n}", model_ref="older@1") for n in range(6)]
    catalog.add_exposures(rows)
    asked_at, until = days.bounds(NOON.date().isoformat())
    exposures = catalog.exposures(endpoint="desk", since=asked_at, until=until)
    day = days.compact(exposures, catalog.feedback(endpoint="desk"), str)
    days.write(artifacts, "desk", NOON.date().isoformat(), day.frame)
    before = catalog.request_count(endpoint="desk")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(endpoints.name, ["desk"])
        result = dg.materialize(
            [replay_report, as_good_as_before],
            partition_key="desk",
            instance=instance,
            resources={
                "catalog": catalog,
                "records": records,
                "artifacts": artifacts,
                "tracking": tracking,
                "trainer": Trainer(dg.PipesSubprocessClient(), locks=tmp_path / "locks", threads=1),
                "policy": dg.ResourceDefinition.hardcoded_resource(policy()),
            },
        )
    record = records.load(ReplayRecord, "desk")
    assert (record.model_ref, record.pairs, record.users) == ("desk@1", 6, 6)
    assert record.models_then == ["older@1"] and record.days == [NOON.date().isoformat()]
    assert 0 < record.tokens_used <= record.tokens_reserved and record.latency_ms_now is not None
    assert len(record.changed_most) == 6 and all(one.question.startswith("질문") for one in record.changed_most)
    assert catalog.request_count(endpoint="desk") == before
    shown = result.asset_materializations_for_node("replay_report")[0].metadata
    assert len(shown["answers that changed most"].value.records) == 6
    (check,) = result.get_asset_check_evaluations()
    assert check.check_name == "as_good_as_before"
