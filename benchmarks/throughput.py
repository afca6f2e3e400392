"""How fast chat rows of mixed length are trained: ours beside TRL and Axolotl, at the same loss after the same tokens.

Run it with ``python -m benchmarks.throughput``: the same rows (68 to 256 tokens), base (a Llama of 3.3 million random
weights), LoRA, batch of about 1,280 tokens and constant learning rate for all; one thread, loss on the assistant's
tokens only. Every contender ends once it has seen the same number of tokens that are no padding; its adapter's loss
on rows that none has seen is then measured by one and the same program. Repetitions take turns, so that whatever else
the machine does falls on all alike; CPU seconds are the steadier figure there. Axolotl is left out, and said to be,
where its environment is not there (`make engines ENGINE=axolotl`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bench import Size, conversations, make_base, run_ours, run_plain, sft_spec, write_rows
from images.train.axolotl import environment
from resources.engines import EngineError, Engines
from resources.trainer import Trainer

SIZE = Size(256, 4, 8, 4, 592, 2800, True)
SHORTEST, LONGEST = 68, 256
PACKED_LENGTH, PACKED_BATCH, BATCH = 640, 2, 8
LEARNING_RATE, RANK = 1e-3, 16
MAX_STEPS = 1000
LIMITS = {"TRL defaults": 2.5, "Axolotl, sample_packing": 1.2}
"""How many times as many tokens a second as theirs the better of our two shall train."""
TOLERANCE = 0.05
"""Nats a token by which our held-out loss may be above the lowest of the others."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """What all contenders share: the base, the rows in `folder`/rows.jsonl, and the tokens after which they end."""

    folder: Path
    base: Path
    rows: list[list[dict[str, str]]]
    tokens: int


def in_range(count: int, tokenizer: Any, seed: int) -> list[list[dict[str, str]]]:
    """`count` conversations of 68 to 256 tokens, made up."""
    found: list[list[dict[str, str]]] = []
    while len(found) < count:
        drawn = conversations(count, 80, seed)
        for start in range(0, len(drawn), 256):
            part = drawn[start : start + 256]
            for row, ids in zip(part, tokenizer.apply_chat_template(part, return_dict=False), strict=True):
                if SHORTEST <= len(ids) <= LONGEST:
                    found.append(row)
        seed += 1000
    return found[:count]


def _hyper(packing: bool) -> dict[str, Any]:
    return {
        "lr": LEARNING_RATE,
        "scheduler": "constant",
        "batch_size": PACKED_BATCH if packing else BATCH,
        "max_steps": MAX_STEPS,
        "max_seq_len": PACKED_LENGTH,
        "lora_rank": RANK,
        "packing": packing,
    }


def trl(stage: Stage, folder: Path, packing: bool = False, **options: Any) -> tuple[Figures, Path]:
    """TRL's SFTTrainer as a script."""
    clock = folder / "clock.json"
    more = {"lr_scheduler_type": "constant", "packing": packing, **options}
    clocked = ["-m", "benchmarks.clock", str(clock), str(stage.tokens)]
    spec = sft_spec("lora", "cpu", "fp32", **_hyper(packing))
    done = run_plain(folder, spec, stage.base, "cpu", through=clocked, rows=stage.folder / "rows.jsonl", **more)
    if "failed" in done:
        raise RuntimeError(f"TRL: {done['failed']}")
    return json.loads(clock.read_text(encoding="utf-8")), folder / "out"


