"""Measures the training loop of another program, whatever trainer of its own it builds on transformers' Trainer.

`python -m benchmarks.clock RESULT.json TOKENS -m MODULE ARGS` runs the module as `python -m` would, ends its training
once the model has seen TOKENS tokens that are no padding, and writes the wall and CPU seconds of `Trainer.train`, the
tokens, the steps, and the peak memory. Start-up and the preparation of rows are outside, for every program alike.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any


def real_tokens(batch: dict[str, Any]) -> int:
    """Tokens of a batch that are no padding; without a mask, as in packed batches, all of them."""
    mask = batch.get("attention_mask")
    # Axolotl numbers the packed rows of a sequence in its mask; 0 is padding everywhere.
    return int((mask != 0).sum()) if mask is not None else batch["input_ids"].numel()


def install(result: Path, enough: int) -> None:
    """Measure `Trainer.train` in this process from now on, and end it after `enough` tokens; kept in `result`."""
    from transformers import Trainer

    train, step = Trainer.train, Trainer.training_step
    counted = {"tokens": 0, "padding": 0, "trained_tokens": 0, "steps": 0}

    def counting(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        tokens = real_tokens(inputs)
        counted["tokens"] += tokens
        counted["padding"] += inputs["input_ids"].numel() - tokens
        counted["trained_tokens"] += int((inputs["labels"] != -100).sum())
        counted["steps"] += 1
        if counted["tokens"] >= enough:
            self.control.should_training_stop = True
        return step(self, model, inputs, *args, **kwargs)

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        wall, cpu = time.monotonic(), time.process_time()
        done = train(self, *args, **kwargs)
        figures = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu, **counted}
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        result.write_text(json.dumps({**figures, "peak_memory_bytes": peak}), encoding="utf-8")
        return done

    Trainer.train, Trainer.training_step = timed, counting


def main() -> None:
    result, enough, flag, module, *rest = sys.argv[1:]
    assert flag == "-m", "RESULT.json TOKENS -m MODULE ARGS"
    sys.argv = [module, *rest]
    sys.path.insert(0, os.getcwd())
    install(Path(result), int(enough))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
