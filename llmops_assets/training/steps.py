"""How many optimizer steps a training takes, and at which rates: the same for the plan, the worker and Axolotl."""

import math

from llmops_assets.specs.training import Hyperparams


def steps_per_epoch(rows: int, hyper: Hyperparams, processes: int = 1) -> int:
    """Optimizer steps of one pass over `rows` rows (or packed blocks) that `processes` share."""
    batches = math.ceil(rows / (hyper.batch_size * processes))
    return max(1, math.ceil(batches / hyper.gradient_accumulation_steps))


def total_steps(rows: int, hyper: Hyperparams, processes: int = 1) -> int:
    """Optimizer steps of the whole training: `num_epochs` passes, or `max_steps` if that is less."""
    steps = math.ceil(hyper.num_epochs * steps_per_epoch(rows, hyper, processes))
    return min(steps, hyper.max_steps) if hyper.max_steps else steps


def warmup_steps(hyper: Hyperparams, steps: int) -> int:
    """Optimizer steps in which the rate rises to `lr`, of a training of `steps`."""
    if hyper.warmup_steps is not None:
        return hyper.warmup_steps
    return math.ceil((hyper.warmup_ratio or 0.0) * steps)


def steps_at_full_rate(hyper: Hyperparams, steps: int) -> float:
    """The rates of all steps added up, in steps at `lr`: what the schedule leaves of a training of `steps`.

    By Adam a weight moves by about the rate a step (Kingma & Ba 2015, arXiv:1412.6980, section 2.1), so this times
    `lr` bounds how far one can have moved.
    """
    warm = 0 if hyper.scheduler == "constant" else warmup_steps(hyper, steps)
    if warm >= steps:
        # It rises from 0 and the training ends on the way.
        return steps * (steps / max(1, warm)) / 2
    average = 1.0 if hyper.scheduler.startswith("constant") else 0.5
    return warm / 2 + (steps - warm) * average
