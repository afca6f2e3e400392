"""Judges an evaluation itself: whether it is whole, and whether the model is better than what it was made from."""

import math
from collections.abc import Sequence

from llmops_assets.evaluation.figures import FREE_TEXT
from llmops_assets.evaluation.gate import interval, judge_gate
from llmops_assets.evaluation.suites import TEST
from llmops_assets.records.evaluation import Difference, EvaluationRecord, Metric
from llmops_assets.specs.evaluation_rules import EvaluationPolicy, Forgetting, Gate, Regression
from llmops_assets.verdict import Verdict

ALPHA = 0.05
MAX_LOGIT_GAP = {"fp32": 0.05, "bf16": 1.0, "fp16": 0.25}
"""By how much a logit may be above another that was preferred in a batch: sums are rounded in another order there."""
MAX_RIGHT_BUT_CUT = 0.2
"""Share of the right answers that may be cut at the length limit."""
MIN_CONTROLS = 4
"""Pairs that a judge must have been asked about for them to say something of it."""
MIN_CONTROLS_RIGHT = 0.5
"""Share of them that it must have right in both orders: who guesses has a quarter."""


def completeness(record: EvaluationRecord) -> Verdict:
    """Every item asked was answered, figures are numbers, and at least one answer says something."""
    lost = {suite: n - record.answered.get(suite, 0) for suite, n in record.items.items()}
    lost = {suite: n for suite, n in lost.items() if n}
    asked = sum(record.items.values())
    figures: dict[str, float] = {"asked": asked, "lost": sum(lost.values()), "empty": record.empty_answers}
    if not asked:
        return Verdict(False, "No item was asked: the test split is empty. Register more rows.", figures)
    if lost:
        which = ", ".join(f"{n} of {suite}" for suite, n in lost.items())
        return Verdict(False, f"Items without an answer: {which}. Materialise `evaluation` again.", figures)
    broken = [f"{m.name} of {m.suite}" for m in record.metrics if not math.isfinite(m.value)]
    if broken:
        return Verdict(
            False,
            f"No number: {', '.join(broken)}. The training diverged: lower the learning rate and train again.",
            figures,
        )
    if record.empty_answers == asked:
        return Verdict(
            False,
            f"All {asked} answers are empty: the model ends its turn at once. Look at the chat template and the stop "
            "token in `training_plan`.",
            figures,
        )
    return Verdict(True, f"All {asked} items were answered; {record.empty_answers} answers are empty.", figures)


def answers_end(record: EvaluationRecord, allowed: float) -> Verdict:
    """Whether right answers had room (all but the share `allowed` of them), and ended by themselves."""
    limit = record.settings.get("tuned", {}).get("max_new_tokens", "the limit")
    figures: dict[str, float] = {"cut": record.length_truncated, "right_but_cut": record.right_but_cut}
    if over := {s: n for s, n in record.references_too_long.items() if n > allowed * record.items[s]}:
        which = ", ".join(
            f"{n} of the {record.items[suite]} right answers to suite {suite}" for suite, n in over.items()
        )
        return Verdict(
            False,
            f"{which} are longer than max_new_tokens {limit}, so whatever the model says is cut before it is right. "
            "Raise evaluation.max_new_tokens in the recipe.",
            figures,
        )
    text = f"{record.length_truncated} of {sum(record.items.values())} answers were cut at max_new_tokens {limit}"
    if record.right_but_cut <= max(MAX_RIGHT_BUT_CUT, allowed) * record.right:
        return Verdict(True, f"{text}.", figures)
    return Verdict(
        False,
        f"{text}, and {record.right_but_cut} of the {record.right} that count as right among them: users would get the "
        "answer and whatever comes after it. The model does not end its turn: look at the stop token in "
        "`training_plan`, or raise evaluation.max_new_tokens.",
        figures,
    )


