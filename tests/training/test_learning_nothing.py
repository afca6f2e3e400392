"""A training that learns nothing is stopped by name: before it starts where the plan can tell, after it where not."""

from pathlib import Path
from typing import Any

import pytest

from llmops_assets.records.training import AdapterRecord, BaseReading, CurvePoint, MergedModelRecord, PlanRecord
from llmops_assets.specs.training import Hyperparams, TrainJobSpec
from llmops_assets.training import folders, merge_verdicts, plan_verdicts, verdicts
from llmops_assets.training.steps import steps_at_full_rate, warmup_steps
from llmops_assets.verdict import Verdict
from tests.training.conftest import sft_spec


def plan(steps: int = 100, rows: dict[str, int] | None = None, dropped: int = 0, **hyperparams: Any) -> PlanRecord:
    values = {"warmup_steps": None, "max_steps": None, **hyperparams}
    spec = TrainJobSpec.from_recipe(sft_spec("hf:x", **values), "desk@v1")
    return PlanRecord.model_construct(
        spec=spec.model_dump(mode="json"),
        steps=steps,
        rows=rows if rows is not None else {"train": 60, "validation": 8},
        dropped_rows=dropped,
        failures={},
        figures={},
        findings=[],
    )


def trained(
    losses: list[float] | None = None, validated: dict[int, float] | None = None, **facts: Any
) -> AdapterRecord:
    curve = losses or [2.0, 1.0]
    given = {"first_loss": curve[0], "last_loss": curve[-1], "steps": 100, "weight_change": 1.0, "figures": {}}
    points = [CurvePoint(step=n, loss=loss, eval_loss=(validated or {}).get(n)) for n, loss in enumerate(curve, 1)]
    empty = dict.fromkeys(("weight_change_rms", "trained_tensors", "unmoved_tensors"))
    return AdapterRecord.model_construct(**{**given, **empty, "moved_by_module": {}, "curve": points, **facts})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"warmup_steps": 100}, "warm-up takes 100 steps and the training 100"),
        ({"warmup_steps": 500, "scheduler": "cosine"}, "never reach lr"),
        ({"warmup_ratio": 1.0}, "warm-up takes 100 steps"),
        ({"lr": 1e-9}, "move a weight by 5e-08 at most"),
        ({"early_stopping": {"patience": 2}, "eval_steps": 200, "save_steps": 200}, "looks every 200 steps"),
    ],
)
def test_a_schedule_that_trains_nothing_is_found_in_the_plan(change: dict[str, Any], says: str) -> None:
    assert plan_verdicts.schedule_trains(plan()).passed
    verdict = plan_verdicts.schedule_trains(plan(**change))
    assert not verdict.passed and says in verdict.text


def test_early_stopping_without_validation_rows_never_stops() -> None:
    stopping = {"early_stopping": {"patience": 2}, "eval_steps": 10, "save_steps": 10}
    assert plan_verdicts.schedule_trains(plan(**stopping)).passed
    verdict = plan_verdicts.schedule_trains(plan(rows={"train": 60}, **stopping))
    assert not verdict.passed and "validation split has no rows" in verdict.text


