"""Whether a candidate may get users by what a replay found: it blocks what is worse beyond chance, and nothing else."""

from datetime import datetime
from typing import Any

from llmops_assets.records.replay import ReplayRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.serving_rules import Replay
from llmops_assets.verdict import Verdict

_BEYOND_CHANCE = 0.01


def replayed(record: ReplayRecord, rules: Replay) -> Verdict:
    """Whether the candidate does users no harm that the replay can see.

    Too little traffic blocks nobody: then nothing is known, and the verdict says so.
    """
    figures: dict[str, float | int | str] = {"pairs": record.pairs, "users": record.users}
    if record.pairs == 0 or record.win_share is None:
        why = "; ".join(f"{n} {reason}" for reason, n in record.left_out.items()) or "no traffic in these days"
        return Verdict(True, f"nothing could be replayed for {record.model_ref}: {why}", figures)
    figures |= {"win share": record.win_share, "low": record.low or 0.0, "high": record.high or 1.0}
    interval = f"{record.win_share:.1%} ({record.low:.1%} to {record.high:.1%}, {record.users} users)"
    faults = []
    if record.high is not None and record.high < 0.5:
        faults.append(f"its answers are worse than those that users got: better in {interval}, and 50 % is even")
    if record.refusals_now > record.refusals_then and record.refusals_p < _BEYOND_CHANCE:
        faults.append(f"it refuses {record.refusals_now} of {record.pairs} requests, {record.refusals_then} were then")
    if record.personal > rules.max_personal_share * record.pairs:
        faults.append(
            f"{record.personal} of its {record.pairs} answers hold personal data that neither the question nor the "
            "answer of then held"
        )
    if faults:
        what = "; ".join(faults)
        return Verdict(
            False,
            f"{record.model_ref} gets no users: {what}. Look at the answers that changed most on `replay_report`, or "
            "train it further",
            figures,
        )
    return Verdict(True, f"{record.model_ref} is better in {interval}, refusals and personal data as before", figures)


def rules_of(policy: Policy) -> dict[str, Any]:
    """What a replay depends on besides the traffic: the policy's rules for it, consent, and who judges."""
    judge = policy.evaluation.judge
    return {
        **policy.serving.replay.model_dump(mode="json"),
        "consent": policy.traffic.consent,
        "judge": judge.model_dump(mode="json", include={"base_url", "model"}) if judge else None,
    }


def is_of(record: ReplayRecord | None, content_hash: str, policy: Policy, now: datetime) -> bool:
    """Whether a replay on record is of exactly these weights, by today's rules, and fresh."""
    if record is None or record.content_hash != content_hash or record.rules != rules_of(policy):
        return False
    return (now - record.at).total_seconds() < 86_400 * policy.serving.replay.fresh_days
