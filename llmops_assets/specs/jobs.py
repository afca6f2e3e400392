"""The blocks of a job spec that belong to some job types only: retrieval, preferences, encoders; and their rules."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from llmops_assets.specs.base import Float, Int, Part, Rule, Text, View

Algorithm = Literal["rloo", "grpo", "dpo", "kto"]
OFFLINE = ("dpo", "kto")
"""Algorithms that learn from the rows themselves, without sampling answers or a reward model."""
ALIKE = 0.8
"""Score (0 to 1) from which two texts are taken for texts that belong together."""

Pooling = Literal["mean", "cls", "lasttoken"]

SAMPLING_DEFAULTS = {"num_generations": 4, "max_new_tokens": 128, "temperature": 1.0}
"""Fields of `rlhf` that say how answers are sampled; without effect where none are (dpo, kto)."""

CONTEXT_TEMPLATE = "다음 문서를 읽고 질문에 답하세요.\n\n{context}\n\n질문: {question}"


class RagBlock(Part):
    """What RAG_TUNING needs: the retriever, and how a reader is asked from its passages."""

    retriever_type: Literal["dense"]
    retriever_model_ref: Text = Field(description="The encoder that is trained to retrieve; as base_model_ref.")
    passages: Int = Field(default=3, ge=1, description="Passages that the reader is given with a question.")
    template: Text = Field(
        default=CONTEXT_TEMPLATE, description="What the reader is asked: {context} and {question} are put in."
    )
    retriever_lr: Float | None = Field(default=None, gt=0, le=1, description="Left out: hyperparams.lr.")


class RlhfBlock(Part):
    """What RLHF needs: the reward, and how far the policy may go from where it began."""

    reward_model_ref: Text | None = Field(
        description="A reward model; null trains one from the same pairs first. As base_model_ref; of an earlier RLHF "
        "training its reward model is taken."
    )
    kl_coeff: Float = Field(
        ge=0, description="Weight of the KL divergence from the SFT model; the beta of dpo and kto."
    )
    ppo_steps: Int | None = Field(
        default=None, ge=1, description="Steps of policy optimisation (rloo, grpo); dpo and kto run num_epochs instead."
    )
    algorithm: Algorithm = Field(
        default="rloo",
        description="rloo or grpo sample answers and learn from a reward model; dpo learns from the pairs themselves, "
        "kto from single answers that were found good or bad (a dataset of type kto).",
    )
    desirable_weight: Float | None = Field(
        default=None,
        gt=0,
        description="kto: weight of a good answer. What is left out of the two makes good and bad ones weigh the same.",
    )
    undesirable_weight: Float | None = Field(default=None, gt=0, description="kto: weight of a bad answer.")
    num_generations: Int | None = Field(default=None, ge=2, description="Answers sampled a prompt; 4 unless given.")
    max_new_tokens: Int | None = Field(default=None, ge=1, description="Of a sampled answer; 128 unless given.")
    temperature: Float | None = Field(default=None, gt=0, description="Of sampling; 1.0 unless given.")
    reward_lr: Float | None = Field(
        default=None, gt=0, le=1, description="Of the reward model that is trained first; left out: hyperparams.lr."
    )


class EmbeddingBlock(Part):
    """How an encoder turns a text into one vector, and how it is taught to."""

    pooling: Pooling | None = Field(
        default=None,
        description="Left out: what the base was trained with where it says so, else mean for bert and lasttoken for "
        "decoders.",
    )
    temperature: Float = Field(default=0.05, gt=0, description="Cosines are divided by it in the loss.")
    query_prompt: str = Field(default="", description="Put before every anchor or question.")
    passage_prompt: str = Field(default="", description="Put before every passage.")


def job_block_rules(job: str, view: View) -> Iterator[Rule]:
    """What is wrong inside the block of a job type, and with hyperparameters that have no effect for it."""
    if job == "RLHF":
        yield from _rlhf_rules(view)
    if job == "RAG_TUNING":
        template = view.get("rag.template", str)
        for place in ("{context}", "{question}"):
            if template is not None and template.count(place) != 1:
                yield "rag.template", f"has {place} {template.count(place)} times", f"Write {place} exactly once"
    if job in ("RLHF", "EMBEDDING", "RAG_TUNING") and view.get("hyperparams.packing", bool):
        yield "hyperparams.packing", f"has no effect for {job}", "Remove it"
    if job == "EMBEDDING" and view.get("hyperparams.train_embeddings", bool):
        yield (
            "hyperparams.train_embeddings",
            "an encoder has no vocabulary of its own to learn",
            "Remove it, or write method: full",
        )
    if job == "EMBEDDING" and (view.get("hyperparams.batch_size", int) or 2) < 2:
        yield (
            "hyperparams.batch_size",
            "the other rows of a batch are the negatives: one row has none",
            "Write 2 or more; 32 and above teach better",
        )


def _rlhf_rules(view: View) -> Iterator[Rule]:
    algorithm = view.get("rlhf.algorithm", str) or "rloo"
    if view.get("rlhf") is None:
        return
    if algorithm != "kto":
        for name in ("desirable_weight", "undesirable_weight"):
            if view.get(f"rlhf.{name}") is not None:
                yield f"rlhf.{name}", f"has no effect with algorithm {algorithm}", "Remove it, or use kto"
    if algorithm in OFFLINE:
        for name in ("ppo_steps", "reward_model_ref", "reward_lr", *SAMPLING_DEFAULTS):
            if view.get(f"rlhf.{name}") is not None:
                yield f"rlhf.{name}", f"has no effect with algorithm {algorithm}", "Remove it (reward_model_ref: null)"
        if view.number("rlhf.kl_coeff") == 0:
            yield "rlhf.kl_coeff", f"{algorithm} multiplies every reward by it", "Write a number above 0; 0.1 is usual"
        if algorithm == "kto" and (view.get("hyperparams.batch_size", int) or 2) < 2:
            yield (
                "hyperparams.batch_size",
                "kto estimates the divergence from the other rows of a batch: one row has none",
                "Write 2 or more; 8 and above estimate better",
            )
        return
    if view.get("rlhf.ppo_steps") is None:
        yield "rlhf.ppo_steps", f"required for algorithm {algorithm}", "Write how many steps the policy is optimised"
    if view.get("rlhf.reward_model_ref") is not None and view.get("rlhf.reward_lr") is not None:
        yield "rlhf.reward_lr", "has no effect where a reward model is given", "Remove it"
    for name in ("eval_steps", "early_stopping"):
        if view.get(f"hyperparams.{name}") is not None:
            yield f"hyperparams.{name}", f"has no effect with algorithm {algorithm}", "Remove it, or use dpo"
    answers, batch = view.get("rlhf.num_generations", int), view.get("hyperparams.batch_size", int)
    rows = batch * (view.get("hyperparams.gradient_accumulation_steps", int) or 1) if batch else None
    if answers and rows and rows % answers:
        yield (
            "rlhf.num_generations",
            f"{rows} answers a step (batch_size × gradient_accumulation_steps) are no whole groups of {answers}",
            f"Make batch_size × gradient_accumulation_steps a multiple of {answers}",
        )
    longest, length = view.get("rlhf.max_new_tokens", int), view.get("hyperparams.max_seq_len", int)
    if longest and length and longest >= length:
        yield (
            "rlhf.max_new_tokens",
            f"{longest} leave no room for a prompt in max_seq_len {length}",
            "Write less, or raise hyperparams.max_seq_len",
        )
