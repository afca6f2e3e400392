"""What must hold of a merged model, each with what to do when it does not."""

import math

from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.verdict import Verdict

MIN_AGREEMENT = 0.99
"""Share of positions at which the merged model must find the same token likeliest as base + adapter."""
LEAST_KL_FROM_BASE = 1e-8
"""Nats a token below which two models answer alike."""
MAX_KL = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 1e-2}
"""Nats a token by which the merged model's predictions may differ from those of base + adapter."""
MAX_SAVED_DIFFERENCE = {"fp32": 2e-2, "bf16": 5e-2, "fp16": 5e-2}
"""Nats a token between a model in memory and its saved weights loaded again; QLoRA's four bits are dequantised then."""
LEAST_KL_OF_A_MERGE = 1e-6
"""Nats a token below which a merge in fp32 rounds, and nothing is asked of the share."""
MAX_SHARE_LOST = 0.5
"""Of what the adapter changes, the share that its merge may be away from it: rounding alone stays far below."""
MAX_LOGIT_DIFFERENCE = {"fp32": 1e-2, "bf16": 1.0, "fp16": 0.5}


def same_as_trained(record: MergedModelRecord, precision: str) -> Verdict:
    """Whether the merged model computes what base and adapter do, as closely as `precision` allows."""
    if record.figures.get("retriever_top1_agreement", 1.0) < MIN_AGREEMENT:
        return _same_vectors(record, "retriever_")
    saved = record.saved_difference
    if saved is not None and not saved <= MAX_SAVED_DIFFERENCE[precision]:
        return Verdict(
            False,
            f"the saved weights are not those that were trained: loaded again, their loss on rows of the plan is "
            f"{saved:.3g} nats a token from what it was in memory ({MAX_SAVED_DIFFERENCE[precision]:g} is allowed in "
            f"{precision}). Something that was trained was not saved: embeddings, a head, added tokens",
            {"saved_difference": saved},
        )
    if record.max_logit_difference is None or record.top1_agreement is None:
        return Verdict(True, "full weights: there is nothing to merge")
    if (lost := _rounded_away(record)) is not None:
        return lost
    if record.chat_template_hash is None and "pooling" in record.figures:
        return _same_vectors(record)
    limit = MAX_LOGIT_DIFFERENCE[precision]
    kl = record.mean_kl or 0.0
    passed = record.max_logit_difference <= limit and record.top1_agreement >= MIN_AGREEMENT and kl <= MAX_KL[precision]
    text = (
        f"merged against base + adapter: largest logit difference {record.max_logit_difference:.3g} ({limit:g} is "
        f"allowed in {precision}), same likeliest token at {record.top1_agreement:.2%} of positions, "
        f"divergence {kl:.2g} nats a token ({MAX_KL[precision]:g})"
    )
    figures = {"max_logit_difference": record.max_logit_difference, "top1_agreement": record.top1_agreement}
    return Verdict(passed, text if passed else f"{text}. The merge changed the model", figures)


def _rounded_away(record: MergedModelRecord) -> Verdict | None:
    """What fails where a merge in few bits took away what a gentle adapter had learned; None where it did not."""
    if record.adapter_kl is None or record.mean_kl is None or record.mean_kl <= LEAST_KL_OF_A_MERGE:
        return None
    share = record.mean_kl / record.adapter_kl if record.adapter_kl else math.inf
    if share <= MAX_SHARE_LOST:
        return None
    return Verdict(
        False,
        f"the merge takes away what was learned: the adapter moves its base by {record.adapter_kl:.2g} nats a token, "
        f"and the merged model is {record.mean_kl:.2g} from the two ({share:.0%}; {MAX_SHARE_LOST:.0%} are allowed). "
        "So small a change is less than the rounding of the weights: train longer or at a higher lr, or in fp32",
        {"adapter_kl": record.adapter_kl, "mean_kl": record.mean_kl},
    )


