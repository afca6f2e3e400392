"""What must hold of a plan for what is learned to be what was meant, each with what to do when it does not."""

from llmops_assets.records.training import PlanRecord
from llmops_assets.training.verdicts import NOTHING_WRITTEN, writes
from llmops_assets.verdict import Verdict


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
