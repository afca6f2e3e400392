"""What must hold of a plan and of trained weights, each with what to do when it does not."""

import math
from itertools import pairwise
from pathlib import Path
from statistics import median

from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.steps import steps_at_full_rate
from llmops_assets.verdict import Verdict

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
NOISES_OF_THE_LOWEST, MOST_OF_THE_FALL, MIN_STEPS_FOR_RISE = 6.0, 0.5, 10
"""What a loss may be above its lowest in the end: standard deviations, or the share of all that it fell."""
NOISES, MIN_STEPS_FOR_NOISE = 2.5, 4


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
            f"(hyperparams.overlong: drop, for long ones){_of_bytes(plan)}",
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
        f"(hyperparams.overlong: drop), or allow more in the policy (limits.max_cut_answers){_of_bytes(plan)}",
        figures,
    )


def _of_bytes(plan: PlanRecord) -> str:
    """Why rows are long that need not be, where their tokenizer makes them so; empty where it doesn't."""
    return "".join(f". But first: {one.text}" for one in plan.findings if one.name == "tokens_are_bytes")


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
    # The last one was just read.
    if best not in (None, step) and (fault := folders.damage(folder / f"checkpoint-{best}")) is not None:
        return Verdict(
            False,
            f"the weights are those of step {best}, the best on the validation rows, but its checkpoint in {folder} "
            f"cannot be used: {fault}. Delete the adapter folder and train again",
        )
    if best is not None and (worse := _worse_than_another(record, best)) is not None:
        return Verdict(False, worse)
    if step == record.steps:
        kept = f"the checkpoint of the last step {step} is whole"
        text = kept if best is None else f"{kept}, and that of the best, {best}, whose weights were taken"
        return Verdict(True, text, {"checkpoint": str(path)})
    found = f"the last whole checkpoint is of step {step}" if step is not None else "there is no whole checkpoint"
    text = f"{found} in {folder}, but {record.steps} steps were trained"
    return Verdict(False, f"{text}. Was the disk full? Delete the adapter folder and train again")


def _worse_than_another(record: AdapterRecord, best: int) -> str | None:
    """What is wrong where early stopping took other weights than the best on the validation rows; else None."""
    looked = {p.step: p.eval_loss for p in record.curve if p.eval_loss is not None and math.isfinite(p.eval_loss)}
    if best not in looked or record.eval_loss is None:
        return None
    lowest = min(looked, key=lambda step: looked[step])
    if looked[best] <= looked[lowest] + LEAST_RISE and abs(record.eval_loss - looked[best]) <= LEAST_RISE:
        return None
    return (
        f"early stopping took the weights of step {best}, with a validation loss of {looked[best]:.4f} then (and "
        f"{record.eval_loss:.4f} on record), but those of step {lowest} had {looked[lowest]:.4f}: these are not the "
        "best ones. Delete the adapter folder and train again"
    )


def loss_fell(record: AdapterRecord) -> Verdict:
    """Whether the training loss ended below where it began, or above it by no more than its batches differ.

    A training that goes on gently with rows that the model knows ends above its first batch as often as below.
    """
    text = f"training loss {record.first_loss:.4f} → {record.last_loss:.4f}"
    if "policy_last_reward" in record.figures:
        return Verdict(True, "the loss of policy optimisation is near zero at all times; `learned` looks at its reward")
    if (rose := _rose_again(record)) is not None:
        return Verdict(False, f"{text}: {rose}")
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


def _rose_again(record: AdapterRecord) -> str | None:
    """What happened to a training that came far and lost more than half of that again; None where it kept it.

    Where it stopped early the weights are the best ones, whatever came after.
    """
    losses = [p.loss for p in record.curve if p.loss is not None and math.isfinite(p.loss)]
    if len(losses) < MIN_STEPS_FOR_RISE or record.best_step is not None:
        return None
    width = max(1, len(losses) // 20)
    means = [sum(losses[at : at + width]) / width for at in range(len(losses) - width + 1)]
    lowest = min(means)
    rise, fall = record.last_loss - lowest, record.first_loss - lowest
    # The lowest of many is low by chance, too.
    noise = min(NOISES_OF_THE_LOWEST * loss_noise(record), MOST_RISE * record.first_loss)
    if fall <= 0 or rise <= max(LEAST_RISE, noise, MOST_OF_THE_FALL * fall):
        return None
    steps = [p.step for p in record.curve if p.loss is not None and math.isfinite(p.loss)]
    return (
        f"it was {lowest:.4f} about step {steps[means.index(lowest)]}, and the training lost {rise / fall:.0%} of that "
        "again: it diverged on its way, and these are the weights of its end. Lower lr, add warm-up, or stop early "
        "(hyperparams.early_stopping)"
    )


def loss_noise(record: AdapterRecord) -> float:
    """By how much the losses of batches differ by chance: a standard deviation, from the steps between its points.

    Of the median step, so that neither a fall nor a jump of the whole curve counts as noise; 0 with too few points.
    """
    losses = [p.loss for p in record.curve if p.loss is not None and math.isfinite(p.loss)]
    steps = [abs(b - a) for a, b in pairwise(losses)]
    # 1.4826 makes a deviation of a median (Rousseeuw & Croux 1993), and a step has the noise of two points.
    return 1.4826 * median(steps) / math.sqrt(2) if len(steps) >= MIN_STEPS_FOR_NOISE else 0.0
