"""A toxicity scorer trained on the user's own labels: character n-grams, tf-idf, logistic regression.

The weights are one safetensors file, with the names of the groups in its header: nothing in it can run.
"""

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from llmops_assets.toxicity.scorer import UNNAMED, ToxicityError
from resources import files

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import HashingVectorizer

FORMAT = "llmops-toxicity-1"
BITS = 18
_FEWEST = 20
"""Examples on each side under which nothing is learned, of all texts or of a group."""
_HELD_OUT = 0.2
_BATCH = 4096


@dataclass(frozen=True)
class Judged:
    """How a new model did on texts that it did not see: counts and rates at `threshold`."""

    threshold: float
    texts: int
    toxic: int
    precision: float
    recall: float
    f1: float
    auc: float


@cache
def _vectorizer() -> "HashingVectorizer":
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 4), n_features=1 << BITS, alternate_sign=False, norm=None, dtype=np.float32
    )


def _counts(values: Sequence[str]) -> "csr_matrix":
    matrix = _vectorizer().transform([value.casefold() for value in values])
    # Twice the same n-gram says little more than once.
    np.log1p(matrix.data, out=matrix.data)
    return matrix


@dataclass(frozen=True)
class Linear:
    """Weights of shape (1 + groups, 2^18): the first row judges the text, the others whom it offends."""

    idf: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    names: tuple[str, ...]
    threshold: float

    def probabilities(self, values: Sequence[str]) -> np.ndarray:
        """Probability of each text to be toxic, and to offend each group: shape (texts, 1 + groups)."""
        found = []
        for start in range(0, len(values), _BATCH):
            matrix = _weighted(_counts(values[start : start + _BATCH]), self.idf)
            found.append(1.0 / (1.0 + np.exp(-(matrix @ self.weights.T + self.bias))))
        return np.concatenate(found) if found else np.zeros((0, len(self.bias)))

    def groups(self, values: pl.Series) -> pl.Series:
        """The groups offended by each text: those likelier than not, or `toxic` when it is none of them."""
        judged = self.probabilities(values.fill_null("").to_list())
        found = []
        for row in judged:
            named = [name for name, p in zip(self.names, row[1:], strict=True) if p >= 0.5]
            found.append((named or [UNNAMED]) if row[0] >= self.threshold else [])
        return pl.Series("groups", found, dtype=pl.List(pl.String))

    def save(self, path: Path) -> None:
        """Write the model to one safetensors file, whole or not at all."""
        from safetensors.numpy import save

        about = {"format": FORMAT, "groups": json.dumps(self.names), "threshold": str(self.threshold)}
        files.write_bytes(path, save({"idf": self.idf, "weights": self.weights, "bias": self.bias}, metadata=about))

    @classmethod
    def load(cls, path: Path, threshold: float | None = None) -> "Linear":
        """Read a model; `threshold` goes before the one that it was saved with. ToxicityError when it is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="numpy") as file:
                about: dict[str, Any] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ToxicityError(
                f"{path} is no toxicity model: {error}. `llmops dataset train-toxicity` makes one"
            ) from error
        names = tuple(json.loads(about.get("groups", "[]")))
        shapes = {name: value.shape for name, value in tensors.items()}
        wanted = {"idf": (1 << BITS,), "weights": (1 + len(names), 1 << BITS), "bias": (1 + len(names),)}
        if about.get("format") != FORMAT or shapes != wanted:
            raise ToxicityError(f"{path} is no toxicity model of this release: train it again")
        own = float(about["threshold"])
        return cls(**tensors, names=names, threshold=own if threshold is None else threshold)


_LABELS = {
    **dict.fromkeys(("1", "true", "yes", "y", "toxic", "hate", "offensive", "악플", "혐오"), True),
    **dict.fromkeys(("0", "false", "no", "n", "clean", "none", "normal", "정상"), False),
}


@dataclass(frozen=True)
class Labels:
    """Labelled texts of a file; `skipped` rows had no text or a label that says neither."""

    texts: list[str]
    toxic: list[bool]
    groups: list[list[str]]
    skipped: int


def read_labels(path: Path, text: str, label: str, group: str | None = None) -> Labels:
    """Texts, labels and offended groups of a CSV or TSV file. ToxicityError says what the file lacks."""
    try:
        table = pl.read_csv(
            path,
            separator="\t" if path.suffix == ".tsv" else ",",
            infer_schema=False,
            truncate_ragged_lines=False,
            quote_char='"' if path.suffix != ".tsv" else None,
        )
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise ToxicityError(f"{path} cannot be read as a table: {str(error).splitlines()[0]}") from error
    for option, column in (("--text", text), ("--label", label), ("--group", group)):
        if column is not None and column not in table.columns:
            raise ToxicityError(f"{path} has no column {column!r} ({option}); it has {', '.join(table.columns)}")
    found = Labels([], [], [], 0)
    skipped = 0
    columns = [text, label, *([group] if group else [])]
    for value, label, *named in table.select(columns).iter_rows():
        toxic = _LABELS.get((label or "").strip().casefold())
        if toxic is None or not (value or "").strip():
            skipped += 1
            continue
        found.texts.append(unicodedata.normalize("NFC", value))
        found.toxic.append(toxic)
        names = [name.strip() for name in (named[0] or "").split(",")] if named and toxic else []
        found.groups.append([name for name in names if name])
    return replace(found, skipped=skipped)


def _weighted(matrix: "csr_matrix", idf: np.ndarray) -> "csr_matrix":
    from sklearn.preprocessing import normalize

    matrix.data *= idf[matrix.indices]
    return normalize(matrix, copy=False)


def train(
    values: Sequence[str],
    toxic: Sequence[bool],
    offended: Sequence[Sequence[str]] = (),
    *,
    threshold: float | None = None,
    seed: int = 0,
) -> tuple[Linear, Judged]:
    """Learn from labelled texts; the figures are of a fifth that was held out, the model is of all of them.

    `offended` names the groups that each toxic text offends; a group with fewer than twenty texts is not learned.
    Without a `threshold` the one with the best F1 on the held-out fifth is kept. ToxicityError when there is too
    little to learn from.
    """
    from sklearn.model_selection import train_test_split

    wanted = np.asarray(toxic, dtype=bool)
    if min(wanted.sum(), (~wanted).sum()) < _FEWEST:
        raise ToxicityError(
            f"{wanted.sum():,} toxic and {(~wanted).sum():,} other texts: at least {_FEWEST} of each are needed"
        )
    counts = _counts(values)
    learned, held = train_test_split(np.arange(len(wanted)), test_size=_HELD_OUT, random_state=seed, stratify=wanted)
    trial = _fit(counts[learned], wanted[learned][:, None])
    judged = _judge(trial, counts[held], wanted[held], threshold)
    names = _learnable(offended)
    targets = [wanted, *(np.array([name in groups for groups in offended]) for name in names)]
    idf, weights, bias = _fit(counts, np.stack(targets, axis=1))
    return Linear(idf, weights, bias, names, judged.threshold), judged


def _learnable(offended: Sequence[Sequence[str]]) -> tuple[str, ...]:
    counted: dict[str, int] = {}
    for groups in offended:
        for name in set(groups):
            counted[name] = counted.get(name, 0) + 1
    return tuple(sorted(name for name, count in counted.items() if count >= _FEWEST))


def _fit(counts: "csr_matrix", targets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inverse document frequencies, weights and biases; `targets` of shape (texts, outputs)."""
    from sklearn.linear_model import LogisticRegression

    documents = np.asarray((counts > 0).sum(axis=0)).ravel()
    idf = (np.log((1 + counts.shape[0]) / (1 + documents)) + 1).astype(np.float32)
    matrix = _weighted(counts.copy(), idf)
    weights, bias = [], []
    for target in targets.T:
        model = LogisticRegression(C=4.0, solver="liblinear", class_weight="balanced", max_iter=200)
        model.fit(matrix, target)
        weights.append(model.coef_[0])
        bias.append(model.intercept_[0])
    return idf, np.asarray(weights, np.float32), np.asarray(bias, np.float32)


def _judge(
    model: tuple[np.ndarray, np.ndarray, np.ndarray], counts: "csr_matrix", wanted: np.ndarray, threshold: float | None
) -> Judged:
    from sklearn.metrics import precision_recall_curve, roc_auc_score

    idf, weights, bias = model
    scores = 1.0 / (1.0 + np.exp(-(_weighted(counts.copy(), idf) @ weights.T + bias)[:, 0]))
    if threshold is None:
        precisions, recalls, thresholds = precision_recall_curve(wanted, scores)
        f1 = 2 * precisions * recalls / np.maximum(precisions + recalls, 1e-9)
        threshold = round(float(np.clip(thresholds[int(np.argmax(f1[:-1]))], 0.05, 0.95)), 4)
    flagged = scores >= threshold
    right = int((flagged & wanted).sum())
    precision, recall = right / max(int(flagged.sum()), 1), right / max(int(wanted.sum()), 1)
    return Judged(
        threshold=threshold,
        texts=len(wanted),
        toxic=int(wanted.sum()),
        precision=round(precision, 4),
        recall=round(recall, 4),
        f1=round(2 * precision * recall / max(precision + recall, 1e-9), 4),
        auc=round(float(roc_auc_score(wanted, scores)), 4),
    )
