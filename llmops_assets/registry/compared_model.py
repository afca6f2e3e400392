"""Gathers what a registered version is compared by."""

from pathlib import Path

from llmops_assets.evaluation.answers_file import read_answers
from llmops_assets.records.datasets import CleanRecord, SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.registry.compare import ComparedModel
from llmops_assets.specs.names import training_key
from resources.records import Records


def compared_model_of(model: RegisteredModelRecord, records: Records) -> ComparedModel:
    """The side of `model`; FileNotFoundError says which asset to materialise where something is missing."""
    cell = training_key(model.dataset, model.recipe)
    evaluation, plan = records.load(EvaluationRecord, cell), records.load(PlanRecord, cell)
    spec = {key: value for key, value in plan.spec.items() if key != "dataset_ref"}
    if model.scheme:
        made = records.load(QuantizedModelRecord, cell).models
        one = next(m for m in made if m.content_hash == model.content_hash)
        evaluation = evaluation.model_copy(
            update={"metrics": one.metrics, "answers": one.answers, "answers_sha256": one.answers_sha256}
        )
        spec["scheme"] = model.scheme
    if not Path(evaluation.answers).is_file():
        raise FileNotFoundError(f"the answers of {model.ref} are gone: materialise `evaluation` of {cell} again")
    rows = read_answers(evaluation.answers, records.keys, evaluation.answers_sha256)
    return ComparedModel(model.ref, evaluation, rows, spec, _data(model.dataset, plan, records))


def _data(dataset: str, plan: PlanRecord, records: Records) -> dict[str, object]:
    facts: dict[str, object] = {"dataset": dataset, "trainable tokens": plan.trainable_tokens}
    splits, clean = records.find(SplitsRecord, dataset), records.find(CleanRecord, dataset)
    if splits is not None:
        facts |= {f"rows in {name}": count for name, count in splits.rows.items()} | {"row hash": splits.data_hash}
    if clean is not None:
        facts |= {f"masked {kind}": count for kind, count in clean.masked_by_type.items()}
        facts |= {f"dropped: {reason}": count for reason, count in clean.dropped_by_reason.items()}
    return facts
