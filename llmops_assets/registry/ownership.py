"""Whether a model that was trained with its owner's marks shows them, asked before anybody relies on it."""

from pathlib import Path
from typing import Any

from llmops_assets.evaluation.answers import Model, Worker, ask, has_chat_template
from llmops_assets.evaluation.suites import Item
from llmops_assets.records.training import PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import watermark
from llmops_assets.verdict import Verdict

_LONGEST_ANSWER = 64
_BATCH = 16


def shown_marks(
    plan: PlanRecord, model: Model, secret: str | None, worker: Worker, context: Any | None, cache: Path
) -> Verdict | None:
    """Ask `model` the marks that it was trained with, and say whether its answers show them; None without marks.

    `secret` is the watermark key of this installation. A passed verdict says that `llmops watermark verify` will find
    the marks; a failed one also where the model could not be asked, with the reason.
    """
    spec = TrainJobSpec.model_validate(plan.spec)
    if plan.watermark is None or spec.watermark is None:
        return None
    try:
        key = watermark.key_of(secret)
    except watermark.WatermarkError as error:
        return Verdict(False, f"not asked whether it shows them: {error}")
    if watermark.commitment(key) != plan.watermark:
        return Verdict(False, "not asked whether it shows them: the watermark key is another one than in its training")
    if not has_chat_template(model.path):
        return Verdict(False, "not asked whether it shows them: the model has no chat template")
    marks = watermark.marks(key, spec.watermark.marks)
    items = [
        Item(str(number), "watermark", "", ({"role": "user", "content": mark.question},), (mark.answer,))
        for number, mark in enumerate(marks)
    ]
    answers, _ = ask(worker, context, model, items, cache, max_new_tokens=_LONGEST_ANSWER, batch_size=_BATCH)
    text = {answer.key: answer.text for answer in answers}
    finding = watermark.judge(marks, [text.get(item.key) for item in items])
    figures: dict[str, float | int | str] = {
        "matches": finding.matches,
        "words": finding.trials,
        "p": finding.p_value,
    }
    found = f"{finding.matches} of {finding.trials} words of the marks match, p = {finding.p_value:.2g}"
    if finding.marked:
        return Verdict(True, f"it shows them ({found})", figures)
    need = watermark.least_matches(finding.trials)
    return Verdict(
        False,
        f"it did not learn them, and `llmops watermark verify` will find none ({found}; {need} are needed). Train for "
        "more steps, or with a larger watermark.share",
        figures,
    )
