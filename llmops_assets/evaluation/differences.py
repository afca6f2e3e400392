"""A model against another on the same items: the paired test, and what the record keeps of it."""

from collections.abc import Sequence

from llmops_assets.evaluation import metrics as m
from llmops_assets.records.evaluation import Difference


def versus_base(differences: Sequence[Difference]) -> dict[str, dict[str, float]]:
    """The comparison with the base as the record keeps it, by suite."""
    return {
        d.suite: {"only_tuned": d.only_tuned, "only_base": d.only_other, "both": d.both, "neither": d.neither, "p": d.p}
        for d in differences
        if d.against == "base"
    }


def paired(
    suite: str, against: str, ref: str, tuned: Sequence[bool], other: Sequence[bool], *, changed: int
) -> Difference:
    """McNemar's test of two models on the same items; `changed` counts the items that they treat otherwise."""
    test = m.mcnemar(tuned, other)
    return Difference(
        suite=suite,
        against=against,
        ref=ref,
        only_tuned=test.only_first,
        only_other=test.only_second,
        both=test.both,
        neither=test.neither,
        p=test.p,
        test=test.test,
        difference=test.difference,
        low=test.low,
        high=test.high,
        changed=changed,
    )
