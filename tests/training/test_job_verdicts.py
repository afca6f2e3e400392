"""What a training of each job type is refused for, though its run was green and its loss fell."""

import math
from typing import Any

import pytest

from llmops_assets.records.training import AdapterRecord, CurvePoint, MergedModelRecord
from llmops_assets.training import job_verdicts, merge_verdicts


class Plan:
    """The part of a plan that these verdicts look at."""

    def __init__(self, job_type: str, **figures: float) -> None:
        self.spec, self.figures = {"job_type": job_type}, figures
        self.rows, self.truncated_rows, self.failures = {"train": 100}, 0, {}


def trained(**figures: float) -> AdapterRecord:
    numbers = {"steps": 9, "first_loss": 2.0, "last_loss": 1.0, "seconds": 1.0, "weight_change": 1.0}
    empty = dict.fromkeys(("resumed_from", "eval_loss", "tokens_per_second", "peak_memory_bytes", "mlflow_run_id"))
    names = {"dataset": "d@v1", "recipe": "r-1", "training_key": "k", "path": "/x", "content_hash": "h"}
    fixed: dict[str, Any] = {"method": "lora", "reused": False, "non_finite_weights": 0}
    curve = [CurvePoint(step=1, loss=2.0), CurvePoint(step=9, loss=1.0)]
    return AdapterRecord(**numbers, **empty, **names, **fixed, curve=curve, figures=figures)


GOOD_REWARD = {"reward_accuracy": 0.9, "reward_pairs": 200.0, "reward_margin": 1.0, "answer_spread": 1.2}
GOOD_POLICY = {**GOOD_REWARD, "kl": 0.05, "largest_kl": 0.1, "policy_first_reward": 0.1, "policy_last_reward": 0.9}
GOOD_DPO = {
    "reward_accuracy": 0.9,
    "reward_pairs": 200.0,
    "chosen_reward": 0.3,
    "rejected_reward": -0.4,
    "chosen_change": 0.1,
}
GOOD_ENCODER = {"cosine_own": 0.8, "cosine_others": 0.2, "cosine_among_passages": 0.3, "measured_passages": 64.0}


@pytest.mark.parametrize(
    ("job", "good", "change", "says"),
    [
        ("RLHF", GOOD_POLICY, {"answer_spread": 0.001}, "ignores the answer"),
        ("RLHF", GOOD_POLICY, {"reward_accuracy": 0.5}, "no better than by chance"),
        ("RLHF", GOOD_POLICY, {"kl": 3.0}, "left its reference"),
        ("RLHF", GOOD_POLICY, {"kl": -3.0}, "left its reference"),
        ("RLHF", GOOD_POLICY, {"kl": math.nan}, "no numbers: kl"),
        ("RLHF", GOOD_DPO, {"chosen_change": -4.0}, "pushed both down"),
        ("EMBEDDING", GOOD_ENCODER, {"cosine_among_passages": 0.995}, "the same of every text"),
        ("EMBEDDING", GOOD_ENCODER, {"cosine_own": 0.2}, "no nearer to its anchor"),
        ("RAG_TUNING", GOOD_ENCODER, {"cosine_others": math.nan}, "no numbers"),
    ],
)
def test_a_training_is_held_to_what_its_job_type_is_for(
    job: str, good: dict[str, float], change: dict[str, float], says: str
) -> None:
    plan: Any = Plan(job)
    assert job_verdicts.learned(trained(**good), plan).passed
    verdict = job_verdicts.learned(trained(**{**good, **change}), plan)
    assert not verdict.passed and says in verdict.text


def test_rows_that_teach_nothing_are_told_by_share() -> None:
    def same(count: int) -> Any:
        return Plan("RLHF", same_pairs=count, pairs=100, chosen_longer=0.5, prompts_without_room=count)

    assert job_verdicts.pairs_differ(same(5)).passed and job_verdicts.prompts_have_room(same(5)).passed
    assert not job_verdicts.pairs_differ(same(6)).passed and not job_verdicts.prompts_have_room(same(6)).passed
    one: Any = Plan("EMBEDDING", contradictions=1, false_negatives_a_batch=0.5)
    assert not job_verdicts.no_contradictions(one).passed
    plain: Any = Plan("SFT")
    judges = (job_verdicts.pairs_differ, job_verdicts.prompts_have_room, job_verdicts.no_contradictions)
    assert all(judge(plain).passed for judge in judges)


def test_an_encoder_that_is_served_with_another_pooling_is_not_what_was_trained() -> None:
    names = {"dataset": "d@v1", "recipe": "r-1", "training_key": "k", "path": "/x", "content_hash": "h"}
    facts: dict[str, Any] = {"family": "bert", "parameters": 1, "chat_template_hash": None, "reloads": True}
    record = MergedModelRecord(
        **names,
        **facts,
        differs_from_base=True,
        max_logit_difference=0.4,
        top1_agreement=0.1,
        figures={"pooling": "cls"},
    )
    verdict = merge_verdicts.same_as_trained(record, "fp32")
    assert not verdict.passed and "pooled in another way" in verdict.text
    assert merge_verdicts.same_as_trained(record.model_copy(update={"top1_agreement": 1.0}), "fp32").passed
