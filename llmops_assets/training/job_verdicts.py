"""What must hold of preference training, of an encoder and of a retriever with its reader, beside what all share."""

import math

from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.verdict import Verdict

MAX_SAME_PAIRS = 0.05
"""Share of preference pairs that may have two equal answers after truncation."""
WEIGHT_RATIOS = (0.1, 10.0)
"""What weight times number of good answers may be to that of bad ones; KTO's paper recommends 1 to 4/3 (eq. 8)."""
MAX_CONTRADICTIONS = 0.0
MAX_KL = 1.0
"""Nats a token that a policy may be away from its reference: beyond, it writes another language."""
MAX_LIKELIHOOD_LOSS = 2.0
"""Nats a token that the preferred answers may lose in dpo, which lowers both answers when it goes wrong."""
MIN_ANSWER_SPREAD = 0.05
"""How far apart the rewards of a pair's answers must be, in standard deviations of all rewards."""
MAX_COLLAPSE = 0.98
"""Mean cosine among passages that do not belong together, above which an encoder says the same of every text."""

DOES_NOT_APPLY = Verdict(True, "not of this job type")


def pairs_differ(plan: PlanRecord) -> Verdict:
    """Whether preference pairs have something to prefer."""
    if plan.spec["job_type"] != "RLHF":
        return DOES_NOT_APPLY
    if "desirable" in plan.figures:
        return _both_kinds(plan)
    same, pairs = int(plan.figures["same_pairs"]), int(plan.figures["pairs"])
    share = same / pairs if pairs else 1.0
    text = (
        f"{same} of {pairs} pairs have two equal answers ({share:.1%}; {MAX_SAME_PAIRS:.0%} are allowed); the "
        f"preferred one is the longer in {plan.figures['chosen_longer']:.0%}"
    )
    # Plans of earlier versions did not count them.
    opposed = int(plan.figures.get("opposed_pairs", 0))
    figures = {"same_pairs": same, "opposed_pairs": opposed, "chosen_longer": plan.figures["chosen_longer"]}
    if pairs and opposed > MAX_SAME_PAIRS * pairs:
        return Verdict(
            False,
            f"{opposed} of {pairs} pairs prefer the answer that another pair with the same prompt rejects for this one "
            f"({MAX_SAME_PAIRS:.0%} are allowed): they teach nothing together. Were chosen and rejected exchanged in "
            "some of the files? Take one of each two out",
            {**figures, "examples": ", ".join(plan.failures.get("opposed_pairs", []))},
        )
    if share <= MAX_SAME_PAIRS:
        return Verdict(True, text, figures)
    examples = ", ".join(plan.failures.get("same_pairs", []))
    return Verdict(
        False,
        f"{text}. Where they differ only behind max_seq_len, raise it; the others teach nothing: take them out",
        {**figures, "examples": examples},
    )


def _both_kinds(plan: PlanRecord) -> Verdict:
    """Whether answers of both kinds are there, weighed against each other, and none is of both."""
    found = plan.figures
    good, bad, both = (int(found[name]) for name in ("desirable", "undesirable", "both_labels"))
    weights = found["desirable_weight"], found["undesirable_weight"]
    text = (
        f"{good} good and {bad} bad answers, which weigh {weights[0]:.3g} and {weights[1]:.3g}: "
        f"{found['weight_ratio']:.2f} to 1 in all; a good one is the longer of two in {found['chosen_longer']:.0%}"
    )
    figures = {name: found[name] for name in ("desirable", "undesirable", "weight_ratio", "both_labels")}
    if not good or not bad:
        kind = "good" if not good else "bad"
        return Verdict(False, f"{text}. There is no {kind} answer, so nothing tells them apart: add some", figures)
    if both > MAX_SAME_PAIRS * (good + bad):
        examples = ", ".join(plan.failures.get("both_labels", []))
        return Verdict(
            False,
            f"{both} rows have the very answer that another row with the same prompt says the opposite of "
            f"({MAX_SAME_PAIRS:.0%} are allowed). Take one of each two out",
            {**figures, "examples": examples},
        )
    low, high = WEIGHT_RATIOS
    if not low <= found["weight_ratio"] <= high:
        return Verdict(
            False,
            f"{text}, and the one kind drowns the other ({low:g} to {high:g} are allowed). Leave "
            "rlhf.desirable_weight or undesirable_weight out, which balances them",
            figures,
        )
    return Verdict(True, text, figures)


def prompts_have_room(plan: PlanRecord) -> Verdict:
    """Whether answers can be sampled, or read from passages, behind the prompts of the rows."""
    if plan.spec["job_type"] == "RLHF":
        without, pairs = int(plan.figures["prompts_without_room"]), int(plan.figures["pairs"])
        text = f"{without} of {pairs} prompts leave no room for an answer in max_seq_len"
        figures = {"prompts_without_room": without}
        if without <= 0.05 * pairs:
            return Verdict(True, text, figures)
        return Verdict(False, f"{text}. Raise hyperparams.max_seq_len or lower rlhf.max_new_tokens", figures)
    if plan.spec["job_type"] == "RAG_TUNING":
        rows = plan.rows.get("train", 0)
        without, cut = int(plan.figures["questions_without_passage"]), plan.truncated_rows
        text = f"{cut} of {rows} prompts with their passages are longer than max_seq_len, {without} have no passage"
        figures = {"cut": cut, "without_passage": without, "examples": ", ".join(plan.failures.get("cut_answers", []))}
        if cut <= 0.05 * rows and without <= 0.5 * rows:
            return Verdict(True, text, figures)
        return Verdict(
            False,
            f"{text}. A cut prompt loses the question or its answer: raise hyperparams.max_seq_len, lower "
            "rag.passages, or give shorter passages",
            figures,
        )
    return DOES_NOT_APPLY


