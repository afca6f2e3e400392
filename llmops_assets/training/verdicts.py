"""What must hold of a plan, of trained weights and of a merged model, each with what to do when it does not."""

import math
from itertools import pairwise
from pathlib import Path
from statistics import median

from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.steps import steps_at_full_rate
from llmops_assets.verdict import Verdict

MIN_AGREEMENT = 0.99
"""Share of positions at which the merged model must find the same token likeliest as base + adapter."""
LEAST_CHANGE = 1e-10
"""L2 norm below which weights have not moved: no rate that anyone means leaves less, after a single step."""
MAX_UNMOVED = 0.5
"""Share of the trained tensors that may not have moved: experts that no row reached, embeddings of unseen tokens."""
LEAST_SHARE_OF_WALK = 1e-3
"""Of what a random walk of Adam's steps would move a weight: an embedding of many unseen tokens stays far above."""
LEAST_RISE = 0.02
"""Nats by which a loss may rise whatever its noise: a model that knows its rows has a loss of about so much."""
MOST_RISE = 0.5
"""Share of the first loss by which no noise of batches lets a loss rise."""
NOISES, MIN_STEPS_FOR_NOISE = 2.5, 4
LEAST_KL_FROM_BASE = 1e-8
"""Nats a token below which two models answer alike."""
MAX_KL = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 1e-2}
"""Nats a token by which the merged model's predictions may differ from those of base + adapter."""
MAX_SAVED_DIFFERENCE = {"fp32": 2e-2, "bf16": 5e-2, "fp16": 5e-2}
"""Nats a token between a model in memory and its saved weights loaded again; QLoRA's four bits are dequantised then."""
MAX_LOGIT_DIFFERENCE = {"fp32": 1e-2, "bf16": 1.0, "fp16": 0.5}


def writes(plan: PlanRecord) -> bool:
    """Whether what is trained writes text; an encoder does not, so it has no answers, stop token or chat template."""
    return plan.spec["job_type"] != "EMBEDDING"


NOTHING_WRITTEN = Verdict(True, "an encoder writes nothing, so this does not apply")


def every_row_trains(plan: PlanRecord) -> Verdict:
    """Whether every training row has a token that carries loss."""
    empty, rows = plan.rows_without_trainable_tokens, plan.rows.get("train", 0)
    if plan.trainable_tokens == 0 or empty:
        return Verdict(
            False,
            f"{empty} of {rows} rows have no token to learn from: their answer is empty, has weight 0, "
            f"or is beyond max_seq_len {plan.spec['hyperparams']['max_seq_len']}. Raise it, or leave such rows out "
            "(hyperparams.overlong: drop, for long ones)",
            {"rows": empty, "examples": ", ".join(plan.failures.get("no_trainable_tokens", []))},
        )
    return Verdict(True, f"all {rows} rows have tokens that carry loss: {plan.trainable_tokens:,} an epoch")


def answers_whole(plan: PlanRecord, allowed: float) -> Verdict:
    """`allowed` is the share of rows whose answer may be cut."""
    rows = plan.rows.get("train", 0)
    share = plan.cut_answers / rows if rows else 0.0
    text = f"max_seq_len cuts {plan.cut_answers} of {rows} answers ({share:.1%}; {allowed:.0%} are allowed)"
    figures = {"cut_answers": plan.cut_answers, "examples": ", ".join(plan.failures.get("cut_answers", []))}
    if share <= allowed:
        return Verdict(True, text, figures)
    return Verdict(
        False,
        f"{text}. A cut answer teaches the model not to end. Raise max_seq_len, leave long rows out "
        "(hyperparams.overlong: drop), or allow more in the policy (limits.max_cut_answers)",
        figures,
    )


def stop_token_trained(plan: PlanRecord) -> Verdict:
    """Whether the token that ends an answer carries loss: else the model would never stop."""
    if not writes(plan):
        return NOTHING_WRITTEN
    if plan.stop_token_trained:
        return Verdict(True, f"every answer ends with {plan.stop_token}, which carries loss")
    return Verdict(
        False,
        "the token that ends an answer carries no loss, so the model would never learn to stop. End the assistant's "
        "part of the chat template with the end token, inside its {% generation %} block",
        {"examples": ", ".join(plan.failures.get("stop_token_untrained", []))},
    )


