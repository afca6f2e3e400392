"""The kinds of job, of use and of place that specs and the policy speak of."""

from typing import Literal, get_args

JobType = Literal["PRETRAIN", "SFT", "RAG_TUNING", "RLHF", "EMBEDDING"]
JOB_TYPES: tuple[str, ...] = get_args(JobType)
ServeTarget = Literal["GENERATION", "RAG"]
Scheme = Literal["w4a16", "w8a8", "fp8", "awq", "int8"]
Environment = Literal["dev", "staging", "production"]
