"""What the checks of a training cost beside what they look at: `python -m benchmarks.check_cost [HOME]`.

Builds the small chain (`benchmarks.chain`) to its registered model, and prints for each step of the tuned model what it
took, what its worker spent on looking at itself (hashes of inputs, weights before and after, the file that it wrote),
and what all its checks take, called once more. The last lines are of the whole chain: the steps of all checks as
Dagster ran them, its own time for each included, and apart from them the one whose check starts a model server.

Of a home that is there already (that of `llmops demo`, say) it prints those last lines, of all the runs on record.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import dagster as dg

from benchmarks.chain import POLICY, build
from benchmarks.installation import Installation, opened
from llmops_assets.evaluation import verdicts as evaluated
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.training import job_verdicts, merge_verdicts, plan_verdicts, verdicts

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
        merge_verdicts.same_as_trained(load(MergedModelRecord), load(PlanRecord).precision)
        merge_verdicts.same_template(load(MergedModelRecord), load(PlanRecord))
        for judge in (merge_verdicts.differs_from_base, merge_verdicts.reloads):
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


PROBED = ("registered_model_checks", "registered_model_served_as_evaluated")
"""The step of `served_as_evaluated`, which starts a server of the model once, and asks it what the evaluation asked."""


def shares(steps: Iterable[tuple[str, float]], whole: float) -> str:
    """Lines on what the checks' steps took of the `whole` seconds; `steps` are names with their seconds."""
    from llmops_assets.definitions import defs

    assets = {key.to_python_identifier() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    checks = [(name, taken) for name, taken in steps if name not in assets]
    looking = sum(taken for name, taken in checks if name not in PROBED)
    asking = sum(taken for name, taken in checks if name in PROBED)
    return (
        f"{'all of them':14} {whole:6.2f} s, their checks' steps in Dagster {looking:5.2f} s: {looking / whole:5.1%}\n"
        f"{'':14} and what asks a server of each registered model {asking:5.2f} s: {asking / whole:5.1%}"
    )


def of_home(home: Path) -> str:
    """The same lines of all runs that Dagster has on record in a home, by the time that their steps took."""
    steps = []
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        for run in instance.get_runs():
            for one in instance.get_run_step_stats(run.run_id):
                if one.start_time is not None and one.end_time is not None:
                    steps.append((one.step_key, one.end_time - one.start_time))
    return shares(steps, sum(taken for _, taken in steps))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("home", type=Path, nargs="?", help="a home whose runs are looked at, in place of a chain")
    if home := parser.parse_args().home:
        print(of_home(home))
        return
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
    print(shares(((name.split("/")[1], taken) for name, taken in chain.steps.items()), sum(chain.seconds.values())))


if __name__ == "__main__":
    main()
