"""Reads published benchmarks from a user's local files into the rows of a suite: KoBEST, KLUE and those of `published`.

The wording of the questions is this project's own, so figures compare models with each other here and not with
published tables; for those run the benchmark's task by lm-evaluation-harness (`harness`). Every row has `messages` (the
question and the right answer) and `metadata`, as any conversation that is registered.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.evaluation import published
from llmops_assets.specs.suite import SuiteSpec

Row = dict[str, Any]
MOST_FAULTS = 50
"""Faults of a file that are named; of the others the number."""


class FormatError(ValueError):
    """A file that is not what its format says; the message names file, line and field."""


Reader = Callable[[Path], Iterator["Row | FormatError"]]


@dataclass(frozen=True)
class Format:
    """How one benchmark is read and judged."""

    what: str
    read: Reader
    spec: SuiteSpec


def rows_of(name: str, path: Path) -> list[Row]:
    """The rows of a file in the format `name`; raises FormatError for a file that is not in it, or is empty."""
    if name not in FORMATS:
        raise FormatError(f"there is no format {name!r}: known are {', '.join(FORMATS)}, or any file of conversations")
    if not path.is_file():
        raise FormatError(f"there is no file {path}: {name} reads one file, {FORMATS[name].what}")
    rows, faults = [], []
    for row in FORMATS[name].read(path):
        (faults if isinstance(row, FormatError) else rows).append(row)
    if faults:
        shown = "\n".join(map(str, faults[:MOST_FAULTS]))
        more = f"\n… and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise FormatError(shown + more)
    if not rows:
        raise FormatError(f"{path} has no rows of {name}")
    return rows


def _choice(question: str, choices: Iterable[str], right: int, category: str, **metadata: Any) -> Row:
    choices = list(choices)
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": choices[right]}],
        "metadata": {"category": category, "choices": choices, **metadata},
    }


_Located = tuple[str, dict[str, Any]]


def _each(
    rows: Iterable["_Located | FormatError"], make: Callable[[str, dict[str, Any]], Row]
) -> Iterator["Row | FormatError"]:
    """What `make` makes of each (place, row); where it cannot, or there is a fault already, the fault."""
    for row in rows:
        try:
            yield row if isinstance(row, FormatError) else make(*row)
        except FormatError as fault:
            yield fault


def _table(path: Path, columns: Iterable[str]) -> Iterator["_Located | FormatError"]:
    """(place, row) of a tab-separated file whose header has `columns`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise FormatError(
                f"{path}:1: has no column {', '.join(missing)}; its columns are {', '.join(reader.fieldnames or [])}"
            )
        for row in reader:
            place = f"{path}:{reader.line_num}"
            if empty := [name for name in columns if not (row[name] or "").strip()]:
                yield FormatError(f"{place}: {', '.join(empty)} is empty")
                continue
            yield place, row


def _label(value: Any, place: str, field: str, labels: Mapping[str, int]) -> int:
    """The position that a label stands for, whatever its case."""
    if str(value).strip().lower() not in labels:
        raise FormatError(f"{place}: {field} is {value!r}, expected one of {', '.join(labels)}")
    return labels[str(value).strip().lower()]


_TRUTH = {"false": 0, "true": 1, "0": 0, "1": 1}


def _boolq(place: str, row: dict[str, Any]) -> Row:
    right = _label(row["Answer"], place, "Answer", _TRUTH)
    question = f"{row['Text']}\n\n질문: {row['Question']}\n예 또는 아니요로 답하세요."
    return _choice(question, ("아니요", "예"), right, ("no", "yes")[right])


_ASKED = {"결과": "그 결과로 이어질 일은 무엇인가요?", "원인": "그렇게 된 까닭은 무엇인가요?"}


def _copa(place: str, row: dict[str, Any]) -> Row:
    if row["question"] not in _ASKED:
        raise FormatError(f"{place}: question is {row['question']!r}, expected one of {', '.join(_ASKED)}")
    right = _label(row["Answer"], place, "Answer", {"1": 0, "2": 1})
    question = f"{row['sentence']}\n{_ASKED[row['question']]}"
    return _choice(question, (row["1"], row["2"]), right, {"결과": "effect", "원인": "cause"}[row["question"]])


