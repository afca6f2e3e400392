"""What the checks of a training cost beside what they look at: `python -m benchmarks.check_cost`.

Builds the small chain (`benchmarks.chain`) to its registered model, and prints for each step of the tuned model what it
took, what its worker spent on looking at itself (hashes of inputs, weights before and after, the file that it wrote),
and what all its checks take, called once more. The last line is of the whole chain: the steps of all checks as Dagster
ran them, its own time for each included.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.chain import POLICY, build
from benchmarks.installation import Installation, opened
from llmops_assets.evaluation import verdicts as evaluated
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.training import job_verdicts, plan_verdicts, verdicts

PLAN: tuple[Callable[[PlanRecord], object], ...] = (
    verdicts.every_row_trains, verdicts.stop_token_trained, verdicts.template_keeps_prefix, verdicts.one_bos,
    plan_verdicts.schedule_trains, verdicts.memory_fits, job_verdicts.pairs_differ, job_verdicts.prompts_have_room,
    job_verdicts.no_contradictions, plan_verdicts.template_faithful,
)  # fmt: skip


def judging(one: Installation, cell: str, policy: Policy) -> dict[str, float]:
    """Seconds that all checks of each step take, each with the records that it reads."""

    def load(kind: type) -> object:
        return one.w.records.load(kind, cell)

    def plan() -> None:
        for judge in PLAN:
            judge(load(PlanRecord))

    def adapter() -> None:
        for judge in (verdicts.weights_moved, job_verdicts.learned, verdicts.checkpoint_kept):
            judge(load(AdapterRecord), load(PlanRecord))
        for judge in (verdicts.weights_finite, verdicts.loss_fell):
            judge(load(AdapterRecord))

    def merged() -> None:
        verdicts.same_as_trained(load(MergedModelRecord), load(PlanRecord).precision)
        verdicts.same_template(load(MergedModelRecord), load(PlanRecord))
        for judge in (verdicts.differs_from_base, verdicts.reloads):
            judge(load(MergedModelRecord))

    def evaluation() -> None:
        limits = policy.datasets.max_contaminated_share, policy.limits.max_cut_answers
        evaluated.withholding(load(EvaluationRecord), policy.evaluation, *limits)
        evaluated.compare_with_base(load(EvaluationRecord))

    found = {}
    for name, judge_all in (("training_plan", plan), ("adapter", adapter), ("merged_model", merged),
                            ("evaluation", evaluation)):  # fmt: skip
        begun = time.perf_counter()
        judge_all()
        found[name] = time.perf_counter() - begun
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "home", POLICY) as one:
        chain = build(one, serve=False)
        judged = judging(one, chain.tuned, one.w.policy)
        worker = one.w.records.load(AdapterRecord, chain.tuned).check_seconds or 0.0
    for asset, judge in judged.items():
        part = "tuned evaluated" if asset == "evaluation" else "tuned"
        step, own = chain.steps[f"{part}/{asset}"], worker if asset == "adapter" else 0.0
        print(
            f"{asset:14} {step:6.2f} s, its worker's looking {own:5.3f} s, its checks {judge:5.3f} s: "
            f"{(own + judge) / step:5.1%}"
        )
    checks = sum(taken for part in chain.seconds for asset in ("dataset", "quality_report", "clean_dataset", "splits",
                 "training_plan", "adapter", "merged_model", "evaluation") for name, taken in chain.steps.items()
                 if name.startswith(f"{part}/{asset}_"))  # fmt: skip
    whole = sum(chain.seconds.values())
    print(f"{'all of them':14} {whole:6.2f} s, their checks' steps in Dagster {checks:5.2f} s: {checks / whole:5.1%}")


if __name__ == "__main__":
    main()
