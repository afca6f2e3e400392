"""Evaluates one trained model by the way that its job type asks for, and names what was measured."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmops_assets.evaluation import chat, corpus, preference, rag, retrieval
from llmops_assets.evaluation.case import Case, Evaluated
from llmops_assets.evaluation.speed import SPEED
from llmops_assets.records.evaluation import EvaluationRecord
from resources import content

EVALUATORS: dict[str, Callable[[Case], Evaluated]] = {
    "PRETRAIN": corpus.evaluate,
    "SFT": chat.evaluate,
    "RAG_TUNING": rag.evaluate,
    "RLHF": preference.evaluate,
    "EMBEDDING": retrieval.evaluate,
}
"""How a model is evaluated, by the type of the job that made it. Another way is another module and a line here."""


def evaluate(case: Case) -> Evaluated:
    """The evaluation of `case`, by its job type.

    Raises ContentChanged where a model's files are not those of its hash: its figures would be another model's.
    """
    verify_models(case)
    return EVALUATORS[case.spec.job_type](case)


def verify_models(case: Case) -> None:
    """Raise ContentChanged where a folder of a model that is asked does not hold that model, naming the files."""
    asked = {"merged": case.tuned} | {baseline.ref: baseline.model for baseline in case.baselines} | dict(case.others)
    for name, model in asked.items():
        was = "merged" if model is case.tuned else f"recorded of {name}"
        content.verify(model.path, model.content_hash, was, "Restore the folder, or make the model again")


def record_hash(record: EvaluationRecord, rows: Sequence[Mapping[str, Any]]) -> str:
    """16 hex digits of what was measured: the same model on the same items gives the same, however long it took."""
    metrics = [x.model_dump(mode="json") for x in record.metrics if x.suite != SPEED]
    facts = [record.model_hash, metrics, list(rows)]
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