_ENDINGS = tuple(f"choice{n}" for n in range(1, 5))


def _hellaswag(place: str, row: dict[str, Any]) -> Row:
    right = _label(row["label"], place, "label", {str(n): n for n in range(4)})
    question = f"{row['context']}\n이어질 문장은 무엇인가요?"
    return _choice(question, [row[name] for name in _ENDINGS], right, "hellaswag")


def _sentineg(place: str, row: dict[str, Any]) -> Row:
    right = _label(row["Label"], place, "Label", _TRUTH)
    question = f"상품평: {row['Text']}\n이 상품평은 긍정인가요, 부정인가요?"
    return _choice(question, ("부정", "긍정"), right, ("negative", "positive")[right])


def _wic(place: str, row: dict[str, Any]) -> Row:
    right = _label(row["ANSWER"], place, "ANSWER", _TRUTH)
    question = (
        f"문장 1: {row['SENTENCE1']}\n문장 2: {row['SENTENCE2']}\n"
        f"두 문장에서 '{row['Target']}'의 뜻이 같은가요? 예 또는 아니요로 답하세요."
    )
    return _choice(question, ("아니요", "예"), right, ("different", "same")[right])


def _json_rows(path: Path, fields: Iterable[str]) -> Iterator["_Located | FormatError"]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise FormatError(f"{path} is no JSON: {error}") from error
    if not isinstance(rows, list):
        raise FormatError(f"{path} should hold a list of objects")
    for number, row in enumerate(rows):
        place = f"{path}[{number}]"
        missing = [name for name in fields if not isinstance(row, dict) or name not in row]
        if missing:
            yield FormatError(f"{place}: has no field {', '.join(missing)}")
            continue
        yield place, row


_NLI = {"entailment": 0, "neutral": 1, "contradiction": 2}
_TOPICS = ("IT과학", "경제", "사회", "생활문화", "세계", "스포츠", "정치")


def _nli(place: str, row: dict[str, Any]) -> Row:
    right = _label(row["gold_label"], place, "gold_label", _NLI)
    question = (
        f"전제: {row['premise']}\n가설: {row['hypothesis']}\n전제가 참일 때 가설은 참인가요, 거짓인가요, 알 수 없나요?"
    )
    return _choice(question, ("참", "알 수 없음", "거짓"), right, row["gold_label"])


def _sts(place: str, row: dict[str, Any]) -> Row:
    if not isinstance(row["labels"], dict):
        raise FormatError(f"{place}: labels is no object")
    right = _label(str(row["labels"].get("binary-label")), place, "labels.binary-label", {"0": 0, "1": 1})
    question = (
        f"문장 1: {row['sentence1']}\n문장 2: {row['sentence2']}\n두 문장의 뜻이 비슷한가요? 예 또는 아니요로 답하세요."
    )
    score = row["labels"].get("label")
    return _choice(question, ("아니요", "예"), right, ("different", "similar")[right], similarity=score)


def _tc(place: str, row: dict[str, Any]) -> Row:
    if row["label"] not in _TOPICS:
        raise FormatError(f"{place}: label is {row['label']!r}, expected one of {', '.join(_TOPICS)}")
    question = f"제목: {row['title']}\n이 기사는 어느 분야인가요? {', '.join(_TOPICS)} 가운데 하나로 답하세요."
    return _choice(question, _TOPICS, _TOPICS.index(row["label"]), row["label"])


NO_ENTITY = "없음"


def _ner(path: Path) -> Iterator["Row | FormatError"]:
    letters: list[str] = []
    tags: list[str] = []
    for number, line in enumerate([*path.read_text(encoding="utf-8-sig").split("\n"), ""], 1):
        if line.startswith("##"):
            continue
        if line.strip("\r"):
            letter, found, tag = line.rstrip("\r").partition("\t")
            if not found or not letter or (tag != "O" and tag[:2] not in ("B-", "I-")):
                raise FormatError(f"{path}:{number}: expected a character, a tab and a tag such as B-PS or O")
            letters.append(letter)
            tags.append(tag)
        elif letters:
            question = (
                f"문장: {''.join(letters)}\n개체명을 '낱말:종류'로 적고 '; '로 나누세요. "
                f"종류는 PS, LC, OG, DT, TI, QT이고, 없으면 '{NO_ENTITY}'이라고 적으세요."
            )
            found_entities = entities(letters, tags)
            answer = "; ".join(f"{text}:{kind}" for text, kind in found_entities) or NO_ENTITY
            yield {
                "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
                "metadata": {"category": "with entities" if found_entities else "without"},
            }
            letters, tags = [], []