@pytest.mark.parametrize("scheduler", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_the_rates_of_a_schedule_add_up_to_those_of_the_trainer(scheduler: str) -> None:
    import torch
    from transformers import get_scheduler

    warm = 0 if scheduler == "constant" else 20
    hyper = Hyperparams.model_validate(
        {"lr": 1.0, "batch_size": 1, "num_epochs": 1, "max_seq_len": 8, "scheduler": scheduler, "warmup_steps": warm}
    )
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates, schedule = 0.0, get_scheduler(scheduler, optimizer, num_warmup_steps=warm, num_training_steps=200)
    for _ in range(200):
        rates += optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    assert warmup_steps(hyper, 200) == warm
    assert steps_at_full_rate(hyper, 200) == pytest.approx(rates, rel=0.02)


def test_leaving_most_rows_out_is_not_what_was_registered() -> None:
    assert plan_verdicts.rows_kept(plan(), 0.2).passed
    assert plan_verdicts.rows_kept(plan(rows={"train": 950}, dropped=50), 0.2).passed
    verdict = plan_verdicts.rows_kept(plan(rows={"train": 30}, dropped=1887), 0.2)
    assert not verdict.passed and "1,887 of 1,917 rows" in verdict.text and "30 rows are what" in verdict.text


def test_one_answer_to_everything_is_found() -> None:
    def with_answers(distinct: float, rows: int) -> PlanRecord:
        figures = {"distinct_answers": distinct, "commonest_answer": 1.0}
        return plan(rows={"train": rows}).model_copy(update={"figures": figures})

    assert not plan_verdicts.answers_differ(with_answers(1, 500)).passed
    assert plan_verdicts.answers_differ(with_answers(2, 500)).passed, "a classifier has few"
    assert plan_verdicts.answers_differ(with_answers(1, 3)).passed
    assert plan_verdicts.answers_differ(plan()).passed, "a plan of an earlier release does not know"


def test_weights_that_moved_less_than_their_rate_moves_them_are_found() -> None:
    good = trained(weight_change_rms=5e-3, trained_tensors=28, unmoved_tensors=0)
    assert verdicts.weights_moved(good, plan(lr=5e-3)).passed
    assert verdicts.weights_moved(trained(), plan()).passed, "a record of an earlier release"
    frozen = trained(weight_change_rms=5e-3, trained_tensors=28, unmoved_tensors=27)
    assert "27 of 28 trained tensors did not move" in verdicts.weights_moved(frozen, plan()).text
    little = trained(weight_change_rms=1e-6, trained_tensors=28, unmoved_tensors=0)
    verdict = verdicts.weights_moved(little, plan(lr=5e-3))
    assert not verdict.passed and "hardly anything" in verdict.text
    assert verdicts.weights_moved(little, plan(lr=1e-5)).passed, "at a small rate that is much"


def test_one_kind_of_module_that_did_not_move_among_many_that_did_is_found() -> None:
    moved = {"q_proj": 4e-3, "v_proj": 5e-3, "embed_tokens": 2e-4}
    good = trained(weight_change_rms=4e-3, trained_tensors=29, unmoved_tensors=0, moved_by_module=moved)
    assert verdicts.weights_moved(good, plan(lr=5e-3)).passed, "embeddings of tokens that no row has do not move"
    for still in (0.0, 1e-6):
        record = good.model_copy(update={"moved_by_module": moved | {"embed_tokens": still}})
        verdict = verdicts.weights_moved(record, plan(lr=5e-3))
        assert not verdict.passed and "but not those of embed_tokens" in verdict.text and "q_proj" not in verdict.text


@pytest.mark.parametrize(
    ("parameter", "kind"),
    [
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_A.default.weight", "q_proj"),
        ("base_model.model.model.embed_tokens.modules_to_save.default.weight", "embed_tokens"),
        ("base_model.model.model.embed_tokens.lora_embedding_A.default", "embed_tokens"),
        ("model.layers.0.mlp.experts.3.gate_proj.weight", "gate_proj"),
        ("model.layers.0.self_attn.k_proj.bias", "k_proj"),
        ("model.layers.0.mlp.experts.gate_up_proj", "gate_up_proj"),
    ],
)
def test_a_parameter_belongs_to_the_module_that_a_spec_names(parameter: str, kind: str) -> None:
    from images.train.progress import module_kind

    assert module_kind(parameter) == kind


def test_a_gentle_continuation_does_not_fail_by_chance_and_a_divergence_does() -> None:
    assert verdicts.loss_fell(trained([0.0062, 0.0071, 0.0058, 0.0080, 0.0066, 0.0076])).passed
    assert verdicts.loss_fell(trained([1.50, 1.71, 1.42, 1.66, 1.39, 1.62, 1.55])).passed, "as its batches differ"
    for rising in ([1.50, 2.71, 4.42, 7.66, 7.39, 7.62], [1.5, 1.9], [0.01, 0.9, 1.1, 1.0, 1.05, 1.02]):
        assert not verdicts.loss_fell(trained(rising)).passed


def test_a_training_that_lost_again_what_it_had_learned_is_found() -> None:
    falling = [5.7, 5.1, 4.4, 3.6, 3.0, 2.4, 2.0, 1.7, 1.6, 1.5]
    assert verdicts.loss_fell(trained(falling)).passed
    assert verdicts.loss_fell(trained([*falling, 1.9, 1.6, 2.0, 1.7])).passed, "as its batches differ"
    assert verdicts.loss_fell(trained([0.69, 0.6, 0.71, 0.5, 0.66, 0.58, 0.7, 0.52, 0.62, 0.6, 0.66])).passed, "pairs"
    lost = verdicts.loss_fell(trained([*falling, 2.5, 4.4, 5.5, 5.2, 5.3]))
    assert not lost.passed and "it was 1.5000 about step 10" in lost.text and "lost 90% of that again" in lost.text
    early = trained([*falling, 2.5, 4.4, 5.5, 5.2, 5.3]).model_copy(update={"best_step": 10})
    assert verdicts.loss_fell(early).passed, "its weights are those of the best step"


def test_what_early_stopping_took_is_what_was_best_on_the_validation_rows(tmp_path: Path) -> None:
    plan = PlanRecord.model_construct(model_dir=str(tmp_path))
    for step in (2, 4, 6):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        folders.seal(folder, {})

    losses = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0]

    def stopped_at(best: int, eval_loss: float) -> Verdict:
        looked = {2: 2.2, 4: 1.4, 6: 1.9}
        return verdicts.checkpoint_kept(trained(losses, looked, steps=6, best_step=best, eval_loss=eval_loss), plan)

    assert stopped_at(4, 1.4).passed
    worst = stopped_at(2, 2.2)
    assert not worst.passed and "took the weights of step 2" in worst.text and "step 4 had 1.4000" in worst.text
    assert not stopped_at(4, 1.9).passed, "the loss on record is of other weights"


def test_a_model_that_answers_as_its_base_is_found() -> None:
    def merged(**facts: Any) -> MergedModelRecord:
        return MergedModelRecord.model_construct(**{"differs_from_base": True, "base_kl": None, **facts})

    assert (
        merge_verdicts.differs_from_base(merged()).passed
        and merge_verdicts.differs_from_base(merged(base_kl=0.3)).passed
    )
    assert "nothing was learnt" in merge_verdicts.differs_from_base(merged(base_kl=1e-12)).text
    assert not merge_verdicts.differs_from_base(merged(base_kl=1e-12)).passed


def test_a_base_that_guesses_is_named_and_one_whose_layers_were_exchanged_is_stopped() -> None:
    def whole(**facts: Any) -> Verdict:
        reading = BaseReading(**{"guessing": 10.4, "tokens": 800, **facts})
        return merge_verdicts.base_whole(MergedModelRecord.model_construct(base_reading=reading))

    assert whole(loss=3.1).passed and whole(loss=3.1).text.startswith("the base predicts the texts of these rows with")
    assert whole(loss=10.5).passed and "no better than guessing" in whole(loss=10.5).text
    exchanged = whole(loss=7.0, exchanged=[3, 9], exchanged_loss=3.2)
    assert not exchanged.passed and "layers 3 and 9 of the base stand in each other's place" in exchanged.text
    assert merge_verdicts.base_whole(MergedModelRecord.model_construct(base_reading=None)).passed
