"""Task `merge`: makes the servable model of trained weights, and measures how far it is from them and from the base.

Job: spec, base ({path} or null), adapter (folder), plan_dir, output, precision. Leaves the model in `output`, sealed;
the facts in the seal are the result. Full weights are servable as they are: the files are linked, not copied.
"""

import json
import math
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from images.train import base_reading, faults, weights
from images.train.chat import stop_at, template_hash
from images.train.probe import Logits, logits_of, mean_loss, probes
from images.train.reporter import Reporter
from images.train.weights import SHARD_BYTES
from llmops_assets.records.jobs import MergeJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders, inspection, weight_files
from resources import content


def run(job: MergeJob, reporter: Reporter) -> dict[str, Any]:
    """The task's facts; one process at a time works in the folder of a training."""
    spec = job.spec
    adapter, output, plan_dir = Path(job.adapter), Path(job.output), Path(job.plan_dir)
    transformers_logging.disable_progress_bar()
    with folders.only_one(output.parent, reporter.log.info):
        # What is merged is what was planned and trained, or nothing is: each may have been changed since.
        faults.check_inputs(job)
        faults.check_trained(job)
        return _run(spec, job, adapter, output, plan_dir, reporter)


def _run(
    spec: TrainJobSpec, job: MergeJob, adapter: Path, output: Path, plan_dir: Path, reporter: Reporter
) -> dict[str, Any]:
    if spec.job_type == "EMBEDDING":
        return _run_encoder(spec, job, adapter, output, plan_dir, reporter)
    asked = probes(plan_dir)
    trained: Logits | None = None
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    if spec.method == "full" and _laid_out(adapter, SHARD_BYTES[spec.output.save_format]):
        _link(adapter, output)
    elif spec.method == "full":
        _save_again(adapter, output, SHARD_BYTES[spec.output.save_format])
    else:
        trained = _merge(spec, job, adapter, output, plan_dir, asked)
    reporter.log.info("loading the merged model again")
    model = _load(output, torch.float32 if job.precision == "fp32" else torch.bfloat16)
    served = logits_of(model, asked)
    tokenizer = AutoTokenizer.from_pretrained(output, trust_remote_code=False)
    difference, agreement = compare(trained, served) if trained is not None else (None, None)
    base, reads = None, None
    if job.base is not None:
        before = _load(Path(job.base.path), model.dtype)
        base = logits_of(before, asked)
        own = AutoTokenizer.from_pretrained(job.base.path, trust_remote_code=False)
        reads = base_reading.reading(before, own, plan_dir)
    facts = {
        "path": str(output),
        "content_hash": content.content_hash(output),
        "parameters": sum(p.numel() for p in model.parameters()),
        "chat_template_hash": template_hash(tokenizer.chat_template),
        "max_logit_difference": difference,
        "top1_agreement": agreement,
        "mean_kl": divergence(trained, served) if trained is not None else None,
        "differs_from_base": base is None or differs(base, served),
        "base_kl": _kl_from(base, served),
        "base_reading": reads,
        "adapter_kl": _kl_from(base, trained) if trained is not None else None,
        "faults": inspection.faults(output),
        **_saved(adapter, trained or served, asked),
        **_reference(adapter, base, asked),
        "reloads": all(bool(torch.isfinite(logits).all()) for logits in served),
    }
    if spec.job_type == "RAG_TUNING":
        facts = _with_retriever(spec, job, facts, output, plan_dir, reporter)
    folders.seal(output, facts)
    return facts


def _run_encoder(
    spec: TrainJobSpec, job: MergeJob, trained: Path, output: Path, plan_dir: Path, reporter: Reporter
) -> dict[str, Any]:
    from images.train.merge_encoder import merge_encoder

    shutil.rmtree(output, ignore_errors=True)
    found = merge_encoder(spec, job, job.base.path, trained, plan_dir, output, reporter)
    facts = {"path": str(output), "content_hash": content.content_hash(output), "chat_template_hash": None, **found}
    folders.seal(output, facts)
    return facts


def _with_retriever(
    spec: TrainJobSpec, job: MergeJob, facts: dict[str, Any], output: Path, plan_dir: Path, reporter: Reporter
) -> dict[str, Any]:
    """Put the retriever and the index of its passages beside the generator, and say in rag.json how they are used."""
    from images.train.merge_encoder import build_index, merge_encoder

    base, trained, searched = job.retriever.path, output.parent / "retriever", plan_dir / "retriever"
    found = merge_encoder(spec, job, base, trained, searched, output / "retriever", reporter)
    index = build_index(spec, output / "retriever", plan_dir / "passages.parquet", output / "index")
    reporter.log.info("indexed %d passages", index["passages"])
    reader = {
        "generator": ".",
        "retriever": "retriever",
        "index": "index",
        "template": spec.rag.template,
        "passages": spec.rag.passages,
        "query_prompt": spec.embedding.query_prompt,
        "retriever_hash": index["retriever"],
        "index_hash": folders.file_hash(output / "index" / "vectors.safetensors")[:16],
    }
    (output / "rag.json").write_text(json.dumps(reader, ensure_ascii=False, indent=1), encoding="utf-8")
    retriever = {
        f"retriever_{name}": found[name] for name in ("max_logit_difference", "top1_agreement", "differs_from_base")
    }
    figures = {**found["figures"], **retriever, "indexed": index["passages"], "found_again": index["found_again"]}
    reloads = facts["reloads"] and found["reloads"]
    return {**facts, "content_hash": content.content_hash(output), "reloads": reloads, "figures": figures}


