"""Names of persons on KLUE-NER, beside a surname regex and kiwi's proper nouns: `python -m benchmarks.names`.

Prints precision and recall by exact spans and by overlap, and texts per CPU-second, of each way on the same sentences.
The weights were fitted to these sentences, so the line to go by is the one of five folds: there each sentence is judged
by weights that were fitted to the other four fifths. Its intervals are of 1,000 samples of the sentences. Then how fast
short chats are searched, and how often a name is found where hardly any stands: in translated messages of programs and
manual pages that are installed here (those of Debian), and in small talk (songys-chatbot). `--locked` scores the fifth
of the sentences that nothing was chosen by; `--model FOLDER` a token classifier of yours; `--fit` fits the weights anew
and writes them to `llmops_assets/privacy/name_weights.json`.
"""

import argparse
import csv
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import name_fit, technical_prose
from llmops_assets.privacy.name_model import name_model
from llmops_assets.privacy.name_weights import weights
from llmops_assets.privacy.name_words import kiwi
from llmops_assets.privacy.names import find_names
from llmops_assets.privacy.surnames import SURNAMES
from llmops_assets.specs.dataset_rules import NameModelRules

Spans = list[tuple[int, int]]


def sentences(path: Path) -> list[tuple[str, Spans]]:
    """Sentences and the spans of persons in them, from KLUE's character-level file."""
    found, characters, tags = [], [], []
    for line in [*path.read_text(encoding="utf-8").split("\n"), ""]:
        if line.startswith("## "):
            continue
        if line:
            character, tag = line.split("\t")
            characters.append(character)
            tags.append(tag)
        elif characters:
            found.append(("".join(characters), persons(tags)))
            characters, tags = [], []
    return found


def persons(tags: list[str]) -> Spans:
    """Spans of `B-PS I-PS …`."""
    spans, start = [], None
    for at, tag in enumerate([*tags, "O"]):
        if start is not None and tag != "I-PS":
            spans.append((start, at))
            start = None
        if tag == "B-PS":
            start = at
    return spans


def scores(gold: list[Spans], found: list[Spans]) -> dict[str, float]:
    """Precision and recall of spans: `exact` ones, and those that overlap with one of the other side."""
    wanted, got = sum(map(len, gold)), sum(map(len, found))
    exact = sum(len(set(a) & set(b)) for a, b in zip(gold, found, strict=True))

    def touched(these: list[Spans], those: list[Spans]) -> int:
        return sum(any(x[0] < y[1] and y[0] < x[1] for y in b) for a, b in zip(these, those, strict=True) for x in a)

    return {
        "precision": exact / max(got, 1),
        "recall": exact / max(wanted, 1),
        "precision_overlap": touched(found, gold) / max(got, 1),
        "recall_overlap": touched(gold, found) / max(wanted, 1),
    }


def ours(texts: list[str]) -> list[Spans]:
    return [[(span.start, span.end) for span in spans] for spans in find_names(texts)]


def by_surname(texts: list[str]) -> list[Spans]:
    """What one would write first: a surname and two more syllables at the beginning of a word."""
    pattern = re.compile(rf"(?<![가-힣])[{SURNAMES}][가-힣]{{2}}")
    return [[match.span() for match in pattern.finditer(text)] for text in texts]


def by_proper_noun(texts: list[str]) -> list[Spans]:
    """Every proper noun of the analyser."""
    return [[(t.start, t.start + t.len) for t in tokens if t.tag == "NNP"] for tokens in kiwi().tokenize(texts)]


