"""False alarms of `drift_report` on traffic in which nothing changes, and how often a change is noticed.

Run it with ``python -m benchmarks.drift``; ``--windows 1000`` is the default, ``--users 300`` the users of a window.
"""

import argparse
import time
from collections import Counter

import numpy as np

from llmops_assets.drift.compare import BEFORE, TRAINING, Comparison, compare, judged
from llmops_assets.drift.features import Measures, held_out, of_rows, of_window
from llmops_assets.drift.simulate import Change, training, window
from llmops_assets.evaluation.judge import is_refusal
from llmops_assets.intervals import wilson
from llmops_assets.specs.experiment_rules import DriftRules
from llmops_assets.toxicity.scorers import Lexicon

CHANGES = {
    "a third longer questions": Change(words=1.35),
    "a fifth of the questions on one topic": Change(topic=0.2),
    "refusals 3 % to 12 %": Change(refusals=0.12),
    "half as slow again": Change(latency=1.5),
    "half a point worse rated": Change(rating=-0.5),
}


def look(rng: np.random.Generator, users: int, change: Change | None = None) -> list[Comparison]:
    """One report: a window against 400 training rows and against a window before it."""
    rules, lexicon = DriftRules(), Lexicon()
    rows, categories = training(rng, 800)
    how = Measures.learned(
        rows,
        categories,
        is_toxic=lambda texts: (lexicon.groups(texts).list.len() > 0).to_numpy(),
        is_refusal=is_refusal,
        placeholders=["[이름]", "[전화번호]"],
    )
    before, now = (of_window(window(rng, users, c, per_user=rules.requests_per_user), how) for c in (None, change))
    found = compare(now, of_rows(held_out(rows), how), TRAINING, rules) + compare(now, before, BEFORE, rules)
    return judged(found, rules.alpha)


def main() -> None:
    """Print the share of reports with an alarm, with Wilson's interval, for stable traffic and for each change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--changed-windows", type=int, default=40)
    arguments = parser.parse_args()
    begin = time.perf_counter()
    rng = np.random.default_rng(1)
    _print("nothing changes", [look(rng, arguments.users) for _ in range(arguments.windows)])
    for name, change in CHANGES.items():
        _print(name, [look(rng, arguments.users, change) for _ in range(arguments.changed_windows)])
    print(f"{time.perf_counter() - begin:.0f} s")


def _print(name: str, reports: list[list[Comparison]]) -> None:
    alarms = sum(any(one.drifted for one in report) for report in reports)
    low, high = wilson(alarms, len(reports))
    features = Counter(one.feature for report in reports for one in report if one.drifted)
    beyond = Counter(one.feature for report in reports for one in report if one.adjusted < one.alpha)
    share = f"{alarms / len(reports):.1%}, {low:.1%} to {high:.1%}"
    print(f"{name}: {alarms} of {len(reports)} reports with an alarm ({share})")
    print(f"  drifted: {dict(features.most_common(6))}; beyond chance, floors aside: {dict(beyond.most_common(6))}")


if __name__ == "__main__":
    main()
