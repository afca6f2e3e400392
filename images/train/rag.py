"""Trains what answers from passages: the retriever that finds them, then the reader that answers from them."""

import dataclasses
from pathlib import Path
from typing import Any

from images.train import encoder, session, sft
from images.train.reporter import Reporter
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec


def train(spec: TrainJobSpec, job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """The worker's training of a RAG_TUNING job; the facts are the reader's, with the retriever's figures."""
    planned, base = Path(job.plan_dir) / "retriever", job.retriever.path

    def retriever(first: TrainJob) -> session.Session:
        return encoder.build(spec, first, planned, base, job.pooling, spec.rag.retriever_lr)

    found = session.train_first(retriever, "retriever", spec, job, reporter, "retriever")
    retriever_figures = {
        **found["figures"],
        "retriever_first_loss": found["first_loss"],
        "retriever_last_loss": found["last_loss"],
        "retriever_change": found["weight_change"],
    }

    def reader() -> session.Session:
        return dataclasses.replace(sft.build(spec, job), figures=lambda: retriever_figures)

    return session.train(reader, spec, job, reporter)