def interval(gold: list[Spans], found: list[Spans]) -> dict[str, tuple[float, float]]:
    """95 % of precision and of recall over samples of the sentences, drawn with replacement."""
    hits = np.array([len(set(a) & set(b)) for a, b in zip(gold, found, strict=True)])
    drawn = np.random.default_rng(0).integers(0, len(gold), (1000, len(gold)))
    of = {"precision": np.array([*map(len, found)]), "recall": np.array([*map(len, gold)])}
    shares = {name: hits[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for name, counts in of.items()}
    return {name: (float(np.quantile(s, 0.025)), float(np.quantile(s, 0.975))) for name, s in shares.items()}


def line(label: str, gold: list[Spans], found: list[Spans], behind: str = "") -> str:
    s = scores(gold, found)
    overlap = f"({s['precision_overlap']:.3f} {s['recall_overlap']:.3f})"
    return f"{label:36} {s['precision']:9.3f} {s['recall']:7.3f}  {overlap} {behind}"


def chats(path: Path) -> list[str]:
    """Questions and answers of songys-chatbot, one after another, in texts of 60 to 100 characters."""
    found, text = [], ""
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            text = f"{text} {row['Q']} {row['A']}".strip()
            if len(text) >= 60:
                found += [text] if len(text) <= 100 else []
                text = ""
    return found


def print_speed(label: str, texts: list[str]) -> None:
    """Prints how many texts names are looked for in by a CPU-second, each text for the first time."""
    started = time.process_time()
    found = ours(texts)
    rate, length = len(texts) / (time.process_time() - started), sum(map(len, texts)) / len(texts)
    print(
        f"{label}: {len(texts):,} texts of {length:.0f} characters, {rate:,.0f} a CPU-second, "
        f"{sum(map(len, found)):,} names"
    )


def print_false_alarms(label: str, texts: list[str]) -> None:
    """Prints how many names are found in prose that holds hardly any, by 1,000 words."""
    count, found = sum(len(text.split()) for text in texts), sum(map(len, ours(texts)))
    print(f"{label}: {count:,} words, {found:,} names, {1000 * found / max(count, 1):.2f} in 1,000 words")


def labelled(read: list[tuple[str, Spans]], locked: bool) -> list[name_fit.Labelled]:
    """The sentences that are locked away, or the others."""
    return [name_fit.Labelled(text, spans) for text, spans in read if name_fit.is_locked(text) == locked]


def held_out(rows: list[name_fit.Labelled]) -> None:
    """Prints how weights do on sentences that they were not fitted to."""
    gold = [row.names for row in rows]
    found = name_fit.chosen(name_fit.held_out(rows), weights()[1])
    print(line(f"  five folds of {len(rows)}, weights of the others", gold, found))
    print_interval(gold, found)
    for fold in range(name_fit.FOLDS):
        inside = [number for number, row in enumerate(rows) if row.fold == fold]
        print(line(f"    fold {fold + 1}", [gold[i] for i in inside], [found[i] for i in inside]))


def locked_away(read: list[tuple[str, Spans]]) -> None:
    """Prints how weights that are fitted to the other sentences do on those that are locked away."""
    away = labelled(read, locked=True)
    gold = [row.names for row in away]
    found = name_fit.chosen(name_fit.judged(away, name_fit.fit(labelled(read, locked=False))), weights()[1])
    print(line(f"  the {len(away)} locked away", gold, found))
    print_interval(gold, found)


def of_model(folder: str, labels: list[str] | None, texts: list[str], gold: list[Spans]) -> None:
    """Prints how a model of the user's does, by itself and beside ours; it computes in a process of its own."""
    print(f"{'KLUE-NER, ' + str(len(texts)) + ' sentences':36} precision  recall  (overlap)     texts/s")
    for label, instead in (("the model alone", True), ("the model beside ours", False)):
        find = name_model(NameModelRules(model=folder, labels=labels, instead=instead))
        started = time.monotonic()
        found = [[(span.start, span.end) for span in spans] for spans in find(texts)]
        print(line(label, gold, found, f"{len(texts) / (time.monotonic() - started):12,.0f}"))
        print_interval(gold, found)


def print_interval(gold: list[Spans], found: list[Spans]) -> None:
    for name, (low, high) in interval(gold, found).items():
        print(f"    {name}: 95 % interval {low:.3f} to {high:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("LLMOPS_TEST_DATA", "../shared/data")
    parser.add_argument("--data", type=Path, default=Path(default))
    parser.add_argument("--fit", action="store_true", help="fit the weights anew and write them")
    parser.add_argument("--locked", action="store_true", help="score the fifth that nothing is chosen by, and no more")
    parser.add_argument("--model", help="a token classifier's folder: the same figures for it, alone and beside ours")
    parser.add_argument("--labels", nargs="+", help="its labels that mean a person, where they are not the usual ones")
    parser.add_argument(
        "--messages", type=Path, help="false alarms in the catalogs (*.mo) of this folder, nothing else"
    )
    options = parser.parse_args()
    if options.messages:
        print_false_alarms("messages", [*dict.fromkeys(technical_prose.messages(options.messages))])
        return
    read = sentences(options.data / "klue" / "klue-ner-v1.1_dev_first1000.tsv")
    texts, gold = [text for text, _ in read], [spans for _, spans in read]
    if options.fit:
        name_fit.write(name_fit.fit(name_fit.Labelled(text, spans) for text, spans in read))
        return
    if options.model:
        of_model(options.model, options.labels, texts, gold)
        return
    if options.locked:
        locked_away(read)
        return
    ways: dict[str, Callable[[list[str]], list[Spans]]] = {
        "a surname and two syllables": by_surname,
        "kiwi's proper nouns": by_proper_noun,
        "names.find_names": ours,
    }
    # Loading the model and the dictionaries is not part of the rate.
    ours(["홍길동입니다."])
    print(f"{'KLUE-NER, ' + str(len(texts)) + ' sentences':36} precision  recall  (overlap)     texts/CPU-s")
    for name, way in ways.items():
        started = time.process_time()
        found = way(texts)
        rate = len(texts) / (time.process_time() - started)
        print(line(name, gold, found, f"{rate:12,.0f}"))
    held_out(labelled(read, locked=False))
    with (options.data / "songys-chatbot" / "ChatbotData.csv").open(encoding="utf-8") as file:
        talk = [row["Q"] for row in csv.DictReader(file)][:4000]
    print_speed("chats", chats(options.data / "songys-chatbot" / "ChatbotData.csv"))
    print_false_alarms("messages of programs", [*dict.fromkeys(technical_prose.messages())])
    print_false_alarms("manual pages", [*dict.fromkeys(technical_prose.manuals())])
    for name, way in ways.items():
        spans = sum(map(len, way(talk)))
        print(f"small talk, {len(talk):,} questions: {name:30} {spans:6,} spans")


if __name__ == "__main__":
    main()
