"""Which assets of the graph belong together, for whoever asks how far a partition has come."""

DATASET = frozenset({"question_answers", "dataset", "quality_report", "clean_dataset", "splits"})
TRAINING = frozenset({"training_plan", "adapter", "merged_model", "evaluation", "registered_model"})
STAGES = (
    DATASET,
    TRAINING,
    frozenset({"retrieval_index"}),
    frozenset({"deployment"}),
    frozenset({"ab_report"}),
    frozenset({"drift_report", "usage_report"}),
    frozenset({"traffic", "judged_traffic"}),
)
"""Assets whose runs on a partition belong together; an endpoint's name may be an experiment's too."""


def stage_of(asset: str) -> frozenset[str]:
    """The assets that share their runs with `asset`; raises LookupError for one that no stage holds."""
    for stage in STAGES:
        if asset in stage:
            return stage
    raise LookupError(f"asset {asset!r} belongs to no stage: name it in llmops_assets/operations/graph.py")
