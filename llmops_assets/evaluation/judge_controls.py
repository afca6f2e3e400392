"""Asks an LLM judge what is known beforehand: that a reference is better than the answer to another question.

A judge that always takes the first place, that says TIE to everything or that means the other answer by its letter
gives verdicts like any other, and a score of them that says nothing (Zheng et al. 2023).
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmops_assets.evaluation.llm_judge import KnownVerdicts, digest, replies_of, settings_of
from llmops_assets.evaluation.suites import Item
from llmops_assets.records.evaluation import JudgeControls
from llmops_assets.specs.evaluation_rules import JudgeEndpoint

MOST = 12


def controls(endpoint: JudgeEndpoint, items: Sequence[Item], cache: Path) -> JudgeControls:
    """How the judge did on up to MOST `items`: each reference beside a wrong answer, in both orders.

    Verdicts are kept like those on answers. Raises JudgeError.
    """
    known = KnownVerdicts(Path(cache) / f"judge-{digest(json.dumps(settings_of(endpoint), sort_keys=True))}.jsonl")
    reply = replies_of(endpoint)
    chosen = items[:: max(1, len(items) // MOST)][:MOST]
    pairs = [(item, wrong) for item in chosen if (wrong := _wrong(item, items)) is not None]

    def both(pair: tuple[Item, str]) -> tuple[str, str]:
        item, wrong = pair
        right = item.references[0]
        return known.get(item.question, right, wrong, reply), known.get(item.question, wrong, right, reply)

    with ThreadPoolExecutor(endpoint.concurrency) as pool:
        found = list(pool.map(both, pairs))
    return JudgeControls(
        asked=len(found),
        right=found.count(("A", "B")),
        turned=sum(one == other and one in ("A", "B") for one, other in found),
        ties=found.count(("TIE", "TIE")),
        reversed=found.count(("B", "A")),
    )


def _wrong(item: Item, items: Sequence[Item]) -> str | None:
    """What is no answer to an item: the reference of another one, or where all have the same, its own question."""
    own = set(item.references)
    others = [other.references[0] for other in items if not own & set(other.references)]
    if others:
        # Not the same wrong answer for each.
        return others[int(digest(item.key), 16) % len(others)]
    return item.question if item.question not in own else None
