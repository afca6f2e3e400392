"""Judges what a model lost when its weights were written with fewer bits, item by item against the original."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from llmops_assets.evaluation.metrics import Estimate, bootstrap, mcnemar
from llmops_assets.records.evaluation import EvaluationRecord, Metric
from llmops_assets.specs.evaluation_rules import Gate
from llmops_assets.specs.serving_rules import Compression
from llmops_assets.verdict import Verdict
from resources.encryption import NO_KEYS, Keyring

PROBES = 16
_PROBE_TOKENS = 256


def token_rows(plan_dir: Path, split: str, most: int, keys: Keyring = NO_KEYS) -> list[list[int]]:
    """Up to `most` rendered rows of a planned split, spread over it; of another split where that one is empty."""
    files = [plan_dir / f"{name}.parquet" for name in (split, "train")]
    file = next(file for file in files if file.is_file())
    ids = pl.read_parquet(io.BytesIO(keys.open(file.read_bytes(), file)), columns=["ids"])["ids"]
    return ids.gather_every(max(1, len(ids) // most)).head(most).to_list()


def write_rows(path: Path, rows: Sequence[Sequence[int]], longest: int | None = None) -> Path:
    """Token rows as the compressing worker reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"ids": list(row[:longest])}) + "\n" for row in rows), encoding="utf-8")
    return path


def probe_rows(plan_dir: Path, keys: Keyring = NO_KEYS) -> list[list[int]]:
    """Rows that the two models' distributions are compared on: of the validation split, which fitted nothing."""
    return [row[:_PROBE_TOKENS] for row in token_rows(plan_dir, "validation", PROBES, keys)]


def size_of(folder: Path) -> int:
    """Bytes of the weights in a model folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def difference(metric: str, suite: str, compressed: Sequence[Mapping], original: Sequence[Mapping]) -> Estimate:
    """How much better (above 0) or worse the compressed model is on the same items, with its paired interval.

    `accuracy` in points; `perplexity` as a share of the original's, with the sign turned. Rows are those of the answers
    files. Raises ValueError when the two were not asked the same items.
    """
    mine = {row["id"]: row for row in compressed if row["suite"] == suite}
    theirs = {row["id"]: row for row in original if row["suite"] == suite}
    if not mine or mine.keys() != theirs.keys():
        raise ValueError(
            f"the compressed model was asked {len(mine)} items of suite {suite} and the original {len(theirs)}, or "
            "others: materialise `evaluation` again, then `quantized_model`"
        )
    pairs = [(mine[key], theirs[key]) for key in sorted(mine)]
    if metric == "perplexity":
        nll = np.array([[one["nll"], other["nll"]] for one, other in pairs])
        tokens = np.array([other["tokens"] for _, other in pairs])

        def worse(index: np.ndarray) -> float:
            ours, original_nll = nll[index].sum(axis=0) / tokens[index].sum()
            return 1 - math.exp(ours - original_nll)

        return bootstrap(worse, len(pairs))
    steps = np.array([float(bool(one["correct"])) - float(bool(other["correct"])) for one, other in pairs])
    return bootstrap(lambda index: float(steps[index].mean()), len(pairs))


def versus(suite: str, compressed: Sequence[Mapping], original: Sequence[Mapping]) -> dict[str, float]:
    """McNemar's test on the judged items of a suite; empty where nothing is judged."""
    theirs = {row["id"]: row for row in original if row["suite"] == suite}
    pairs = [(row, theirs[row["id"]]) for row in compressed if row["suite"] == suite]
    if not pairs or "correct" not in pairs[0][0]:
        return {}
    test = mcnemar([one["correct"] for one, _ in pairs], [other["correct"] for _, other in pairs])
    return {
        "only_compressed": test.only_first,
        "only_original": test.only_second,
        "both": test.both,
        "neither": test.neither,
        "p": test.p,
    }


def judge(scheme: str, gate: Gate, lost: Estimate, top1: float, kl: float, policy: Compression) -> Verdict:
    """Whether the policy allows what was lost; the asset's registration and its check ask the same question here."""
    figures = {"difference": lost.value, "top1": top1, "kl": kl}
    measured = (
        f"{scheme}: {gate.metric} {lost.value:+.3f} against the original"
        + (f" (95 % interval {lost.low:+.3f} to {lost.high:+.3f}, n = {lost.n})" if lost.low is not None else "")
        + f", the same likeliest token in {top1:.3f} of positions, KL {kl:.3g} nats a token"
    )
    faults = []
    if not -lost.value <= policy.max_drop:
        faults.append(f"it lost more than {policy.max_drop} of {gate.metric}")
    if not top1 >= policy.min_top1:
        faults.append(f"it agrees with the original in fewer than {policy.min_top1} of positions")
    if faults:
        advice = "Take a scheme with more bits, calibrate on more rows, or change registry.compression in the policy."
        return Verdict(False, f"{measured}. {' and '.join(faults).capitalize()}. {advice}", figures)
    return Verdict(True, f"{measured}.", figures)


def metrics_of(record: EvaluationRecord) -> list[Metric]:
    """The compressed model's own figures."""
    return [metric for metric in record.metrics if metric.model == "tuned"]
