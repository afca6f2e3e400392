"""`python -m images.compress JOB.json…`: writes a model with fewer bits, and measures what that changed.

Runs in the environment of the engine `compression` (llm-compressor, with pins of its own), so it imports nothing of
ours that needs a library. Job: model_dir, output (a folder that is not there), scheme, calibration and probes (JSONL of
{ids}), result.
The result: seconds, group_size, top1 (share of positions with the same likeliest token) and kl (mean nats per token of
the compressed model's distribution against the original's), both on the saved model as it is loaded again.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from images.atomic_write import write_atomically

SCHEMES = ("w4a16", "w8a8", "fp8", "awq", "int8")
"""fp8 needs no calibration; awq searches its scales on an accelerator; int8 is of the weights alone."""
_GROUPS = (128, 64, 32, 16)


def main(job_files: list[str]) -> None:
    """Run the jobs in those files one after the other, and write the result of each where it says."""
    for job_file in job_files:
        job = json.loads(Path(job_file).read_text(encoding="utf-8"))
        result = run(job)
        write_atomically(job["result"], json.dumps(result, indent=1).encode())


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Write the model of a job with fewer bits, in its scheme; what it took, by name.

    Raises ValueError for an unknown scheme.
    """
    import torch
    from llmcompressor import oneshot
    from transformers import AutoTokenizer

    begun = time.monotonic()
    scheme, source, output = job["scheme"], Path(job["model_dir"]), Path(job["output"])
    if scheme not in SCHEMES:
        raise ValueError(f"scheme {scheme!r} is none of {', '.join(SCHEMES)}")
    if scheme == "awq" and not torch.accelerator.is_available():
        raise ValueError("awq needs a GPU: llm-compressor searches its scales on an accelerator. Take w4a16 on a CPU")
    model = _load(source)
    group = group_size(model)
    calibration = _ids(job["calibration"])
    data = [
        {"input_ids": torch.tensor(ids), "attention_mask": torch.ones(len(ids), dtype=torch.long)}
        for ids in calibration
    ]
    more = {} if scheme == "fp8" else {"dataset": torch.utils.data.DataLoader(data, batch_size=1)}
    oneshot(
        model=model,
        recipe=_recipe(scheme, group),
        num_calibration_samples=len(data),
        max_seq_length=max(len(ids) for ids in calibration),
        **more,
    )
    shutil.rmtree(output, ignore_errors=True)
    model.save_pretrained(output, save_compressed=True)
    AutoTokenizer.from_pretrained(source, trust_remote_code=False).save_pretrained(output)
    # What ends an answer, and the template, are the original's, byte for byte.
    for name in ("generation_config.json", "chat_template.jinja"):
        if (source / name).is_file():
            shutil.copy2(source / name, output / name)
    _keep_family(source, output)
    top1, kl = compare(_load(source), _load(output), _ids(job["probes"]))
    return {"seconds": time.monotonic() - begun, "group_size": group, "top1": top1, "kl": kl}


def _recipe(scheme: str, group: int | None) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.awq import AWQModifier
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    common: dict[str, Any] = {"ignore": ["lm_head"]}
    if scheme in ("fp8", "w8a8"):
        common |= {"targets": "Linear", "scheme": "FP8_DYNAMIC" if scheme == "fp8" else "W8A8"}
    else:
        # The presets have groups of 128 inputs, which not every width can be cut into.
        grouped = {"strategy": "group", "group_size": group} if group and scheme != "int8" else {"strategy": "channel"}
        weights = QuantizationArgs(num_bits=8 if scheme == "int8" else 4, type="int", symmetric=True, **grouped)
        common["config_groups"] = {"all": QuantizationScheme(targets=["Linear"], weights=weights)}
    modifier = {"fp8": QuantizationModifier, "awq": AWQModifier}.get(scheme, GPTQModifier)
    return modifier(**common)


def group_size(model: Any) -> int | None:
    """The largest usual group that divides the inputs of every linear layer but the head; None where none does."""
    import torch

    widths = {
        layer.in_features
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and not name.endswith("lm_head")
    }
    return next((group for group in _GROUPS if all(width % group == 0 for width in widths)), None)


def compare(original: Any, compressed: Any, probes: list[list[int]]) -> tuple[float, float]:
    """Share of positions with the same likeliest token, and mean KL(original || compressed) in nats per token."""
    import torch

    same, nats, positions = 0, 0.0, 0
    for ids in probes:
        rows = torch.tensor([ids], device=original.device)
        with torch.inference_mode():
            one = original(input_ids=rows).logits[0].float().log_softmax(-1)
            other = compressed(input_ids=rows).logits[0].float().log_softmax(-1)
        same += int((one.argmax(-1) == other.argmax(-1)).sum())
        nats += float((one.exp() * (one - other)).sum())
        positions += len(ids)
    return same / positions, nats / positions


def _load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16 if on_gpu else torch.float32, trust_remote_code=False, use_safetensors=True
    )
    return model.to("cuda" if on_gpu else "cpu").eval()


def _ids(path: str) -> list[list[int]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line)["ids"] for line in file]


def _keep_family(source: Path, output: Path) -> None:
    """Carry over what a model says of its family in config.json, which transformers does not know."""
    before = json.loads((source / "config.json").read_text(encoding="utf-8"))
    path = output / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    own = {key: value for key, value in before.items() if key.startswith("llmops_")}
    path.write_text(json.dumps(config | own, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