def compare_with_base(record: EvaluationRecord, alpha: float = ALPHA) -> Verdict:
    """The model against its base by McNemar's test on the headline suite; a pre-trained one against guessing."""
    perplexity = record.metric(TEST, "perplexity")
    if perplexity is not None:
        vocabulary = record.settings.get("tuned", {}).get("vocabulary", math.inf)
        passed = perplexity.value < vocabulary
        return Verdict(
            passed,
            f"Perplexity {perplexity.value:,.1f}; guessing at random has {vocabulary:,}."
            + ("" if passed else " The model learned nothing: look at the loss curve of `adapter`."),
            {"perplexity": perplexity.value, "vocabulary": float(vocabulary)},
        )
    if not record.versus_base:
        return Verdict(True, f"Nothing to compare with. {record.baseline}.")
    suite = TEST if TEST in record.versus_base else next(iter(record.versus_base))
    test = record.versus_base[suite]
    others = [pair for name in FREE_TEXT if (pair := _both(record, suite, name)) is not None]
    figures = dict(test) | {
        f"{metric.name}, {model}": metric.value
        for pair in others
        for model, metric in zip(("tuned", "base"), pair, strict=True)
    }
    if others and not (test["only_tuned"] or test["only_base"] or test.get("both", 0)):
        return _by_free_text(suite, others, figures)
    better = test["only_tuned"] > test["only_base"]
    judge = record.judges.get(suite, "exact")
    text = (
        f"Accuracy (judge: {judge}) decides: of suite {suite}, {test['only_tuned']:.0f} items are right only with this "
        f"model and {test['only_base']:.0f} only with its base (exact McNemar test, p = {test['p']:.2g})."
    )
    if others:
        text += f" Beside it, against the base: {_listed(others)}."
    if better and test["p"] < alpha:
        return Verdict(True, text, figures)
    advice = (
        "More items would tell: the difference may be chance."
        if better
        else "By accuracy, training made it no better: look at the loss curve, and at what the base answers already."
    )
    return Verdict(False, f"{text} {advice}", figures)


def _both(record: EvaluationRecord, suite: str, name: str) -> tuple[Metric, Metric] | None:
    """One figure of the model and of its base; None where it was not measured of both."""
    tuned, base = record.metric(suite, name), record.metric(suite, name, "base")
    return (tuned, base) if tuned is not None and base is not None else None


def _by_free_text(suite: str, pairs: Sequence[tuple[Metric, Metric]], figures: dict[str, float]) -> Verdict:
    """Where no answer of either model is right word by word: by the first figure of free texts, and its intervals."""
    tuned, base = pairs[0]
    text = (
        f"No answer to suite {suite} is right word by word, of this model or its base, so {tuned.name} decides: "
        f"{interval(tuned, _digits(tuned))} against the base's {interval(base, _digits(base))}."
    )
    if len(pairs) > 1:
        text += f" Beside it: {_listed(pairs[1:])}."
    if tuned.low is not None and base.high is not None and tuned.low > base.high:
        return Verdict(True, text, figures)
    advice = (
        "More items would tell: the difference may be chance."
        if tuned.value > base.value
        else f"By {tuned.name}, training made it no better: look at the loss curve, and at the answers of the base."
    )
    return Verdict(False, f"{text} {advice}", figures)


def _listed(pairs: Sequence[tuple[Metric, Metric]]) -> str:
    return ", ".join(
        f"{tuned.name} {tuned.value:.{_digits(tuned)}f} to {base.value:.{_digits(base)}f}" for tuned, base in pairs
    )


def _digits(metric: Metric) -> int:
    """Decimals of a figure: BLEU and chrF are of 100, the others of 1."""
    return 1 if metric.name in ("bleu", "chrf") else 3


def forgetting(record: EvaluationRecord, policy: Forgetting) -> Verdict:
    """The accuracy on suites of general ability did not fall further below the base's than the policy allows."""
    falls = [d for d in record.differences if d.against == "base" and d.suite in record.general]
    if not record.general:
        return Verdict(True, "No suite of general ability was asked: nothing tells what was forgotten.")
    figures: dict[str, float | int | str] = {"max_fall": policy.max_fall}
    figures |= {f"difference on {d.suite}": round(d.difference, 4) for d in falls}
    if not falls:
        return Verdict(True, f"The base was not asked the suites of general ability. {record.baseline}.", figures)
    beyond = [d for d in falls if -(d.high if policy.decided_by == "interval" else d.difference) > policy.max_fall]
    changes = "; ".join(_change(d) for d in beyond or falls)
    if not beyond:
        return Verdict(True, f"Nothing fell by more than {policy.max_fall:g}. {changes}.", figures)
    return Verdict(
        False,
        f"General ability fell by more than {policy.max_fall:g}: {changes}. The model is not registered. Train less "
        "(fewer steps, a lower learning rate, LoRA instead of full weights), or mix general rows into the data.",
        figures,
    )