def no_contradictions(plan: PlanRecord) -> Verdict:
    """Whether a text is never told to be near its anchor and far from it."""
    if "contradictions" not in plan.figures:
        return DOES_NOT_APPLY
    found = int(plan.figures["contradictions"])
    masked = plan.figures["false_negatives_a_batch"]
    text = (
        f"{found} rows name a text as a negative that belongs to their anchor; {masked:.2f} passages a batch would be "
        "false negatives and are kept out of the loss"
    )
    figures = {"contradictions": found, "false_negatives_a_batch": masked}
    if found == 0:
        return Verdict(True, text, figures)
    examples = ", ".join(plan.failures.get("contradicted", []))
    return Verdict(False, f"{text}. Take them out of `negatives`", {**figures, "examples": examples})


def learned(record: AdapterRecord, plan: PlanRecord) -> Verdict:
    """Whether a training did what its job type is for, by the figures that only it has."""
    judges = {"RLHF": _preferences, "EMBEDDING": _encoder, "RAG_TUNING": _encoder}
    judge = judges.get(plan.spec["job_type"])
    return judge(record) if judge else Verdict(True, "what this job type learns is judged by its loss and evaluation")


def _preferences(record: AdapterRecord) -> Verdict:
    figures = {name: value for name, value in record.figures.items() if value is not None}
    if broken := [name for name, value in figures.items() if not math.isfinite(value)]:
        return Verdict(False, f"no numbers: {', '.join(broken)}. Lower lr, or raise rlhf.kl_coeff", figures)
    findings = []
    if "answer_spread" in figures:
        findings.append(
            f"the reward model is right on {figures['reward_accuracy']:.1%} of {figures['reward_pairs']:.0f} pairs"
        )
        if figures["answer_spread"] < MIN_ANSWER_SPREAD:
            return Verdict(
                False,
                f"the reward model ignores the answer: the two answers of a pair get rewards only "
                f"{figures['answer_spread']:.3f} standard deviations apart. Train it longer, at a higher reward_lr",
                figures,
            )
    if figures.get("reward_accuracy", 1.0) <= 0.5:
        return Verdict(
            False,
            f"preferred and rejected answers are told apart in {figures['reward_accuracy']:.1%} of "
            f"{figures['reward_pairs']:.0f} pairs, no better than by chance: nothing can be learned from that. Look at "
            "the pairs, train longer, or raise lr",
            figures,
        )
    if "kl" in figures:
        findings.append(f"the policy is {figures['kl']:.3f} nats a token away from its reference")
        findings.append(f"reward {figures['policy_first_reward']:.3f} → {figures['policy_last_reward']:.3f}")
        if abs(figures["kl"]) > MAX_KL:
            return Verdict(
                False,
                f"the policy left its reference: {figures['kl']:.2f} nats a token ({MAX_KL:g} are allowed). It pleases "
                "the reward model and writes no language: raise rlhf.kl_coeff, or lower lr",
                figures,
            )
    if "chosen_change" in figures:
        findings.append(
            f"preferred answers {figures['chosen_change']:+.3f} nats a token, right on "
            f"{figures['reward_accuracy']:.1%} of {figures['reward_pairs']:.0f} pairs"
        )
        if figures["chosen_change"] < -MAX_LIKELIHOOD_LOSS:
            return Verdict(
                False,
                f"the preferred answers lost {-figures['chosen_change']:.2f} nats a token: dpo pushed both down. "
                "Lower lr, or raise rlhf.kl_coeff",
                figures,
            )
    return Verdict(True, "; ".join(findings), figures)


def _encoder(record: AdapterRecord) -> Verdict:
    figures = {name: value for name, value in record.figures.items() if value is not None}
    own, others, among = (figures[f"cosine_{name}"] for name in ("own", "others", "among_passages"))
    text = f"mean cosine of an anchor to its passage {own:.3f}, to others {others:.3f}; among passages {among:.3f}"
    if not all(map(math.isfinite, (own, others, among))):
        return Verdict(False, f"{text}: no numbers. Lower lr", figures)
    if figures["measured_passages"] < 2:
        return Verdict(True, f"{text}; one passage is too few to tell", figures)
    if among > MAX_COLLAPSE:
        return Verdict(
            False,
            f"{text}: the encoder says the same of every text. Lower lr or embedding.temperature, use larger batches, "
            "and look at embedding.pooling",
            figures,
        )
    if own <= others:
        return Verdict(
            False,
            f"{text}: a passage is no nearer to its anchor than any other. Train longer, or look at the pairs",
            figures,
        )
    return Verdict(True, text, figures)
