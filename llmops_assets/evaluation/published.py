"""Published benchmarks whose rows carry their own keys (MMLU, HellaSwag, ARC, GSM8K …): JSON, CSV or Parquet."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from upath import UPath

from llmops_assets.datasets.reading.questions import category_of, question
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.readers import read_file

_SENTENCES = {"length_norm": "characters"}
BENCHMARKS: dict[str, tuple[str, dict[str, Any]]] = {
    "mmlu": (
        "MMLU (CSV without header: question, A to D, letter; or question, choices, answer; MMLU-Pro's options)",
        {},
    ),
    "kmmlu": ("KMMLU (question, A to D, answer 1 to 4)", {}),
    "hellaswag": ("HellaSwag (ctx, endings, label, activity_label)", _SENTENCES),
    "arc": ("ARC (question.stem and choices, or question and choices of text and label; answerKey)", {}),
    "commonsenseqa": ("CommonsenseQA and OpenBookQA (question or question_stem, choices, answerKey)", {}),
    "boolq": ("BoolQ (passage, question, answer true or false)", {}),
    "piqa": ("PIQA (goal, sol1, sol2, label)", _SENTENCES),
    "copa": ("COPA (premise, question, choice1 and choice2 or alternative_1 and alternative_2, label)", _SENTENCES),
    "winogrande": ("WinoGrande (sentence with _, option1, option2, answer 1 or 2)", {}),
    "truthfulqa": ("TruthfulQA's mc1 (question, mc1_targets)", _SENTENCES),
    "race": ("RACE (article, question, options, answer)", {}),
    "medmcqa": ("MedMCQA (question, opa to opd, cop from 0)", {}),
    "gsm8k": ("GSM8K (question, answer that ends in #### and a number)", {"judge": "number"}),
    "lambada": ("LAMBADA (text, of which the last word is asked)", {"judge": "exact"}),
}
"""What `llmops suite add --format` takes beside KoBEST and KLUE: what is read, and how it is judged."""


def rows(name: str, path: Path) -> Iterator[dict[str, Any] | str]:
    """The rows of a file of the benchmark `name`, or what is wrong with one, with its place."""
    if name == "mmlu" and has_no_header(path):
        yield from _mmlu_csv(path)
        return
    for raw in read_file(UPath(path)):
        place = f"{path}:{raw.line}"
        if raw.fault is not None:
            yield f"{place}: {raw.fault.reason}"
            continue
        try:
            yield _row(name, raw.value)
        except RowFault as fault:
            yield f"{place}: {fault.field + ': ' if fault.field else ''}{fault.reason}"


def has_no_header(path: Path) -> bool:
    """Whether a CSV is MMLU's as its authors publish it: question, four options and a letter from the first line on."""
    if not path.name.lower().endswith(".csv"):
        return False
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except (UnicodeDecodeError, csv.Error, OSError):
        return False
    return len(first) == 6 and first[5].strip() in ("A", "B", "C", "D") and first[1:5] != ["A", "B", "C", "D"]


def _mmlu_csv(path: Path) -> Iterator[dict[str, Any] | str]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                place = f"{path}:{reader.line_num}"
                if not cells:
                    continue
                if len(cells) != 6:
                    yield f"{place}: {len(cells)} cells where MMLU has 6: question, A, B, C, D, letter"
                    continue
                try:
                    yield _row("mmlu", dict(zip(("question", "A", "B", "C", "D", "answer"), cells, strict=True)))
                except RowFault as fault:
                    yield f"{place}: {fault.field}: {fault.reason}"
        except csv.Error as error:
            yield f"{path}:{reader.line_num}: {error}"


def _row(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise RowFault("", "expected an object")
    category = category_of(value)
    metadata: dict[str, Any] = {"category": category} if category else {}
    if name in ("gsm8k", "lambada"):
        asked, answer = _gsm8k(value) if name == "gsm8k" else _lambada(value)
    else:
        found = question(value)
        if found is None:
            raise RowFault("", f"found {', '.join(list(value)[:12])}; expected {BENCHMARKS[name][0]}")
        (_, asked), (_, answer) = found.content()["messages"]
        metadata |= found.metadata()
    return {
        "messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}],
        "metadata": metadata,
    }


def _gsm8k(value: dict[str, Any]) -> tuple[str, str]:
    asked, answer = value.get("question"), value.get("answer")
    if not isinstance(asked, str) or not asked.strip() or not isinstance(answer, str):
        raise RowFault("question", "expected question and answer, both text")
    _, marker, number = answer.rpartition("####")
    if not marker or not number.strip():
        raise RowFault("answer", "no #### with the number behind it")
    return asked, number.strip()


def _lambada(value: dict[str, Any]) -> tuple[str, str]:
    text = value.get("text")
    if not isinstance(text, str) or " " not in text.strip():
        raise RowFault("text", "expected a text of several words")
    begin, _, last = text.strip().rpartition(" ")
    return f"{begin}\n\nWhich single word comes next? Answer with the word alone.", last.strip(".,!?\"'")