def regression(record: EvaluationRecord, policy: Regression) -> Verdict:
    """On no suite is the model worse, beyond chance, than the one that users have now."""
    compared = [d for d in record.differences if d.against == "production"]
    if not compared:
        return Verdict(True, "No other version of this model is in production: there is nothing to compare with.")
    figures: dict[str, float | int | str] = {"production": compared[0].ref, "alpha": policy.alpha}
    figures |= {f"p on {d.suite}": round(d.p, 6) for d in compared}
    worse = [d for d in compared if d.p < policy.alpha and d.only_other > d.only_tuned]
    changes = "; ".join(f"{_change(d)}, McNemar's p = {d.p:.2g} ({d.test})" for d in worse or compared)
    if not worse:
        return Verdict(True, f"Not worse than {compared[0].ref} beyond chance. {changes}.", figures)
    text = (
        f"Worse than {compared[0].ref}, which is in production: {changes}. The report lists the answers that changed."
    )
    if not policy.withhold:
        return Verdict(True, f"{text} The policy only warns (evaluation.regression.withhold).", figures)
    return Verdict(False, f"{text} The model is not registered.", figures)


def further_gates(record: EvaluationRecord, gates: Sequence[Gate]) -> Verdict:
    """The policy's gates on the suites that the model was asked."""
    outcomes = [(gate, judge_gate(record, gate)) for gate in gates if gate.suite in record.items]
    if not outcomes:
        return Verdict(True, "The policy has no further gate on the suites of this evaluation.")
    figures: dict[str, float | int | str] = {
        gate.text: interval(outcome.metric) if outcome.metric else "not measured" for gate, outcome in outcomes
    }
    missed = [outcome for _, outcome in outcomes if not outcome.passed]
    if missed:
        return Verdict(False, " ".join(outcome.text for outcome in missed), figures)
    return Verdict(True, f"Open: {'; '.join(gate.text for gate, _ in outcomes)}.", figures)


def suites_unseen(record: EvaluationRecord, limit: float) -> Verdict:
    """The training rows hold no more than the share `limit` of the items of any suite that the model was asked."""
    over = {suite: share for suite, share in record.leaked.items() if share > limit}
    figures: dict[str, float | int | str] = {
        f"share of {name}": round(share, 4) for name, share in record.leaked.items()
    }
    if not over:
        return Verdict(True, f"At most {limit:.0%} of the items of any suite stands in training rows.", figures)
    which = ", ".join(f"{share:.1%} of {suite}" for suite, share in over.items())
    if TEST in over and record.leaked_rows:
        shown = "; ".join(f"{one['row']} in {one['stands in']} ({one['as']})" for one in record.leaked_rows[:5])
        which += f", which its base learned: {shown}"
    return Verdict(
        False,
        f"The model was trained on items that it was asked: {which}. What it scores there says little, and it is not "
        "registered. Drop those rows and train again, or judge by other suites.",
        figures,
    )


def same_alone(record: EvaluationRecord) -> Verdict:
    """Whether the answers of a batch are those that the model gives alone, as a server asks it.

    Of two tokens whose logits differ by less than the rounding of the precision either is as good.
    """
    tuned = record.settings.get("tuned", {})
    allowed = MAX_LOGIT_GAP.get(tuned.get("precision", "fp32"), MAX_LOGIT_GAP["fp32"])
    other = {item: gap for item, gap in record.asked_alone.items() if gap > allowed}
    figures: dict[str, float | int | str] = {"asked_alone": len(record.asked_alone), "answered_otherwise": len(other)}
    if not record.asked_alone:
        return Verdict(True, "No answer was written in a batch with others, or it was not looked at.", figures)
    if not other:
        return Verdict(
            True, f"{len(record.asked_alone)} items were asked alone too: the answers are the same.", figures
        )
    worst = max(other, key=other.__getitem__)
    return Verdict(
        False,
        f"{len(other)} of {len(record.asked_alone)} items that were asked alone too are answered otherwise than in a "
        f"batch of {tuned.get('batch_size', 'several')} (most of all {worst}, by a logit of {other[worst]:.2g}, where "
        f"rounding explains {allowed:g}): the score depends on the batch size, and users would get other answers. Look "
        "for what makes a model see its neighbours: rope_scaling that depends on the length (dynamic, longrope), a "
        "padding token in the attention mask. Set evaluation.batch_size to 1 to see what it is worth alone.",
        figures,
    )


