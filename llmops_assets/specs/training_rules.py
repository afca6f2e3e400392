"""What the parts of a training spec say of each other: what may stand together, and what does nothing."""

from collections.abc import Iterator

from llmops_assets.specs.base import (
    Rule,
    View,
)
from llmops_assets.specs.base_ref import BASE_REF_HINT, parse_base_ref

LORA_FIELDS = ("lora_rank", "lora_alpha", "lora_dropout", "target_modules")


def job_rules(job: str, base: object, view: View) -> Iterator[Rule]:
    """What a job type wants and what it does not heed."""
    method = view.get("method", str)
    if job == "PRETRAIN":
        if base is not None:
            yield "base_model_ref", "a PRETRAIN job starts from nothing", "Remove it, or choose another job_type"
        if method in ("lora", "qlora"):
            yield "method", f"PRETRAIN trains every weight, {method} does not", "Write method: full"
    elif base is None:
        yield "base_model_ref", f"required for {job}", BASE_REF_HINT
    blocks = {
        "rag": "RAG_TUNING",
        "rlhf": "RLHF",
        "architecture": "PRETRAIN",
        "tokenizer": "PRETRAIN",
    }
    for block, owner in blocks.items():
        if job == owner and view.get(block) is None:
            example = {
                "rag": "rag: {retriever_type: dense, retriever_model_ref: …}",
                "rlhf": "rlhf: {reward_model_ref: …, kl_coeff: 0.1, ppo_steps: 1000}",
            }.get(block, f"{block}: {{}}")
            yield block, f"required for {job}", f"Add {example}"
        elif job != owner and view.get(block) is not None:
            yield block, f"only for {owner}, but job_type is {job}", "Remove the block"
    if job not in ("EMBEDDING", "RAG_TUNING") and view.get("embedding") is not None:
        yield "embedding", f"only for EMBEDDING and RAG_TUNING, but job_type is {job}", "Remove the block"
    if job != "SFT" and view.get("reasoning") is not None:
        yield "reasoning", f"only for SFT, but job_type is {job}", "Remove it"
    if job != "SFT" and view.get("watermark") is not None:
        yield "watermark", f"only for SFT, but job_type is {job}", "Remove the block"
    if job == "EMBEDDING" and view.get("trainer") == "axolotl":
        yield "trainer", "axolotl trains no embedding models", "Write trainer: trl"
    alpha = view.number("hyperparams.lora_alpha")
    if view.get("trainer") == "axolotl" and alpha is not None and alpha != int(alpha):
        yield "hyperparams.lora_alpha", f"axolotl takes whole numbers, not {alpha}", "Round it, or write trainer: trl"


def ref_rules(path: str, ref: str | None) -> Iterator[Rule]:
    """A field that names a model must name one."""
    if ref is None:
        return
    try:
        parse_base_ref(ref)
    except ValueError as error:
        yield path, str(error), BASE_REF_HINT


def hyperparam_rules(view: View) -> Iterator[Rule]:
    """Settings that contradict one another, or do nothing."""
    method = view.get("method", str)
    if method == "full":
        for name in LORA_FIELDS:
            if view.get(f"hyperparams.{name}") is not None:
                yield f"hyperparams.{name}", "has no effect with method full", "Remove it, or write method: lora"
        if view.get("hyperparams.train_embeddings", bool):
            yield (
                "hyperparams.train_embeddings",
                "has no effect with method full, which trains the embeddings anyway",
                "Remove it",
            )
    if view.get("hyperparams.target_modules", list) == []:
        yield "hyperparams.target_modules", "names no module, so nothing would be trained", "Write all-linear"
    if view.get("hyperparams.warmup_steps") is not None and view.get("hyperparams.warmup_ratio") is not None:
        yield "hyperparams.warmup_ratio", "contradicts warmup_steps", "Keep one of the two"
    warm = view.number("hyperparams.warmup_steps") or view.number("hyperparams.warmup_ratio")
    if warm and view.get("hyperparams.scheduler") == "constant":
        yield (
            "hyperparams.scheduler",
            "constant has no warm-up, but one is asked for",
            "Write constant_with_warmup, or remove the warm-up",
        )
    if view.get("hyperparams.precision") == "fp16" and view.get("resources.gpus", int) == 0:
        yield "hyperparams.precision", "fp16 needs a GPU, but resources.gpus is 0", "Write fp32 or bf16"
    together = (view.get("resources.gpus", int) or 0) * (view.get("resources.nodes", int) or 1)
    if view.get("resources.sharding") is not None and together < 2:
        yield "resources.sharding", "has no effect on one device", "Remove it, or ask for more GPUs"
    if view.get("resources.gpus", int) == 0 and view.get("resources.gpu_type") is not None:
        yield "resources.gpu_type", "has no effect where gpus is 0", "Remove it, or ask for GPUs"
    save, evaluate = view.get("hyperparams.save_steps", int), view.get("hyperparams.eval_steps", int)
    if view.get("hyperparams.early_stopping") is not None and save and evaluate and save % evaluate:
        yield (
            "hyperparams.save_steps",
            f"{save} is no multiple of eval_steps {evaluate}, so the best model may never have been saved",
            "Early stopping keeps the best checkpoint: make save_steps a multiple of eval_steps",
        )


def architecture_rules(view: View) -> Iterator[Rule]:
    """Sizes of a model made from nothing that cannot stand together."""
    hidden, heads = view.get("architecture.hidden_size", int), view.get("architecture.num_heads", int)
    kv_heads, vocabulary = view.get("architecture.num_kv_heads", int), view.get("architecture.vocab_size", int)
    if hidden and heads and hidden % (2 * heads):
        yield (
            "architecture.hidden_size",
            f"{hidden} cannot be divided into {heads} heads of an even size",
            "Make it a multiple of twice num_heads",
        )
    if heads and kv_heads and heads % kv_heads:
        yield (
            "architecture.num_kv_heads",
            f"{heads} heads cannot share {kv_heads} key-value heads equally",
            "Choose a divisor of num_heads",
        )
    if view.get("job_type") == "PRETRAIN" and view.get("hyperparams.overlong") is not None:
        yield "hyperparams.overlong", "has no effect for PRETRAIN, which cuts its corpus into blocks", "Remove it"
    wanted = view.get("tokenizer.vocab_size", int)
    if vocabulary and wanted and vocabulary < wanted:
        yield (
            "architecture.vocab_size",
            f"{vocabulary} has no room for a tokenizer of {wanted} entries",
            "Leave it out, or make it at least tokenizer.vocab_size",
        )
    longest, length = view.get("architecture.max_position_embeddings", int), view.get("hyperparams.max_seq_len", int)
    if longest and length and longest < length:
        yield (
            "hyperparams.max_seq_len",
            f"{length} is more than architecture.max_position_embeddings {longest}",
            "Make the model longer, or the rows shorter",
        )
