"""How many optimizer steps a training takes: the same for the plan, the worker and Axolotl."""

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
