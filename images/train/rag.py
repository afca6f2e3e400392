"""Trains what answers from passages: the retriever that finds them, then the reader that answers from them."""

import dataclasses
from pathlib import Path
from typing import Any

from images.train import encoder, session, sft
from images.train.reporter import Reporter
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders


def train(spec: TrainJobSpec, job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """The worker's training of a RAG_TUNING job; the facts are the reader's, with the retriever's figures."""
    output, plan_dir = Path(job["output"]), Path(job["plan_dir"])
    folder = output.parent / "retriever"
    found = folders.facts(folder)
    if found is None:
        reporter.log.info("training the retriever first")

        before = output.parent / "checkpoints-retriever"
        first = {**job, "checkpoints": str(before), "output": str(folder)}

        def build() -> session.Session:
            base = job["retriever"]["path"]
            return encoder.build(spec, first, plan_dir / "retriever", base, job["pooling"], spec.rag.retriever_lr)

        found = session.train(build, spec, first, reporter, "retriever")
    told = {
        **found["figures"],
        "retriever_first_loss": found["first_loss"],
        "retriever_last_loss": found["last_loss"],
        "retriever_change": found["weight_change"],
    }

    def reader() -> session.Session:
        return dataclasses.replace(sft.build(spec, job), figures=lambda: told)

    return session.train(reader, spec, job, reporter)
