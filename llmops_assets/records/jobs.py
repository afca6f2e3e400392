"""The jobs that the worker is given, by task, and the modules of the worker that do them."""

from llmops_assets.specs.policy import JobType

PLANNER: dict[JobType, str] = {
    "PRETRAIN": "images.train.plan_corpus",
    "SFT": "images.train.plan_chat",
    "RLHF": "images.train.plan_pairs",
    "EMBEDDING": "images.train.plan_encoder",
    "RAG_TUNING": "images.train.plan_rag",
}
"""The module that plans the rows of a job type."""
TRAINER: dict[JobType, str] = {
    "PRETRAIN": "images.train.sft",
    "SFT": "images.train.sft",
    "RLHF": "images.train.rlhf",
    "EMBEDDING": "images.train.encoder",
    "RAG_TUNING": "images.train.rag",
}
"""The module that trains a job type by TRL or transformers."""
AXOLOTL = ("images.train.axolotl", "images.train.axolotl_plugin", "images.train.axolotl_dpo")
"""What trains by Axolotl, for the worker and inside Axolotl's own process."""