def _same_vectors(record: MergedModelRecord, prefix: str = "") -> Verdict:
    """Whether sentence-transformers gives the vectors that were trained, of a saved encoder."""
    found = {**record.model_dump(include={"max_logit_difference", "top1_agreement"}), **record.figures}
    share, difference = found[f"{prefix}top1_agreement"], found[f"{prefix}max_logit_difference"]
    text = (
        f"loaded by sentence-transformers, {share:.2%} of the texts get the vector that was trained (largest "
        f"difference {difference:.2g}, {record.figures['pooling']} pooling)"
    )
    if share >= MIN_AGREEMENT:
        return Verdict(True, text)
    return Verdict(False, f"{text}. It is tokenised or pooled in another way than it was trained: do not serve it")


def differs_from_base(record: MergedModelRecord) -> Verdict:
    """Whether the merged model answers otherwise than its base."""
    if not record.differs_from_base:
        return Verdict(False, "the merged model gives the very logits of its base: the adapter is not in it")
    if record.base_kl is None:
        return Verdict(True, "the merged model answers otherwise than its base")
    text = f"the merged model is {record.base_kl:.2g} nats a token from its base on rows of the plan"
    if record.base_kl < LEAST_KL_FROM_BASE:
        return Verdict(False, f"{text}: no answer of it changes, nothing was learnt. Train longer, or raise lr")
    return Verdict(True, text, {"base_kl": record.base_kl})


def reference_kept(record: MergedModelRecord, precision: str) -> Verdict:
    """Whether what a policy was held to was its base, to the end of its training."""
    away, allowed = record.reference_difference, MAX_SAVED_DIFFERENCE[precision]
    if away is None:
        return Verdict(True, "it was held to no reference, or to one in four bits, which is not compared")
    figures: dict[str, float | int | str] = {"reference_difference": away}
    if away <= allowed:
        return Verdict(True, f"the reference it was held to is its base ({away:.2g} nats a token apart)", figures)
    return Verdict(
        False,
        f"the policy was held to another model than its base: the loss of its reference on rows of the plan is "
        f"{away:.3g} nats a token from the base's ({allowed:g} is allowed in {precision}). Its adapter was merged into "
        "the reference, or the reference was taken of the policy when training went on. Delete the adapter folder and "
        "train again",
        figures,
    )


def base_whole(record: MergedModelRecord) -> Verdict:
    """Whether no two layers of the base stand in each other's place, by how it predicts the texts of the rows.

    That it predicts them no better than guessing is said, and no failure: the language may be new to it.
    """
    read = record.base_reading
    if read is None:
        return Verdict(True, "there is no base that predicts text, or it was not looked at")
    figures: dict[str, float | int | str] = {"loss": read.loss, "guessing": read.guessing, "tokens": read.tokens}
    text = f"the base predicts the texts of these rows with {read.loss:.2f} nats a token; guessing has "
    text += f"{read.guessing:.2f}"
    if read.exchanged is not None and read.exchanged_loss is not None:
        one, other = read.exchanged
        return Verdict(
            False,
            f"layers {one} and {other} of the base stand in each other's place: {text}, and the other way round it "
            f"has {read.exchanged_loss:.2f}. Copy its weights again from where they are from: somebody renamed or "
            "converted its tensors wrongly",
            figures | {"exchanged_loss": read.exchanged_loss},
        )
    return Verdict(True, f"but {read.guess}" if read.guesses else text, figures)


def reloads(record: MergedModelRecord) -> Verdict:
    """Whether the merged model, loaded again from its folder, gives finite logits."""
    text = f"loaded again from {record.path}, it gives finite logits"
    if record.faults:
        return Verdict(False, f"the model in {record.path} is not whole: {'; '.join(record.faults)}")
    return Verdict(record.reloads, text if record.reloads else f"loaded again from {record.path}, it gives no numbers")


def same_template(record: MergedModelRecord, plan: PlanRecord) -> Verdict:
    """Whether the merged model carries the chat template that it was trained with."""
    trained, saved = plan.chat_template_hash, record.chat_template_hash
    if trained == saved:
        return Verdict(True, f"it carries the chat template that it was trained with ({saved})")
    return Verdict(
        False, f"it was trained with chat template {trained}, but carries {saved}: serving would render otherwise"
    )