def entities(letters: Iterable[str], tags: Iterable[str]) -> list[tuple[str, str]]:
    """(text, kind) of the spans that character-level BIO tags mark."""
    spans: list[tuple[list[str], str]] = []
    inside = False
    for letter, tag in zip(letters, tags, strict=True):
        if tag.startswith("B-") or (tag.startswith("I-") and not inside):
            spans.append(([letter], tag[2:]))
        elif tag.startswith("I-"):
            spans[-1][0].append(letter)
        inside = tag != "O"
    return [("".join(text).strip(), kind) for text, kind in spans]


def _lines(columns: Sequence[str], make: Callable[[str, dict[str, Any]], Row]) -> Reader:
    return lambda path: _each(_table(path, columns), make)


def _objects(fields: Sequence[str], make: Callable[[str, dict[str, Any]], Row]) -> Reader:
    return lambda path: _each(_json_rows(path, fields), make)


def _questions(name: str) -> Reader:
    def read(path: Path) -> Iterator["Row | FormatError"]:
        for row in published.rows(name, path):
            yield FormatError(row) if isinstance(row, str) else row

    return read


def _published(**more: Any) -> SuiteSpec:
    return SuiteSpec(**{"judge": "multiple_choice", "as_published": True, "general": True} | more)


# Choices that are sentences of different lengths are compared by the likelihood of a character (of a syllable, in
# Hangul); choices that are fixed labels by that of the whole label, as lm-evaluation-harness's `acc` does.
_SENTENCES = {"length_norm": "characters"}
FORMATS: dict[str, Format] = {
    "kobest-boolq": Format(
        "KoBEST BoolQ (TSV: Text, Question, Answer)",
        _lines(("Text", "Question", "Answer"), _boolq),
        _published(format="kobest-boolq"),
    ),
    "kobest-copa": Format(
        "KoBEST COPA (TSV: sentence, question, 1, 2, Answer)",
        _lines(("sentence", "question", "1", "2", "Answer"), _copa),
        _published(format="kobest-copa", **_SENTENCES),
    ),
    "kobest-hellaswag": Format(
        "KoBEST HellaSwag (TSV: context, choice1 to choice4, label)",
        _lines(("context", *_ENDINGS, "label"), _hellaswag),
        _published(format="kobest-hellaswag", **_SENTENCES),
    ),
    "kobest-sentineg": Format(
        "KoBEST SentiNeg (TSV: Label, Text)", _lines(("Label", "Text"), _sentineg), _published(format="kobest-sentineg")
    ),
    "kobest-wic": Format(
        "KoBEST WiC (TSV: Target, SENTENCE1, SENTENCE2, ANSWER)",
        _lines(("Target", "SENTENCE1", "SENTENCE2", "ANSWER"), _wic),
        _published(format="kobest-wic"),
    ),
    "klue-nli": Format(
        "KLUE NLI (JSON: premise, hypothesis, gold_label)",
        _objects(("premise", "hypothesis", "gold_label"), _nli),
        _published(format="klue-nli"),
    ),
    "klue-sts": Format(
        "KLUE STS (JSON: sentence1, sentence2, labels)",
        _objects(("sentence1", "sentence2", "labels"), _sts),
        _published(format="klue-sts"),
    ),
    "klue-tc": Format(
        "KLUE TC, or YNAT (JSON: title, label)", _objects(("title", "label"), _tc), _published(format="klue-tc")
    ),
    "klue-ner": Format(
        "KLUE NER (TSV: a character and its tag a line)",
        _ner,
        _published(format="klue-ner", judge="exact", metrics=["entity_f1"]),
    ),
    **{
        name: Format(what, _questions(name), _published(format=name, **more))
        for name, (what, more) in published.BENCHMARKS.items()
    },
}
"""The benchmarks that can be read, by the name that `llmops suite add --format` takes."""
