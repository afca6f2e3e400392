"""Makes the model that is trained: from nothing, or from a base in full or four-bit precision, with its adapter."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from images.train import distributed
from images.train.chat import stop_at
from images.train.check_time import counted
from images.train.saved_weights import check_adapter_saved
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.families import FAMILY_VERSION_KEY
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources import content, files

SHARD_BYTES = {"hf": 5 * 10**9, "safetensors": 1 << 62}
"""The largest file of weights, by `output.save_format`: one file of whatever size, or the Hugging Face layout."""

_MODEL_TYPE = {"llama": "llama", "mistral": "mistral", "gemma": "gemma3_text", "qwen": "qwen3"}
"""The architecture that a PRETRAIN job of a family makes."""

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def quantisation(dtype: torch.dtype) -> Any:
    """How the base of a QLoRA is stored: nf4 with double quantisation, computed with in `dtype`."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def new_model(spec: TrainJobSpec, vocabulary: int, tokenizer: Any, job: TrainJob) -> Any:
    """A model with random weights, of the shape that the spec gives, for a tokenizer of `vocabulary` entries."""
    shape = spec.architecture
    config = AutoConfig.for_model(
        _MODEL_TYPE[spec.model_family],
        vocab_size=shape.vocab_size or vocabulary,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.hidden_size // shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_position_embeddings or spec.hyperparams.max_seq_len,
        rope_theta=shape.rope_theta,
        tie_word_embeddings=shape.tie_embeddings,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    if job.family_version:
        setattr(config, FAMILY_VERSION_KEY, job.family_version)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def base_model(spec: TrainJobSpec, path: str, precision: str, auto: Any = AutoModelForCausalLM, **more: Any) -> Any:
    """The model in folder `path` as it is trained by the method of `spec`; `auto` is the kind of model that is made."""
    dtype = DTYPES[precision]
    # Full fine-tuning in half precision keeps fp32 weights under autocast: small updates would vanish in bf16.
    arguments: dict[str, Any] = {"dtype": torch.float32 if spec.method == "full" else dtype, **more}
    if spec.method == "qlora":
        arguments["quantization_config"] = quantisation(dtype)
        if auto is not AutoModelForCausalLM:
            # A head that has just been made is trained in full, which four bits would not allow.
            arguments["quantization_config"].llm_int8_skip_modules = ["score", "pooler"]
    model = auto.from_pretrained(path, trust_remote_code=False, use_safetensors=True, **arguments)
    keep_four_bits(model)
    return model


def lora(spec: TrainJobSpec, model: Any, task: str = "CAUSAL_LM", more_saved: list[str] | None = None) -> Any:
    """The adapter of `spec` for a model of PEFT's `task`; `more_saved` names modules that are trained in full."""
    from peft import LoraConfig

    hyper = spec.hyperparams
    tied = bool(getattr(model.config, "tie_word_embeddings", False))
    saved = list(more_saved or [])
    if hyper.train_embeddings and task == "CAUSAL_LM":
        saved += ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    return LoraConfig(
        task_type=task,
        r=hyper.lora_rank,
        lora_alpha=hyper.lora_alpha,
        lora_dropout=hyper.lora_dropout or 0.0,
        target_modules=hyper.target_modules,
        # An encoder's pooler is no part of how it turns a text into a vector here.
        exclude_modules=r".*\bpooler\b.*" if any("pooler" in name for name, _ in model.named_modules()) else None,
        modules_to_save=saved or None,
        ensure_weight_tying="embed_tokens" in saved and tied,
    )


def trained_base(
    method: str, path: str | Path, dtype: torch.dtype, auto: Any = AutoModelForCausalLM, **more: Any
) -> Any:
    """The base as an adapter saw it: for QLoRA that is the quantised one, written out in full precision again."""
    arguments = {"dtype": dtype, "trust_remote_code": False, "use_safetensors": True, **more}
    if method != "qlora":
        return auto.from_pretrained(path, **arguments).eval()
    config = quantisation(dtype)
    if auto is not AutoModelForCausalLM:
        # A head that has just been made is trained in full, which four bits would not allow.
        config.llm_int8_skip_modules = ["score", "pooler"]
    return auto.from_pretrained(path, quantization_config=config, **arguments).eval().dequantize().to(dtype)


def merged(model: Any, method: str, path: str | Path, dtype: torch.dtype, auto: Any, **more: Any) -> Any:
    """One model of a trained one, base and adapter together; full weights are given back as they are."""
    if method == "full":
        return model
    if method == "lora":
        return model.merge_and_unload(safe_merge=True)
    import tempfile

    from peft import PeftModel

    # Merged into four bits, the adapter would be rounded away.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        base = trained_base(method, path, dtype, auto, **more)
        return PeftModel.from_pretrained(base, folder).merge_and_unload(safe_merge=True)


def keep_four_bits(model: torch.nn.Module) -> None:
    """Leave quantised weights as they are stored.

    On some CPUs bitsandbytes packs them anew, with coarser scales, at the first evaluation; the training after it would
    be of another base.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def keep_trained_in_fp32(model: torch.nn.Module) -> None:
    """TRL casts what is trained beside a four-bit base to bf16; a trained copy of the embeddings does not survive."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapter_hash(folder: Path) -> str:
    """16 hex digits over the weights of an adapter."""
    return folders.file_hash(folder / "adapter_model.safetensors")[:16]


def _without_place(config: Path) -> None:
    """Take the folder of the base out of an adapter's configuration: the home may be moved, and whoever merges or
    serves the adapter is told the base."""
    facts = json.loads(config.read_text(encoding="utf-8"))
    if Path(facts.get("base_model_name_or_path") or "").is_absolute():
        files.write_text(config, json.dumps(facts | {"base_model_name_or_path": None}, indent=2))


def save(model: Any, tokenizer: Any, output: Path, stop_token: str | None, *, full: bool) -> str:
    """Write what was trained, an adapter or the `full` model, with its tokenizer; gives the hash of the weights.

    Of several processes that share a model every one must come here; the first writes, the others get no hash.
    """
    state = distributed.full_state(model)
    if distributed.rank() != 0:
        return ""
    if full:
        stop_at(model, tokenizer, stop_token)
        model.config.use_cache = True
    if state is not None and full:
        # Written of a model that is not sharded: the library would gather again, and wait for the others for ever.
        whole = type(model)(model.config)
        whole.load_state_dict(state)
        whole.generation_config, model, state = model.generation_config, whole, None
    model.save_pretrained(output, **({} if state is None else {"state_dict": state}))
    tokenizer.save_pretrained(output)
    with contextlib.suppress(FileNotFoundError):
        # The model card of the trainer names paths of this machine and is no card of ours.
        os.unlink(output / "README.md")
    if not full:
        _without_place(output / "adapter_config.json")
        with counted():
            check_adapter_saved(model, output, state)
    return content.content_hash(output) if full else adapter_hash(output)