def axolotl(stage: Stage, folder: Path, engine: Path, packing: bool = False) -> tuple[Figures, Path]:
    """Axolotl's command on a YAML that a user would write."""
    folder.mkdir(parents=True, exist_ok=True)
    kernels = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")
    config = {
        "base_model": str(stage.base),
        "datasets": [
            {
                "path": str(stage.folder / "rows.jsonl"),
                "ds_type": "json",
                "type": "chat_template",
                "chat_template": "tokenizer_default",
                "field_messages": "messages",
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }
        ],
        "dataset_prepared_path": str(folder / "prepared"),
        "dataset_num_proc": 1,
        "val_set_size": 0,
        "output_dir": str(folder / "out"),
        "sequence_len": PACKED_LENGTH,
        "sample_packing": packing,
        "pad_to_sequence_len": packing,
        "micro_batch_size": PACKED_BATCH if packing else BATCH,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1000,
        "max_steps": MAX_STEPS,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "adapter": "lora",
        "lora_r": RANK,
        "lora_alpha": 2 * RANK,
        "lora_dropout": 0.0,
        "lora_target_linear": True,
        "logging_steps": 10,
        "save_strategy": "no",
        "bf16": False,
        "fp16": False,
        "tf32": False,
        "attn_implementation": "sdpa",
        **dict.fromkeys(kernels, False),
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    clock = folder / "clock.json"
    command = [str(engine), "-m", "benchmarks.clock", str(clock), str(stage.tokens), "-m", "axolotl.cli.main"]
    command += ["train", str(folder / "config.yml"), "--launcher", "python"]
    done = subprocess.run(command, env=environment(engine, "cpu"), capture_output=True, text=True, check=False)
    if done.returncode != 0 or not clock.exists():
        raise RuntimeError(f"axolotl ended with code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(clock.read_text(encoding="utf-8")), folder / "out"


def ours(stage: Stage, folder: Path, packing: bool = False) -> tuple[Figures, Path]:
    """The platform's worker as the `adapter` step starts it; planned by the worker too, which is not measured."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = sft_spec("lora", "cpu", "fp32", **_hyper(packing))
    clock, python = folder / "clock.json", folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -m benchmarks.clock {clock} {stage.tokens} "$@"\n')
    python.chmod(0o755)
    _, job, _ = run_ours(folder, spec, stage.base, "cpu", write_rows(folder, stage.rows))
    facts = Trainer(locks=folder / "locks", threads=1, python=str(python)).run(None, job, work_dir=folder / "work")
    return json.loads(clock.read_text(encoding="utf-8")), Path(facts["path"])


def held_out_loss(base: Path, adapter: Path, rows: list[list[dict[str, str]]]) -> float:
    """Nats a token of what the assistant says in `rows`."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from images.train.chat import choose_template, encode

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in encode(tokenizer, choose_template(tokenizer), rows, PACKED_LENGTH):
            ids, trained = torch.tensor([row.ids]), torch.tensor(row.trained[1:], dtype=torch.bool)
            scores = model(input_ids=ids).logits[0, :-1][trained]
            total += float(torch.nn.functional.cross_entropy(scores, ids[0, 1:][trained], reduction="sum"))
            count += int(trained.sum())
    return total / count


def contenders(engine: Path | None) -> dict[str, Callable[[Stage, Path], tuple[Figures, Path]]]:
    """Who is compared, by name, ours last."""
    off = {"gradient_checkpointing": False}
    found: dict[str, Callable[[Stage, Path], tuple[Figures, Path]]] = {
        "TRL defaults": trl,
        "TRL, checkpointing off": lambda stage, folder: trl(stage, folder, **off),
        "TRL, packing bfd": lambda stage, folder: trl(stage, folder, packing=True, **off),
    }
    if engine is not None:
        found["Axolotl"] = lambda stage, folder: axolotl(stage, folder, engine)
        found["Axolotl, sample_packing"] = lambda stage, folder: axolotl(stage, folder, engine, packing=True)
    found["ours"] = ours
    found["ours, packing"] = lambda stage, folder: ours(stage, folder, packing=True)
    return found


def summary(measured: dict[str, list[Figures]]) -> list[Figures]:
    """A line for each contender: medians over its repetitions; ratios are of runs of the same turn."""
    first = next(iter(measured))
    lines = []
    for name, runs in measured.items():
        speed = {kind: [r["timed_tokens"] / r[kind] for r in runs] for kind in ("seconds", "cpu_seconds")}
        against = [r["timed_tokens"] / r["cpu_seconds"] for r in measured[first]]
        lines.append(
            {
                "name": name,
                "tokens_per_second": statistics.median(speed["seconds"]),
                "tokens_per_cpu_second": statistics.median(speed["cpu_seconds"]),
                "times": statistics.median(a / b for a, b in zip(speed["cpu_seconds"], against, strict=True)),
                "held_out_loss": statistics.median(r["held_out_loss"] for r in runs),
                "tokens": statistics.median(r["tokens"] for r in runs),
                "trained_tokens": statistics.median(r["trained_tokens"] for r in runs),
                "padding": statistics.median(r["padding"] / (r["padding"] + r["tokens"]) for r in runs),
                "steps": statistics.median(r["steps"] for r in runs),
                "peak_memory_bytes": statistics.median(r["peak_memory_bytes"] for r in runs),
            }
        )
    return lines


def table(lines: list[Figures]) -> str:
    """The lines as Markdown, with what is asked of ours below."""
    rows = [
        "| | tokens/s | tokens per CPU-s | times TRL defaults | held-out loss | seen | trained on | padding | peak |",
        "|---" * 9 + "|",
    ]
    for line in lines:
        rows.append(
            f"| {line['name']} | {line['tokens_per_second']:,.0f} | {line['tokens_per_cpu_second']:,.0f} "
            f"| {line['times']:.2f} | {line['held_out_loss']:.3f} | {line['tokens']:,.0f} "
            f"| {line['trained_tokens']:,.0f} | {line['padding']:.1%} | {line['peak_memory_bytes'] / 2**30:.2f} GiB |"
        )
    found = {line["name"]: line for line in lines}
    rows.append("")
    for mine in ("ours", "ours, packing"):
        for other, least in LIMITS.items():
            if mine in found and other in found:
                ratio = found[mine]["tokens_per_cpu_second"] / found[other]["tokens_per_cpu_second"]
                rows.append(f"{mine}: {ratio:.2f} times {other} (at least {least})")
        others = [line["held_out_loss"] for line in lines if not line["name"].startswith("ours")]
        if mine in found and others:
            above = found[mine]["held_out_loss"] - min(others)
            rows.append(f"{mine}: held-out loss {above:+.3f} to the lowest of the others (at most {TOLERANCE:+})")
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32_000, help="seen by each contender")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", type=Path, default=Path(".engines"))
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the contenders")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        engine = Engines(arguments.engines).python("axolotl")
    except EngineError as error:
        engine = None
        print(f"without axolotl: {error}", file=sys.stderr)
    chosen = {n: c for n, c in contenders(engine).items() if not arguments.only or n in arguments.only}
    measured: dict[str, list[Figures]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = make_base(folder / "base", SIZE, device="cpu", precision="fp32")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(base)
        stage = Stage(folder, base, in_range(arguments.rows, tokenizer, 0), arguments.tokens)
        write_rows(folder, stage.rows)
        unseen = in_range(100, tokenizer, 500)
        for turn in range(arguments.repeats):
            for name, run in chosen.items():
                inside = folder / f"{turn}-{''.join(c if c.isalnum() else '-' for c in name)}"
                figures, adapter = run(stage, inside)
                figures["held_out_loss"] = held_out_loss(base, adapter, unseen)
                measured[name].append(figures)
                speed = figures["timed_tokens"] / figures["cpu_seconds"]
                loss, load = figures["held_out_loss"], os.getloadavg()[0]
                line = f"{turn + 1}/{arguments.repeats} {name}: {speed:,.0f} tokens per CPU-s, loss {loss:.3f}"
                print(f"{line}, load {load:.0f}", file=sys.stderr, flush=True)
    lines = summary(measured)
    print(json.dumps(lines, indent=1) if arguments.json else table(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
