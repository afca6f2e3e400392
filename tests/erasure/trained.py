"""What a training leaves behind, written by hand: an erasure reads records and folders, never weights."""

import json
from pathlib import Path

from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord, TemplateFinding
from llmops_assets.wiring import Wiring

COUNTS = [
    "tokens",
    "trainable_tokens",
    "rows_without_trainable_tokens",
    "truncated_rows",
    "cut_answers",
    "double_bos_rows",
    "steps",
    "memory_bytes",
    "memory_available",
]


def leave_training(w: Wiring, dataset: str, recipe: str, model_dir: Path, theirs: str) -> str:
    """Records, rendered rows, answers (one of them says `theirs`) and a registered version; its reference."""
    cell = f"{dataset}|{recipe}"
    same = {"dataset": dataset, "recipe": recipe, "training_key": f"key-{dataset}"}
    plan = {name: 0 for name in COUNTS} | {"prefix_preserving": True, "packing_efficiency": 1.0, "rows": {"train": 1}}
    plan |= {"spec": {"evaluation": {"suites": []}}, "base": None, "model_dir": str(model_dir), "failures": {}}
    plan |= {"stop_token": None, "stop_token_trained": True, "chat_template_hash": None, "precision": "fp32"}
    plan |= {"gradient_checkpointing": False, "memory_advice": None, "seconds": None, "device": "cpu"}
    plan["findings"] = [
        TemplateFinding(name="n", text="t", blocking=False, rows=1, row_ids=["r"], example=f"<|user|>{theirs}")
    ]
    w.records.save(cell, PlanRecord(**same, **plan, example=f"<|user|>{theirs}"))
    for name, text in (("plan/train.jsonl", theirs), ("work/train.log", theirs), ("merged/config.json", "{}")):
        (model_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (model_dir / name).write_text(text, encoding="utf-8")
    run_id = w.tracking.start_run("tuned", cell)
    w.tracking.end_run(run_id, "FINISHED")
    adapter = {"method": "full", "path": "", "content_hash": "a", "steps": 1, "resumed_from": None, "reused": False}
    adapter |= {"first_loss": 2.0, "last_loss": 1.0, "eval_loss": None, "seconds": 1.0, "tokens_per_second": None}
    adapter |= {"peak_memory_bytes": None, "curve": [], "weight_change": 1.0, "non_finite_weights": 0}
    w.records.save(cell, AdapterRecord(**same, **adapter, mlflow_run_id=run_id))
    merged = {"path": str(model_dir / "merged"), "content_hash": f"hash-of-{dataset}", "family": "llama"}
    facts = {"parameters": 1, "chat_template_hash": None, "max_logit_difference": None, "top1_agreement": None}
    w.records.save(cell, MergedModelRecord(**same, **merged, **facts, differs_from_base=True, reloads=True))
    test = w.store.read(w.records.load(SplitsRecord, dataset).manifests["test"], ["row_id"])["row_id"][0]
    folder = model_dir / "evaluation" / recipe
    folder.mkdir(parents=True)
    answers = [{"id": test, "got": "네"}, {"id": "0" * 16, "got": f"{theirs}에게 물어보세요"}]
    (folder / "answers.jsonl").write_text("".join(json.dumps(a, ensure_ascii=False) + "\n" for a in answers))
    (folder / "report.html").write_text(f"<p>{theirs}</p>")
    w.tracking.log_artifact(run_id, folder / "report.html", "evaluation")
    figures = {"metrics": [], "empty_answers": 0, "length_truncated": 0, "by_category": {}, "seconds": 1.0}
    files = {"answers": str(folder / "answers.jsonl"), "report": str(folder / "report.html")}
    w.records.save(cell, EvaluationRecord(**same, model_hash=f"hash-of-{dataset}", **figures, **files))
    tags = {**same, "content_hash": f"hash-of-{dataset}", "family": "llama", "job_type": "SFT"}
    version = w.tracking.register("tuned", merged["path"], run_id, tags)
    model = {"name": "tuned", "version": version, "job_type": "SFT", "mlflow_run_id": run_id, "card": ""}
    kept = {"dataset": dataset, "recipe": recipe}
    record = RegisteredModelRecord(**kept, **merged, **model)
    w.records.save(cell, record)
    cache = w.artifacts.path("answers", f"of-{version}")
    cache.mkdir(parents=True)
    (cache / "input.jsonl").write_text(json.dumps({"id": f"test/{test}", "messages": [theirs]}) + "\n")
    return record.ref