def template_keeps_prefix(plan: PlanRecord) -> Verdict:
    """Whether the chat template renders a conversation's beginning alike when the conversation goes on."""
    if not writes(plan):
        return NOTHING_WRITTEN
    if plan.prefix_preserving:
        return Verdict(True, "answers are trained behind exactly the tokens that a server puts before them")
    return Verdict(
        False,
        "the chat template renders a conversation differently once it goes on, so serving would put other tokens "
        "before an answer than training did. Use a template whose output only grows with the messages",
        {"examples": ", ".join(plan.failures.get("prefix_changed", []))},
    )


def one_bos(plan: PlanRecord) -> Verdict:
    """Whether no row begins with two beginning-of-sequence tokens."""
    if plan.double_bos_rows == 0:
        return Verdict(True, "no row begins with two beginning-of-sequence tokens")
    return Verdict(
        False,
        f"{plan.double_bos_rows} rows begin with two beginning-of-sequence tokens: the template writes one and the "
        "tokenizer adds another. Take it out of the template",
        {"examples": ", ".join(plan.failures.get("double_bos", []))},
    )


def memory_fits(plan: PlanRecord) -> Verdict:
    """Whether the training fits the device here, and the type of GPU that the spec names."""
    figures = {"needed_bytes": plan.memory_bytes, "available_bytes": plan.memory_available}
    if plan.memory_advice is not None:
        return Verdict(False, f"it would not fit {plan.device}: {plan.memory_advice}", figures)
    typed = plan.on_gpu_type
    if typed is not None and typed["advice"] is not None:
        return Verdict(False, f"it would not fit a GPU of type {typed['gpu']}: {typed['advice']}", figures)
    return Verdict(True, f"about {plan.memory_bytes / 2**30:.1f} GiB are needed on {plan.device}", figures)


def weights_finite(record: AdapterRecord) -> Verdict:
    """Whether all trained weights and logged losses are numbers."""
    losses = [p.loss for p in record.curve if p.loss is not None]
    broken = sum(not math.isfinite(loss) for loss in losses)
    passed = record.non_finite_weights == 0 and broken == 0
    text = f"{record.non_finite_weights} weights and {broken} losses are no numbers"
    return Verdict(passed, text if passed else f"{text}. Lower lr, or train in fp32 or bf16")


def weights_moved(record: AdapterRecord, plan: PlanRecord | None = None) -> Verdict:
    """Whether training changed the weights (L2 norm of the change), as far as the rate and the steps of `plan` allow.

    By Adam a weight that has a gradient at all moves by about the rate a step, so what moved a thousandth of a random
    walk of such steps was not trained.
    """
    moved = math.isfinite(record.weight_change) and record.weight_change > LEAST_CHANGE
    text = f"the trained weights moved by {record.weight_change:.4g} (L2) from their initialisation"
    if not moved:
        return Verdict(False, f"{text}: nothing was learnt. Look at lr and target_modules")
    tensors, still = record.trained_tensors or 0, record.unmoved_tensors or 0
    figures = {"unmoved_tensors": still, "trained_tensors": tensors}
    if tensors and still > MAX_UNMOVED * tensors:
        return Verdict(
            False,
            f"{text}, but {still} of {tensors} trained tensors did not move at all: most of what the plan trains has "
            "no gradient. Look at target_modules, and at what freezes weights",
            figures,
        )
    if plan is not None and record.weight_change_rms is not None and "policy_last_reward" not in record.figures:
        hyper = TrainJobSpec.model_validate(plan.spec).hyperparams
        walk = hyper.lr * math.sqrt(steps_at_full_rate(hyper, record.steps))
        figures |= {"weight_change_rms": record.weight_change_rms, "random_walk": walk}
        if record.weight_change_rms < LEAST_SHARE_OF_WALK * walk:
            return Verdict(
                False,
                f"{text}, {record.weight_change_rms:.2g} a weight, where {record.steps} steps at lr {hyper.lr:g} move "
                f"one by about {walk:.2g}: hardly anything of what is trained has a gradient. Look at target_modules "
                "and at the label mask in the plan",
                figures,
            )
        if still_modules := {m: rms for m, rms in record.moved_by_module.items() if rms < LEAST_SHARE_OF_WALK * walk}:
            which = ", ".join(f"{module} ({rms:.2g} a weight)" for module, rms in still_modules.items())
            return Verdict(
                False,
                f"{text}, but not those of {which}, where {record.steps} steps at lr {hyper.lr:g} move one by about "
                f"{walk:.2g}: in no layer has that module a gradient. Take it out of what is trained "
                "(target_modules, train_embeddings), or mend the base: what follows the module may be zero",
                figures | {f"moved, {module}": rms for module, rms in record.moved_by_module.items()},
            )
    return Verdict(True, text + (f"; {still} of {tensors} tensors did not" if still else ""), figures)


