"""What must hold of a plan for what is learned to be what was meant, each with what to do when it does not."""

from llmops_assets.records.training import PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.steps import steps_at_full_rate, warmup_steps
from llmops_assets.training.verdicts import NOTHING_WRITTEN, writes
from llmops_assets.verdict import Verdict

LEAST_MOVE = 1e-6
"""How far a weight must be able to move in all: weights are of about .02, and less is lost in their rounding."""
ROWS_WITH_ANSWERS = 8
"""With fewer rows one answer may be all that is meant."""


def schedule_trains(plan: PlanRecord) -> Verdict:
    """Whether the learning rate is ever reached and moves anything, and whether early stopping can look at all."""
    hyper = TrainJobSpec.model_validate(plan.spec).hyperparams
    steps, warm = plan.steps, warmup_steps(hyper, plan.steps)
    if warm >= steps and hyper.scheduler != "constant":
        return Verdict(
            False,
            f"the warm-up takes {warm} steps and the training {steps}: the rate would never reach lr {hyper.lr:g}. "
            "Lower hyperparams.warmup_steps (a tenth of the steps is usual), or train longer",
        )
    move = hyper.lr * steps_at_full_rate(hyper, steps)
    if move < LEAST_MOVE:
        return Verdict(
            False,
            f"{steps} steps at lr {hyper.lr:g} move a weight by {move:.1g} at most, which its own rounding hides: "
            "nothing would be learnt. Raise hyperparams.lr",
        )
    stopping = hyper.early_stopping
    if stopping is not None and not plan.rows.get("validation"):
        return Verdict(
            False,
            "early_stopping looks at the validation loss, and the validation split has no rows: it would never stop. "
            "Give the dataset's split a validation share, or remove hyperparams.early_stopping",
        )
    if stopping is not None and hyper.eval_steps is not None and hyper.eval_steps > steps:
        return Verdict(
            False,
            f"early_stopping looks every {hyper.eval_steps} steps, and the training takes {steps}: it never would. "
            "Lower hyperparams.eval_steps, or remove hyperparams.early_stopping",
        )
    return Verdict(True, f"{steps} steps at up to lr {hyper.lr:g}, {warm} of them warm-up")


def answers_differ(plan: PlanRecord) -> Verdict:
    """Whether there is more than one answer to learn."""
    distinct, rows = plan.figures.get("distinct_answers"), plan.rows.get("train", 0)
    if distinct is None:
        return Verdict(True, "not of this job type")
    share = plan.figures.get("commonest_answer", 0.0)
    text = f"{distinct:,.0f} different answers in {rows:,} rows, the most frequent in {share:.1%}"
    figures = {"distinct_answers": int(distinct), "commonest_answer": share}
    if distinct > 1 or rows < ROWS_WITH_ANSWERS:
        return Verdict(True, text, figures)
    return Verdict(
        False,
        f"all {rows:,} rows have the same answer: the model would learn to say that to whatever it is asked. Look at "
        "the column that was read as the answer (`llmops dataset scan` shows it)",
        figures,
    )


def template_faithful(plan: PlanRecord) -> Verdict:
    """Whether the chat template writes what the rows say, and marks what the assistant says and nothing else."""
    if not writes(plan):
        return NOTHING_WRITTEN
    words = [f"{finding.name}: {finding.text} ({finding.rows:,} rows)" for finding in plan.findings]
    figures = {finding.name: finding.rows for finding in plan.findings}
    if not any(finding.blocking for finding in plan.findings):
        text = "the chat template writes every message of the rows, and marks what the assistant says"
        return Verdict(True, "; ".join([text, *words]), figures)
    return Verdict(False, "; ".join(words), figures)


def rows_kept(plan: PlanRecord, allowed: float) -> Verdict:
    """`allowed` is the share of rows that `overlong: drop` may leave out."""
    rows = plan.rows.get("train", 0) + plan.dropped_rows
    share = plan.dropped_rows / rows if rows else 0.0
    text = (
        f"overlong: drop leaves {plan.dropped_rows:,} of {rows:,} rows out as longer than max_seq_len "
        f"{plan.spec['hyperparams']['max_seq_len']} ({share:.1%}; {allowed:.0%} are allowed)"
    )
    figures = {"dropped_rows": plan.dropped_rows, "kept_rows": rows - plan.dropped_rows}
    if share <= allowed:
        return Verdict(True, text if plan.dropped_rows else f"all {rows:,} rows are trained", figures)
    return Verdict(
        False,
        f"{text}: {rows - plan.dropped_rows:,} rows are what would be trained. Raise hyperparams.max_seq_len, shorten "
        "the rows, or allow more in the policy (limits.max_dropped_rows)",
        {**figures, "examples": ", ".join(plan.failures.get("dropped", []))},
    )