def questions_matter(record: EvaluationRecord) -> Verdict:
    """Whether the model says different things to different questions, and no suite is passed by one answer to all."""
    if not record.one_answer:
        return Verdict(True, "The answers go by the question.")
    figures: dict[str, float | int | str] = {suite: f"{o.items} of {o.of}" for suite, o in record.one_answer.items()}
    words = []
    for suite, one in record.one_answer.items():
        if one.kind == "answer":
            words.append(
                f"The model says one and the same to {one.items} of the {one.of} items of {suite}: «{one.text}» (it is "
                f"right of {one.right}). It has not learned to read the question: look at the answers of the training "
                "rows, at the chat template and at lr."
            )
        else:
            words.append(
                f"The right choice of {one.items} of the {one.of} items of {suite} is {one.text}: whoever always takes "
                "that is right, and the score says nothing. Put the choices into a random order, and register the "
                "suite anew. The model is not registered."
            )
    return Verdict(False, " ".join(words), figures)


def suites_ask(record: EvaluationRecord) -> Verdict:
    """Whether no suite is passed by whoever always takes the choice at one place; what the model says is not asked."""
    found = {suite: one for suite, one in record.one_answer.items() if one.kind == "right choice"}
    return questions_matter(record.model_copy(update={"one_answer": found}))


def judge_tells_apart(record: EvaluationRecord) -> Verdict:
    """Whether the LLM judge finds references better than answers to other questions, wherever they stand."""
    found = record.judge_controls
    if found is None or found.asked < MIN_CONTROLS:
        return Verdict(True, "No LLM judge decides, or too few of its items have a wrong answer to ask it about.")
    figures: dict[str, float | int | str] = found.model_dump()
    text = (
        f"Asked about {found.asked} references beside the answer to another question, in both orders, the judge found "
        f"the reference better {found.right} times"
    )
    if found.right >= MIN_CONTROLS_RIGHT * found.asked:
        return Verdict(True, f"{text}.", figures)
    causes = {
        "it takes the same place whatever stands there": found.turned,
        "it says TIE": found.ties,
        "it finds the wrong answer better: its letters are exchanged": found.reversed,
        "it gives no verdict that can be read": found.asked - found.right - found.turned - found.ties - found.reversed,
    }
    cause = max(causes, key=causes.__getitem__)
    return Verdict(
        False,
        f"{text}; of the others {causes[cause]} times {cause}. Its verdicts say nothing of the answers, and the model "
        "is not registered. Ask another model (evaluation.judge in the policy), or judge by a rule.",
        figures,
    )


def withholding(
    record: EvaluationRecord, policy: EvaluationPolicy, max_contaminated: float, max_cut: float = 0.05
) -> list[Verdict]:
    """The failed verdicts, the main gate aside, for which a model is not registered; none where it may be."""
    verdicts = [
        completeness(record),
        answers_end(record, max_cut),
        same_alone(record),
        suites_ask(record),
        judge_tells_apart(record),
        forgetting(record, policy.forgetting),
        regression(record, policy.regression),
        further_gates(record, policy.gates),
        suites_unseen(record, max_contaminated),
    ]
    return [verdict for verdict in verdicts if not verdict.passed]


def _change(d: Difference) -> str:
    return (
        f"{d.suite}: {d.difference:+.3f} (95 % interval {d.low:+.3f} to {d.high:+.3f}; {d.only_tuned} items right only "
        f"now, {d.only_other} only before)"
    )