def _link(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.name == folders.SEAL:
            continue
        try:
            os.link(path, target / path.name)
        except OSError:
            # A file system without hard links.
            shutil.copy2(path, target / path.name)


def _laid_out(folder: Path, most: int) -> bool:
    """Whether the weights in `folder` are in files of at most `most` bytes, and in one where that many fit into one."""
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return max(sizes) <= most and (len(sizes) == 1 or sum(sizes) > most)


def _save_again(source: Path, target: Path, most: int) -> None:
    """Write full weights in files of at most `most` bytes, with everything beside them as it is."""
    _link(source, target)
    for path in [*target.glob("*.safetensors"), *target.glob("*.safetensors.index.json")]:
        path.unlink()
    # As they are stored: no precision is lost or made up.
    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto", trust_remote_code=False, use_safetensors=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        model.save_pretrained(folder, max_shard_size=most)
        for path in Path(folder).glob("*.safetensors*"):
            shutil.move(path, target / path.name)


def _merge(
    spec: TrainJobSpec, job: MergeJob, adapter: Path, output: Path, plan_dir: Path, asked: list[torch.Tensor]
) -> Logits:
    """Write base + adapter as one model to `output`; the logits of the two before they became one."""
    from peft import PeftModel

    precision = torch.float32 if job.precision == "fp32" else torch.bfloat16
    model = PeftModel.from_pretrained(weights.trained_base(spec.method, job.base.path, precision), adapter)
    _check_keys(model, adapter)
    trained = logits_of(model, asked)
    merged = model.merge_and_unload(safe_merge=True)
    tokenizer = AutoTokenizer.from_pretrained(plan_dir / "tokenizer", trust_remote_code=False)
    stop_at(merged, tokenizer, job.stop_token)
    merged.config.use_cache = True
    merged.save_pretrained(output, max_shard_size=SHARD_BYTES[spec.output.save_format])
    tokenizer.save_pretrained(output)
    return trained


def _check_keys(model: Any, adapter: Path) -> None:
    """Raise InputsChanged where an adapter has not exactly the weights that its configuration makes of this base.

    PEFT only warns: what is missing stays as it was initialised, which changes nothing, and what is left over is lost.
    """
    from peft import get_peft_model_state_dict

    expected = set(get_peft_model_state_dict(model))
    found = set(weight_files.header(adapter / "adapter_model.safetensors"))
    if expected != found:
        raise faults.InputsChanged(
            f"the adapter in {adapter} does not fit its base: it lacks {len(expected - found)} tensors "
            f"({', '.join(sorted(expected - found)[:2])}) and has {len(found - expected)} for layers that do not exist "
            f"({', '.join(sorted(found - expected)[:2])}). Delete it, and materialise adapter again"
        )


def _load(folder: Path, dtype: torch.dtype, **arguments: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, **arguments
    ).eval()


def divergence(one: Logits, other: Logits) -> float:
    """Mean Kullback-Leibler divergence of the next-token distributions of `other` from those of `one`, nats a token."""
    total = sum(
        float(torch.nn.functional.kl_div(b.log_softmax(-1), a.log_softmax(-1), reduction="sum", log_target=True))
        for a, b in zip(one, other, strict=True)
    )
    mean = total / sum(a.shape[0] for a in one)
    return math.inf if math.isnan(mean) else max(0.0, mean)


def compare(one: Logits, other: Logits) -> tuple[float, float]:
    """Largest absolute difference of the logits, and the share of positions with the same likeliest token.

    NaN anywhere makes the difference infinite.
    """
    largest = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(one, other, strict=True))
    return (math.inf if math.isnan(largest) else largest), same / sum(a.shape[0] for a in one)


def _saved(adapter: Path, reloaded: Logits, asked: list[torch.Tensor]) -> dict[str, float]:
    """How far the loss of the saved weights is from what they had in memory; nothing where that was not measured."""
    before = ((folders.noted(adapter) or {}).get("figures") or {}).get("probe_loss")
    return {} if before is None else {"saved_difference": abs(mean_loss(reloaded, asked) - before)}


def _reference(adapter: Path, base: Logits | None, asked: list[torch.Tensor]) -> dict[str, float]:
    """How far what a policy was held to was from its base; nothing where there was none, or it was not measured."""
    held = ((folders.noted(adapter) or {}).get("figures") or {}).get("reference_loss")
    return {} if held is None or base is None else {"reference_difference": abs(mean_loss(base, asked) - held)}


def _kl_from(base: Logits | None, other: Logits) -> float | None:
    """Divergence from a base of the same vocabulary; None where there is none to compare with."""
    if base is None or any(a.shape != b.shape for a, b in zip(base, other, strict=True)):
        return None
    found = divergence(base, other)
    return found if math.isfinite(found) else None


def differs(base: Logits, other: Logits) -> bool:
    """Whether two models give different logits at all; models of different vocabularies do."""
    if any(a.shape != b.shape for a, b in zip(base, other, strict=True)):
        return True
    return not all(torch.equal(a, b) for a, b in zip(base, other, strict=True))
