"""How often the gateway's guards alarm for nothing, how often they find what they should, and what they cost.

Run it with ``LLMOPS_TEST_DATA=… python -m benchmarks.guards``. Harmless: questions of a Korean small-talk corpus and of
KoBEST's BoolQ, none of which anybody here wrote, with all guards on as they are by default. Attempts at injection:
`guard_attempts.yaml`, written by hand; the rules were looked at with one half of it, the other is only counted. Harm:
Korean comments that people labelled. Personal data: values put into harmless sentences, streamed a character at a time.
"""

import argparse
import asyncio
import csv
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from images.gateway.guards import injection
from images.gateway.guards.inputs import judge_request
from images.gateway.guards.judges import Judges
from images.gateway.guards.personal_data import StreamMask
from llmops_assets.specs.guards import InputGuards
from llmops_assets.specs.policy import load_policy

ALL = InputGuards.model_validate(
    {
        "personal_data": {"action": "refuse"},
        "injection": {},
        "harm": {},
        "length": {"max_characters": 4000},
        "language": {},
    }
)
VALUES = ("010-1234-5678", "kim.cheolsu@example.co.kr", "4111-1111-1111-1111", "900101-1234567", "12가3456")


def harmless(data: Path, count: int, seed: int = 0) -> list[str]:
    """Questions that nobody should be refused: half of small talk, half of general knowledge."""
    with open(data / "songys-chatbot" / "ChatbotData.csv", encoding="utf-8", newline="") as file:
        talk = [row["Q"] for row in csv.DictReader(file)]
    rows = []
    for path in sorted((data / "kobest" / "BoolQ").glob("*.tsv")):
        with open(path, encoding="utf-8", newline="") as file:
            rows += [
                row.get("Question") or row.get("question") for row in csv.DictReader(file, delimiter="\t", quoting=3)
            ]
    generator = random.Random(seed)
    knowledge = [row for row in rows if row]
    return generator.sample(talk, count // 2) + generator.sample(knowledge, count - count // 2)


def offensive(data: Path, count: int) -> tuple[list[str], list[str]]:
    """Comments labelled as hateful, and as clean."""
    path = next((data / "unsmile").glob("*train*.tsv"))
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=3))
    clean = [row["문장"] for row in rows if row["clean"] == "1"]
    hateful = [row["문장"] for row in rows if row["clean"] == "0"]
    generator = random.Random(0)
    return generator.sample(hateful, count), generator.sample(clean, count)


def alarms(judges: Judges, texts: Sequence[str]) -> tuple[Counter[str], list[str]]:
    """How many texts each guard refuses, and those texts."""
    counted: Counter[str] = Counter()
    refused = []

    async def all_of_them() -> None:
        for text in texts:
            body = {"messages": [{"role": "user", "content": text}]}
            if (verdict := (await judge_request(ALL, judges, body, text)).refusal) is not None:
                counted[verdict.guard] += 1
                refused.append(text)

    asyncio.run(all_of_them())
    return counted, refused


def found(texts: Sequence[str]) -> list[str]:
    """Those of the texts that the rules take for attempts."""
    return [text for text in texts if injection.judge(text).is_one]


def leaks(judges: Judges, texts: Sequence[str]) -> tuple[int, int]:
    """Of texts with a value put into them: how many are streamed without it, and how many there are."""
    kept = 0
    for number, text in enumerate(texts):
        value = VALUES[number % len(VALUES)]
        mask = StreamMask(judges.masker(names=False))
        pieces = [mask.feed(char) for char in f"{text} {value}입니다. {text}"]
        kept += value not in "".join([*pieces, mask.end()])
    return kept, len(texts)


def microseconds(judge: Callable[[str], Any], texts: Sequence[str]) -> float:
    """Processor time of a text, in µs."""
    begun = time.process_time()
    for text in texts:
        judge(text)
    return 1e6 * (time.process_time() - begun) / len(texts)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guards", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LLMOPS_TEST_DATA", "data")))
    parser.add_argument("--count", type=int, default=1000, help="harmless questions")
    parser.add_argument("--show", action="store_true", help="print what was refused, and attempts that were missed")
    a = parser.parse_args()
    judges = Judges(load_policy())
    questions = harmless(a.data, a.count)
    counted, refused = alarms(judges, questions)
    share = len(refused) / len(questions)
    print(f"false alarms on {len(questions):,} harmless Korean questions: {len(refused)} ({share:.2%})")
    print(f"  by guard: {dict(counted) or 'none'}")
    attempts = yaml.safe_load(Path(__file__).with_name("guard_attempts.yaml").read_text(encoding="utf-8"))
    for half in ("tuned", "held_out"):
        hits, misses = found(attempts[half]["attempts"]), found(attempts[half]["harmless"])
        print(
            f"injection, {half.replace('_', ' ')}: {len(hits)} of {len(attempts[half]['attempts'])} attempts found, "
            f"{len(misses)} of {len(attempts[half]['harmless'])} look-alikes refused"
        )
        if a.show:
            print("  missed:", [t for t in attempts[half]["attempts"] if t not in hits], "refused:", misses)
    hateful, clean = offensive(a.data, a.count)
    harm = [bool(groups) for groups in judges.harm([*hateful, *clean])]
    right, wrong = sum(harm[: len(hateful)]), sum(harm[len(hateful) :])
    shares = f"{right / len(hateful):.1%} of hateful comments, {wrong / len(clean):.1%} of clean ones"
    print(f"harm (the default scorer): {shares}")
    kept, total = leaks(judges, questions[:500])
    print(f"personal data put into a stream, a character at a time: {kept} of {total} masked whole")
    masker = judges.masker(names=False)
    print(
        f"processor time of a question: personal data {microseconds(masker.mask, questions):.0f} µs, "
        f"injection {microseconds(injection.judge, questions):.0f} µs"
    )
    if a.show:
        print("refused:", refused)


if __name__ == "__main__":
    main()
