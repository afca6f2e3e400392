"""Judges an evaluation itself: whether it is whole, and whether the model is better than what it was made from."""

import math

from llmops_assets.evaluation.suites import TEST
from llmops_assets.specs.records import EvaluationRecord
from llmops_assets.verdict import Verdict

ALPHA = 0.05


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
    better = test["only_tuned"] > test["only_base"]
    told = (
        f"Of suite {suite}, {test['only_tuned']:.0f} items are right only with this model and {test['only_base']:.0f} "
        f"only with its base (exact McNemar test, p = {test['p']:.2g})."
    )
    if better and test["p"] < alpha:
        return Verdict(True, told, dict(test))
    advice = (
        "More items would tell: the difference may be chance."
        if better
        else "Training made it no better: look at the loss curve, and at what the base answers already."
    )
    return Verdict(False, f"{told} {advice}", dict(test))
