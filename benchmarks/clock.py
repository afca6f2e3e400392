"""Measures the training loop of another program, whatever trainer of its own it builds on transformers' Trainer.

`python -m benchmarks.clock RESULT.json TOKENS -m MODULE ARGS` runs the module as `python -m` would, ends its training
once the model has seen TOKENS tokens that are no padding, and writes the wall and CPU seconds from the beginning of the
third step to that of the last, the tokens of the steps between, and the peak memory. So batches, optimizer, callbacks
and logs count; start-up, the preparation of rows, what the first steps set up, and saving do not, for all alike.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

_WARM = 2
"""Steps that are not measured: they allocate, and load what is loaded when it is first used."""


def install(result: Path, enough: int) -> None:
    """Measure `Trainer.train` in this process from now on, and end it after `enough` tokens; kept in `result`."""
    from transformers import Trainer

    train, step = Trainer.train, Trainer.training_step
    counted = {"tokens": 0, "padding": 0, "trained_tokens": 0, "steps": 0}
    marks: list[tuple[float, float, int]] = []

    def counting(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        marks.append((time.monotonic(), time.process_time(), counted["tokens"]))
        # By the token, because not every trainer gives its model a mask.
        tokens = int((inputs["input_ids"] != self.processing_class.pad_token_id).sum())
        counted["tokens"] += tokens
        counted["padding"] += inputs["input_ids"].numel() - tokens
        counted["trained_tokens"] += int((inputs["labels"] != -100).sum())
        counted["steps"] += 1
        if counted["tokens"] >= enough:
            self.control.should_training_stop = True
        return step(self, model, inputs, *args, **kwargs)

    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        done = train(self, *args, **kwargs)
        names = ("seconds", "cpu_seconds", "timed_tokens")
        timed = {name: last - first for name, first, last in zip(names, marks[_WARM], marks[-1], strict=True)}
        status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
        result.write_text(json.dumps({**counted, **timed, "peak_memory_bytes": peak}), encoding="utf-8")
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
