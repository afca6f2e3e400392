"""Which texts offend somebody, and whom: a word list by default, a model of the user's own where there is one."""

import re
from collections.abc import Iterable
from pathlib import Path

import polars as pl

from llmops_assets.privacy.pattern import superset
from llmops_assets.specs.dataset_rules import Toxicity
from llmops_assets.toxicity.lexicon import toxic_stems
from llmops_assets.toxicity.scorer import ToxicityError, ToxicityScorer


class Lexicon:
    """Flags texts with a word of the list. Sure of what it flags, blind to what is said politely."""

    def __init__(self, words: dict[str, Iterable[str]] | None = None) -> None:
        self._expressions = {
            group: re.compile("|".join(stems), re.IGNORECASE) for group, stems in (words or toxic_stems()).items()
        }
        # polars' engine has no look-around: it finds the stem, and Python judges what follows it.
        self._any = "(?i)" + "|".join(superset(expression.pattern) for expression in self._expressions.values())

    def groups(self, values: pl.Series) -> pl.Series:
        """The groups offended by each text."""
        found: list[list[str]] = [[] for _ in range(len(values))]
        for number in values.str.contains(self._any).fill_null(False).arg_true():
            text = values[number]
            found[number] = [group for group, expression in self._expressions.items() if expression.search(text)]
        return pl.Series("groups", found, dtype=pl.List(pl.String))


def scorer(rules: Toxicity) -> ToxicityScorer:
    """The scorer that a policy names. ToxicityError when its model cannot be used."""
    if rules.scorer == "lexicon":
        return Lexicon()
    if rules.path is None:
        raise ToxicityError(f"datasets.toxicity.scorer is {rules.scorer}, but datasets.toxicity.path names no model")
    path = Path(rules.path).expanduser()
    if rules.scorer == "linear":
        from llmops_assets.toxicity.linear import Linear

        return Linear.load(path, rules.threshold)
    from llmops_assets.toxicity.classifier import Transformers

    return Transformers(path, threshold=rules.threshold, clean=rules.clean_labels)
