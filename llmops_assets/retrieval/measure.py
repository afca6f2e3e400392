"""How well an index finds the passages of its own test questions, and whether its engine finds what is nearest."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llmops_assets.evaluation.retrieval import DEPTH, Found, Query, retrieval_metrics
from llmops_assets.records.evaluation import Metric
from resources.retrieval.engine import CANDIDATES, Engine, Mode, search
from resources.retrieval.files import PassageIndex

MODES: tuple[Mode, ...] = ("hybrid", "dense", "sparse")
EXACT_SAMPLE = 200
_TIE = 1e-5


def found_for(
    engine: Engine, index: PassageIndex, questions: Sequence[Query], vectors: NDArray[np.float32], mode: Mode
) -> list[Found]:
    """What each question finds; a passage that is not among the candidates has the rank behind all passages."""
    ids, behind = index.passages["id"].to_list(), index.passages.height + 1
    found = []
    for question, vector in zip(questions, vectors, strict=True):
        hits = search(engine, index, question.text, vector, CANDIDATES, mode=mode)
        rank = {ids[hit.row]: place for place, hit in enumerate(hits, 1)}
        ranks = sorted(rank.get(key, behind) for key in question.relevant)
        best = hits[:DEPTH]
        found.append(Found(question, tuple(ranks), tuple(ids[h.row] for h in best), tuple(h.score for h in best)))
    return found


def measure(
    engine: Engine, index: PassageIndex, questions: Sequence[Query], vectors: NDArray[np.float32]
) -> list[Metric]:
    """Recall, MRR and nDCG of each way of searching (as the suite), with intervals over the questions."""
    if not questions:
        return []
    return [
        metric
        for mode in MODES
        for metric in retrieval_metrics(
            found_for(engine, index, questions, vectors, mode), mode, "tuned", (1, 5, DEPTH)
        )
    ]


def exact_agreement(
    engine: Engine, index: PassageIndex, vectors: NDArray[np.float32], *, depth: int = DEPTH
) -> tuple[float, int]:
    """Recall of the engine's nearest `depth` passages against those that comparing with all of them finds.

    Asked are the questions (`vectors`), at most 200, or passages themselves where there are none. Of equally near ones
    any is right. The share, and how many were asked.
    """
    asked = vectors if len(vectors) else index.vectors
    if len(asked) > EXACT_SAMPLE:
        asked = asked[np.linspace(0, len(asked) - 1, EXACT_SAMPLE).astype(int)]
    depth = min(depth, len(index.vectors))
    shares = []
    for vector in asked:
        cosines = index.vectors @ vector
        least = np.partition(cosines, -depth)[-depth]
        rows = {row for row, _ in engine.nearest(vector, depth)}
        shares.append(sum(cosines[row] >= least - _TIE for row in rows) / depth)
    return float(np.mean(shares)), len(asked)
