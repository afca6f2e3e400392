"""Good and bad answers are weighed, mixed and judged as KTO's paper has it."""

import polars as pl
import pytest

from images.train import unpaired
from llmops_assets.evaluation import rated as judged
from llmops_assets.records.training import PlanRecord
from llmops_assets.training.job_verdicts import pairs_differ
from llmops_assets.training.rated import balance, ratio


@pytest.mark.parametrize(
    ("good", "bad", "given", "weights"),
    [
        (100, 100, (None, None), (1.0, 1.0)),
        (50, 200, (None, None), (4.0, 1.0)),
        (200, 50, (None, None), (1.0, 4.0)),
        (50, 200, (None, 0.5), (2.0, 0.5)),
        (50, 200, (8.0, None), (8.0, 2.0)),
        (50, 200, (1.0, 1.0), (1.0, 1.0)),
        (10, 0, (None, None), (1.0, 1.0)),
    ],
)
def test_what_the_spec_leaves_out_makes_both_kinds_weigh_the_same(good, bad, given, weights):
    assert balance(good, bad, *given) == weights
    if None in given:
        assert ratio(good, bad, weights) == 1.0


def test_rows_are_mixed_so_that_every_batch_has_both_kinds():
    labels = [True] * 20 + [False] * 60
    order = unpaired.mixed(labels, 7)
    assert sorted(order) == list(range(80)) and order == unpaired.mixed(labels, 7) != unpaired.mixed(labels, 8)
    batches = [[labels[i] for i in order[at : at + 8]] for at in range(0, 80, 8)]
    assert all(0 < sum(batch) < 8 for batch in batches)


def test_the_divergence_is_estimated_from_the_answers_of_the_same_batch():
    frame = pl.DataFrame(
        {"prompt": [[1], [2], [3]], "completion": [[11], [12], [13]], "label": [True, False, True]},
        schema={"prompt": pl.List(pl.Int32), "completion": pl.List(pl.Int32), "label": pl.Boolean},
    )
    assert unpaired.columns(frame, 2)["KL_completion_ids"] == [[12], [11], [13]]


def row(name: str, prompt: str, label: bool) -> judged.Rated:
    asked, answered = [{"role": "user", "content": prompt}], [{"role": "assistant", "content": name}]
    return judged.Rated(name, None, asked, answered, None, label)


def test_a_good_and_a_bad_answer_are_put_together_and_none_twice():
    rows = [row("a", "묻나요", True), row("b", "딴 물음", False), row("c", "묻나요", False), row("d", "또", True)]
    pairs = [(good.id, bad.id) for good, bad in judged.matched(rows)]
    assert pairs == [("a", "c"), ("d", "b")]
    asked = judged.singly(
        [{"id": "d+b", "prompt": ["또"], "tools": None, "chosen": ["d"], "rejected": ["b"], "rejected_prompt": ["딴"],
          "rejected_tools": None}]
    )  # fmt: skip
    assert [(one["prompt"], one["chosen"], one["rejected"]) for one in asked] == [
        (["또"], ["d"], ["d"]),
        (["딴"], ["b"], ["b"]),
    ]
    found = [
        {"id": "x", "chosen": value, "chosen_tokens": 2, "rejected": value, "rejected_tokens": 2}
        for value in (-3.0, -5.0)
    ]
    # What comes back is found by its id.
    assert len({one["id"] for one in asked}) == 2
    (pair,) = judged.together(found)
    assert (pair["chosen"], pair["rejected"]) == (-3.0, -5.0)


def plan(**figures: float) -> PlanRecord:
    known = {"desirable": 40, "undesirable": 60, "desirable_weight": 1.5, "undesirable_weight": 1.0}
    known |= {"weight_ratio": 1.0, "both_labels": 0, "chosen_longer": 0.6}
    return PlanRecord.model_construct(spec={"job_type": "RLHF"}, figures={**known, **figures}, failures={})


def test_the_plan_stops_rows_of_one_kind_and_rows_that_contradict_each_other():
    assert pairs_differ(plan()).passed
    assert "There is no bad answer" in pairs_differ(plan(undesirable=0)).text
    assert "says the opposite" in pairs_differ(plan(both_labels=10)).text
    assert "drowns the other" in pairs_differ(plan(weight_ratio=30.0)).text


def test_the_loss_of_scores_falls_as_cosines_take_their_order():
    import torch

    from images.train.encoder import batch_loss, score_loss

    scores = torch.tensor([1.0, 0.5, 0.0])
    right, wrong = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0.1, 0.5, 0.9])
    assert score_loss(right, scores, 0.05) < 0.01 < score_loss(wrong, scores, 0.05)
    assert score_loss(right, torch.ones(3), 0.05) == 0
    # Rows without a score are told apart from each other, and not from the texts of scored ones.
    vectors = torch.nn.functional.normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    mask = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    nothing = float("nan")
    mixed = batch_loss(vectors, vectors, mask, torch.tensor([nothing, nothing, 0.3]), 0.05)
    alone = batch_loss(vectors[:2], vectors[:2], mask[:2, :2], torch.tensor([nothing, nothing]), 0.05)
    assert torch.allclose(mixed, alone * 2 / 3)
