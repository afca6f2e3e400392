"""A toxicity scorer that is a sequence classifier in a local folder: safetensors only, no code of the model's own."""

from collections.abc import Iterable
from pathlib import Path

import polars as pl

from llmops_assets.toxicity.scorer import UNNAMED, ToxicityError

_BATCH = 32
_LONGEST = 512
"""Tokens of a text that are looked at, or fewer if the model takes fewer."""


class Transformers:
    """Flags a text with the labels whose probability is at least `threshold`, the `clean` ones aside."""

    def __init__(self, path: Path, *, threshold: float | None = None, clean: Iterable[str] = ()) -> None:
        if not (path / "config.json").is_file():
            raise ToxicityError(f"{path} is no folder with a model: config.json is missing")
        if not any(path.glob("*.safetensors")):
            raise ToxicityError(f"{path} holds no safetensors: pickled weights are not loaded")
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        safe = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(path, **safe)
            self._model = AutoModelForSequenceClassification.from_pretrained(path, use_safetensors=True, **safe).eval()
        except (OSError, ValueError) as error:
            raise ToxicityError(f"{path} cannot be loaded as a sequence classifier: {error}") from error
        self._labels = [str(self._model.config.id2label[n]) for n in range(self._model.config.num_labels)]
        ignored = {label.casefold() for label in clean}
        self._flags = [n for n, label in enumerate(self._labels) if label.casefold() not in ignored]
        if not self._flags or len(self._flags) == len(self._labels) == 2:
            raise ToxicityError(
                f"{path}: of the labels {', '.join(self._labels)} clean_labels must name those that "
                "are harmless, and not all"
            )
        self._threshold = 0.5 if threshold is None else threshold
        limit = getattr(self._model.config, "max_position_embeddings", None) or _LONGEST
        self._longest = min(_LONGEST, limit)

    def probabilities(self, values: list[str]) -> list[list[float]]:
        """For each text the probability of every label, in the order of the model's config; zeros for a blank one."""
        import torch

        several = self._model.config.problem_type == "multi_label_classification"
        found = [[0.0] * len(self._labels) for _ in values]
        # Texts of like length together: less padding.
        order = sorted((n for n, text in enumerate(values) if text.strip()), key=lambda number: len(values[number]))
        for start in range(0, len(order), _BATCH):
            numbers = order[start : start + _BATCH]
            inputs = self._tokenizer(
                [values[n] for n in numbers],
                padding=True,
                truncation=True,
                max_length=self._longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                logits = self._model(**inputs).logits
            judged = logits.sigmoid() if several else logits.softmax(dim=-1)
            for number, row in zip(numbers, judged.tolist(), strict=True):
                found[number] = row
        return found

    def flagged(self, values: list[str]) -> list[float]:
        """Of each text the probability that a flagged label holds: together, or the likeliest where several may."""
        several = self._model.config.problem_type == "multi_label_classification"
        together = max if several else sum
        return [float(min(1.0, together(row[n] for n in self._flags))) for row in self.probabilities(values)]

    def groups(self, values: pl.Series) -> pl.Series:
        """The labels over the threshold; `toxic` for a text that only all of them together reach."""
        distinct = values.fill_null("").unique(maintain_order=True).to_list()
        several = self._model.config.problem_type == "multi_label_classification"
        by_text: dict[str, list[str]] = {}
        for text, row in zip(distinct, self.probabilities(distinct), strict=True):
            named = [self._labels[n] for n in self._flags if row[n] >= self._threshold]
            together = not several and sum(row[n] for n in self._flags) >= self._threshold
            by_text[text] = named or ([UNNAMED] if together else [])
        found = [by_text[text] for text in values.fill_null("")]
        return pl.Series("groups", found, dtype=pl.List(pl.String))