def checkpoint_kept(record: AdapterRecord, plan: PlanRecord) -> Verdict:
    """Whether a whole checkpoint is there, that of the best step where training stopped early."""
    folder = Path(plan.model_dir) / "checkpoints"
    step, path, _warnings = folders.last_checkpoint(folder)
    best = record.best_step
    if best is not None and (fault := folders.damage(folder / f"checkpoint-{best}")) is not None:
        return Verdict(
            False,
            f"the weights are those of step {best}, the best on the validation rows, but its checkpoint in {folder} "
            f"cannot be used: {fault}. Delete the adapter folder and train again",
        )
    if step == record.steps:
        kept = f"the checkpoint of the last step {step} is whole"
        text = kept if best is None else f"{kept}, and that of the best, {best}, whose weights were taken"
        return Verdict(True, text, {"checkpoint": str(path)})
    found = f"the last whole checkpoint is of step {step}" if step is not None else "there is no whole checkpoint"
    text = f"{found} in {folder}, but {record.steps} steps were trained"
    return Verdict(False, f"{text}. Was the disk full? Delete the adapter folder and train again")


def loss_fell(record: AdapterRecord) -> Verdict:
    """Whether the training loss ended below where it began, or above it by no more than its batches differ.

    A training that goes on gently with rows that the model knows ends above its first batch as often as below.
    """
    text = f"training loss {record.first_loss:.4f} → {record.last_loss:.4f}"
    if "policy_last_reward" in record.figures:
        return Verdict(True, "the loss of policy optimisation is near zero at all times; `learned` looks at its reward")
    if record.last_loss < record.first_loss:
        return Verdict(True, text)
    # What rises by half is no noise: a training that diverges leaps from step to step.
    allowed = max(LEAST_RISE, min(NOISES * loss_noise(record), MOST_RISE * record.first_loss))
    if record.last_loss - record.first_loss <= allowed:
        return Verdict(True, f"{text}: no more than its batches differ by chance ({allowed:.2g})")
    return Verdict(
        False,
        f"{text}: it did not fall, and batches differ by {allowed:.2g} at most. Lower lr, add warm-up, or look at the "
        "label mask in the plan",
    )


def loss_noise(record: AdapterRecord) -> float:
    """By how much the losses of batches differ by chance: a standard deviation, from the steps between its points.

    Of the median step, so that neither a fall nor a jump of the whole curve counts as noise; 0 with too few points.
    """
    losses = [p.loss for p in record.curve if p.loss is not None and math.isfinite(p.loss)]
    steps = [abs(b - a) for a, b in pairwise(losses)]
    # 1.4826 makes a deviation of a median (Rousseeuw & Croux 1993), and a step has the noise of two points.
    return 1.4826 * median(steps) / math.sqrt(2) if len(steps) >= MIN_STEPS_FOR_NOISE else 0.0


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
