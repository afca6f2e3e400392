"""LoRA and QLoRA of models of random weights on a GPU: speed and peak memory, beside the estimate and beside plain TRL.

Run it with ``python -m benchmarks.gpu`` (``--sizes 1b 8b --methods lora qlora``). Without a GPU it says so and ends
with exit code 5; ``--sizes tiny --device cpu`` runs the same code on the CPU. Weights are random, which changes neither
speed nor memory.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bench import SIZES, conversations, make_base, run_ours, run_plain, sft_spec, write_rows
from llmops_assets.training.memory import Shape
from llmops_assets.training.plan import achieved_flops, plan_memory, training_seconds
from resources.gpus import Device, cpu, discover
from resources.trainer import TrainerError

NO_GPU = 5


def device_for(kind: str) -> Device | None:
    """The device to measure on, None when there is none of the kind."""
    return cpu() if kind == "cpu" else next((found for found in discover() if found.kind == kind), None)


def measure(size: str, method: str, device: Device, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One line of the table: estimate, ours and plain TRL, for one model and method."""
    precision = "fp32" if device.kind == "cpu" else "bf16"
    base = folder / "base"
    if not base.exists():
        make_base(base, SIZES[size], device=device.kind, precision=precision)
    inside = folder / method
    inside.mkdir()
    data = write_rows(inside, conversations(arguments.rows, arguments.words))
    hyper = {
        "batch_size": arguments.batch,
        "max_steps": arguments.steps,
        "max_seq_len": arguments.length,
        "lora_rank": 16,
    }
    spec = sft_spec(method, device.kind, precision, **hyper)
    planned, job, trainer = run_ours(inside, spec, base, device.kind, data)
    shape = Shape.from_config(json.loads((base / "config.json").read_text(encoding="utf-8")))
    longest = min(planned["longest_row"], spec.hyperparams.max_seq_len)
    memory = plan_memory(
        shape, spec, precision=precision, device=device.kind, available=device.memory_bytes, length=longest
    )
    job = job.model_copy(update={"gradient_checkpointing": memory.checkpointing})
    line: dict[str, Any] = {
        "model": size,
        "method": method,
        "parameters": shape.parameters,
        "estimated_bytes": memory.estimate.total,
        "checkpointing": memory.checkpointing,
    }
    try:
        facts = trainer.run(None, job, work_dir=inside / "work")
    except TrainerError as error:
        line["failed"] = str(error).splitlines()[0][:300]
    else:
        tokens = facts["tokens_per_second"] * facts["seconds"]
        line |= {
            "tokens_per_second": facts["tokens_per_second"],
            "peak_bytes": facts["peak_memory_bytes"],
            "seconds": facts["seconds"],
            "estimated_seconds": training_seconds(
                shape,
                tokens=int(tokens),
                method=method,
                checkpointing=memory.checkpointing,
                flops=achieved_flops(device),
            ),
            "estimate_of_peak": memory.estimate.total / facts["peak_memory_bytes"],
        }
    plain = run_plain(inside / "plain", spec, base, device.kind)
    line |= {f"plain_{name}": value for name, value in plain.items()}
    return line


def table(lines: list[dict[str, Any]]) -> str:
    """The lines side by side, as Markdown."""
    head = "| model | method | tokens/s | plain TRL | times | peak GiB | estimate | plain TRL | seconds | estimate |"
    rows = [head, "|---" * 10 + "|"]
    for line in lines:
        ours, plain = line.get("tokens_per_second"), line.get("plain_tokens_per_second")
        cells = [
            f"{line['model']} ({line['parameters'] / 1e9:.2f}B)",
            line["method"],
            f"{ours:,.0f}" if ours else line.get("failed", "-"),
            f"{plain:,.0f}" if plain else line.get("plain_failed", "-"),
            f"{ours / plain:.2f}" if ours and plain else "-",
            *(_gib(line.get(name)) for name in ("peak_bytes", "estimated_bytes", "plain_peak_memory_bytes")),
            f"{line['seconds']:.1f}" if "seconds" in line else "-",
            f"{line['estimated_seconds']:.1f}" if "estimated_seconds" in line else "-",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _gib(count: int | None) -> str:
    return f"{count / 2**30:.2f}" if count else "-"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SIZES), default=["1b", "8b"])
    parser.add_argument("--methods", nargs="+", choices=["lora", "qlora"], default=["lora", "qlora"])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024, help="max_seq_len")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--words", type=int, default=200, help="longest answer, in words")
    parser.add_argument("--folder", type=Path, help="where models are written (an 8B one takes 16 GB)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(argv)
    device = device_for(arguments.device)
    if device is None:
        print("no GPU was found here (nvidia-smi lists none): nothing was measured", file=sys.stderr)
        return NO_GPU
    lines = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        for size in arguments.sizes:
            folder = Path(temporary) / size
            folder.mkdir()
            for method in arguments.methods:
                lines.append(measure(size, method, device, folder, arguments))
                if not arguments.json:
                    print(f"{size} {method}: done", file=sys.stderr, flush=True)
    print(json.dumps(lines, indent=1) if arguments.json else f"{device.name}\n\n{table(lines)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
