"""One replay: the sample asked of a candidate, past the gateway, and the record of what it came to."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmops_assets.evaluation.llm_judge import compare as judge_pairs
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.replay import ChangedAnswer, ReplayRecord
from llmops_assets.replay.compare import EVEN, Answer, Pair, Replayed, changed_most, compare
from llmops_assets.replay.sample import Asked, Sample, recent_traffic, sample, today
from llmops_assets.replay.verdicts import rules_of
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import Policy
from resources.artifacts import Artifacts

Ask = Callable[[Sequence[Asked], int], Sequence[Answer]]
"""Asks a candidate greedily, each request for at most so many new tokens: no tools, and past the gateway."""


def replay(
    model: RegisteredModelRecord, spec: DeploymentSpec, artifacts: Artifacts, policy: Policy, ask: Ask, cache: Path
) -> ReplayRecord:
    """Ask a registered model what the endpoint's users asked lately, and compare.

    Nothing is logged as an exposure, no tool is offered or called, and no more tokens are spent than the policy allows.
    An endpoint that answers from documents is not replayed: what its model was shown then is not on record. Raises
    what `ask` raises, and JudgeError where a configured judge cannot be asked.
    """
    rules = policy.serving.replay
    if spec.rag is not None:
        return _record(model, spec, policy, Sample((), ()), None, "answers rest on passages, which are not on record")
    frame, of_days = recent_traffic(artifacts, spec.endpoint, rules.days, today())
    chosen = sample(frame, of_days, model.ref, rules, policy.traffic.consent)
    if not chosen.requests:
        return _record(model, spec, policy, chosen, None)
    answers = ask(chosen.requests, rules.max_new_tokens)
    found = compare(
        chosen.requests,
        answers,
        alpha=policy.experiments.alpha,
        expected_users=rules.requests,
        judged=_judged(policy, chosen.requests, answers, cache),
        personal=Masker.of(policy).types,
    )
    note = "asked without the endpoint's prompt, whose variables are not on record" if spec.prompt is not None else ""
    return _record(model, spec, policy, chosen, found, note)


def _judged(policy: Policy, asked: Sequence[Asked], answers: Sequence[Answer], cache: Path) -> Mapping[str, float]:
    judge = policy.evaluation.judge
    if judge is None:
        return {}
    pairs = [(a.request_id, a.conversation, b.text, a.answer) for a, b in zip(asked, answers, strict=True)]
    return judge_pairs(judge, pairs, cache)


def _record(
    model: RegisteredModelRecord,
    spec: DeploymentSpec,
    policy: Policy,
    chosen: Sample,
    found: Replayed | None,
    note: str = "",
) -> ReplayRecord:
    made = ReplayRecord(
        endpoint=spec.endpoint,
        model_ref=model.ref,
        content_hash=model.content_hash,
        at=datetime.now(UTC),
        days=list(chosen.days),
        rules=rules_of(policy),
        left_out=dict(chosen.left_out),
        tokens_reserved=chosen.tokens,
        note=note,
    )
    if found is None:
        return made
    share = found.win_share
    wins = [pair.win for pair in found.pairs]
    return made.model_copy(
        update={
            "pairs": len(found.pairs),
            "users": found.users,
            "in_conversations": sum(not pair.asked.is_lone for pair in found.pairs),
            "won": sum(win > EVEN for win in wins),
            "lost": sum(win < EVEN for win in wins),
            "win_share": EVEN + share.difference if share else None,
            "low": max(0.0, EVEN + share.low) if share else None,
            "high": min(1.0, EVEN + share.high) if share else None,
            "p_always_valid": share.p if share else None,
            "judged_by": {by: sum(p.by == by for p in found.pairs) for by in sorted({p.by for p in found.pairs})},
            "refusals_now": found.refusals.only_first + found.refusals.both,
            "refusals_then": found.refusals.only_second + found.refusals.both,
            "refusals_p": found.refusals.p,
            "empty_then": found.empty[0],
            "empty_now": found.empty[1],
            "cut_then": found.cut[0],
            "cut_now": found.cut[1],
            "length_then": found.length[0],
            "length_now": found.length[1],
            "latency_ms_then": found.latency_ms[0],
            "latency_ms_now": found.latency_ms[1],
            "personal": found.personal,
            "tokens_used": sum(p.asked.prompt_tokens + p.answer.tokens for p in found.pairs),
            "models_then": sorted({p.asked.model_ref for p in found.pairs}),
            "changed_most": [_changed(pair, Masker.of(policy)) for pair in changed_most(found.pairs)],
        }
    )


def _changed(pair: Pair, mask: Masker) -> ChangedAnswer:
    return ChangedAnswer(
        request_id=pair.asked.request_id,
        question=pair.asked.conversation,
        then=pair.asked.answer,
        # What users asked was masked when it was kept; what a model says now may hold anything.
        now=mask(pair.answer.text),
        win=pair.win,
        judged_by=pair.by,
        change=pair.change,
        personal=list(pair.personal),
    )
