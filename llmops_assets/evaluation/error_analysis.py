"""The rows of an evaluation that a person should read first: wrong answers, confusions, and what changed."""

from collections.abc import Sequence

from llmops_assets.evaluation.case import Baseline, Case, Changes, ErrorAnalysis
from llmops_assets.evaluation.chat_results import ChatEvaluation
from llmops_assets.evaluation.suites import Scored, confusion_matrix, confusions, wrong_answers

WORST = 20


def worst_answers(case: Case, evaluation: ChatEvaluation, most: int = WORST) -> ErrorAnalysis:
    """Wrong answers of the headline suite, of every category, and what changed against the baselines."""
    wrong = wrong_answers(evaluation.headline, most)
    total = sum(not s.right for s in evaluation.headline)
    matrices = {suite: confusion_matrix(scored) for suite, scored in evaluation.tuned.items()}
    return ErrorAnalysis(
        f"{len(wrong)} of {total} wrong answers" if wrong else "No wrong answer",
        ("category", "question", "expected", "answered", "why"),
        [(s.item.category, s.item.question, s.item.references[0], s.text, s.state) for s in wrong],
        confusions(evaluation.headline),
        {suite: matrix for suite, matrix in matrices.items() if matrix is not None},
        [
            changes(suite, baseline, scored, evaluation.scored[baseline.name][suite], most)
            for baseline in case.baselines
            for suite, scored in evaluation.tuned.items()
            if suite in evaluation.scored[baseline.name]
        ],
        [row["seconds"] for row in evaluation.latency],
    )


def changes(suite: str, baseline: Baseline, tuned: Sequence[Scored], other: Sequence[Scored], most: int) -> Changes:
    """What became wrong, then what became right, against `baseline` on the same items."""
    pairs = list(zip(tuned, other, strict=True))
    worse = [(a, b) for a, b in pairs if b.right and not a.right]
    better = [(a, b) for a, b in pairs if a.right and not b.right]
    shown = worse[:most] + better[: max(0, most - len(worse))]
    rows = [
        (
            "now right" if a.right else "now wrong",
            a.item.category,
            a.item.question,
            a.item.references[0],
            b.text,
            a.text,
        )
        for a, b in shown
    ]
    return Changes(suite, baseline.name, baseline.ref, len(worse), len(better), rows)
