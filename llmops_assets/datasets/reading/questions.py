"""Rows of published multiple-choice benchmarks: which keys say question, options and answer, and what they come to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of, text_of

MOST_OPTIONS = 26
_LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")
_CATEGORIES = ("category", "Category", "subject", "Subject", "activity_label")


@dataclass(frozen=True)
class Question:
    """A question with its options; `lettered` ones are shown to the model behind letters and answered by a letter.

    `right` is the position of the right option, `used` the keys of the row that are in it. Options that are not
    lettered are compared as texts, by the likelihood of a character where they are `sentences`.
    """

    shape: str
    asked: str
    options: list[str]
    right: int
    used: frozenset[str]
    lettered: bool = True
    sentences: bool = False

    def content(self) -> dict[str, Any]:
        """The conversation: the question as it is asked, and the right answer to it."""
        asked, letters = self.asked, ascii_uppercase[: len(self.options)]
        if self.lettered:
            listed = (f"{letter}. {option}" for letter, option in zip(letters, self.options, strict=True))
            asked = "\n".join([self.asked.rstrip(), *listed])
        answer = letters[self.right] if self.lettered else self.options[self.right]
        return {"messages": [("user", asked), ("assistant", answer)], "tools": None}

    def metadata(self) -> dict[str, Any]:
        """What an evaluation needs beside the conversation."""
        found: dict[str, Any] = {"choices": list(ascii_uppercase[: len(self.options)])} if self.lettered else {}
        found |= {"options": self.options} if self.lettered else {"choices": self.options}
        return found | ({"length_norm": "characters"} if self.sentences else {})


def question(row: Mapping[str, Any]) -> Question | None:
    """The question that a row of a known benchmark asks, or None where its keys are no benchmark's.

    Raises RowFault where they are, and the answer is none of the options, an option is empty or two are the same.
    """
    for keys, read in _SHAPES:
        if keys <= row.keys():
            found = read(row)
            if found is not None:
                _check(found)
                return found
    return None


def category_of(row: Mapping[str, Any]) -> str | None:
    """The category under any of the names that benchmarks have for it."""
    return next((row[name] for name in _CATEGORIES if isinstance(row.get(name), str) and row[name]), None)


def _check(found: Question) -> None:
    where = found.shape
    if not found.asked.strip():
        raise RowFault("question", f"an empty question ({where})")
    if not 2 <= len(found.options) <= MOST_OPTIONS:
        raise RowFault("choices", f"{len(found.options)} options: a question has 2 to {MOST_OPTIONS} ({where})")
    for number, option in enumerate(found.options):
        if not option.strip():
            raise RowFault("choices", f"option {ascii_uppercase[number]} is empty ({where})")
        if option in found.options[:number]:
            raise RowFault("choices", f"option {ascii_uppercase[number]} is there twice: {option[:60]!r} ({where})")


def _texts(value: Any, field: str) -> list[str]:
    if not isinstance(value, (list, tuple)):
        raise RowFault(field, f"expected a list of options, got {kind_of(value)}")
    found = []
    for number, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise RowFault(f"{field}[{number}]", f"expected text, got {kind_of(item)}")
        found.append(str(item))
    return found


def _whole(value: Any) -> int | None:
    """A number that is written as one or as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == -1 or value == "-1"


def _position(value: Any, options: Sequence[str], field: str, first: int, labels: Sequence[str] = ()) -> int:
    """Where the right option stands, from a letter, a label, a number counted from `first`, or the option's words."""
    if _missing(value):
        raise RowFault(field, "no answer: some benchmarks publish their test split without; take the one that has them")
    text = str(value).strip()
    if labels and text in labels:
        return labels.index(text)
    bare = text.strip("().[] ").upper()
    number = _whole(value)
    by_text = [n for n, option in enumerate(options) if option.strip() == text]
    by_letter = ascii_uppercase.find(bare) if len(bare) == 1 and bare in ascii_uppercase[: len(options)] else None
    by_number = number - first if number is not None and 0 <= number - first < len(options) else None
    found = {*by_text, *(n for n in (by_letter, by_number) if n is not None)}
    if len(found) == 1:
        return found.pop()
    if found:
        raise RowFault(
            field,
            f"{value!r} is an option's text and another one's place: write the letter of the right option",
        )
    counted = f" (numbers count from {first})" if number is not None else ""
    raise RowFault(field, f"{value!r} names none of the {len(options)} options{counted}: {', '.join(options)[:120]}")


def _answer_key(row: Mapping[str, Any]) -> str:
    names = ("answer", "answerKey", "answer_key", "correct", "label", "answer_index", "response", "정답")
    name = next((name for name in names if name in row), None)
    if name is None:
        raise RowFault("answer", f"options, and no answer among {', '.join(list(row)[:12])}")
    return name


_CONTEXTS = ("passage", "article", "paragraph", "context", "지문")


def _about(row: Mapping[str, Any], asked: str) -> tuple[str, set[str]]:
    """The question behind the passage that it is about."""
    for name in _CONTEXTS:
        if isinstance(row.get(name), str) and row[name].strip():
            return f"{row[name]}\n\n{asked}", {name}
    return asked, set()


def _question_field(row: Mapping[str, Any]) -> str:
    return next((n for n in ("question", "Question", "query", "question_stem", "질문") if n in row), "question")


def _columns(row: Mapping[str, Any]) -> Question | None:
    """MMLU's CSV and KMMLU's: question, A, B, C, D and the answer, a letter or a number that counts from 1."""
    names = [name for name in _LETTERS if name in row and not _missing(row[name])]
    if names != list(_LETTERS[: len(names)]):
        raise RowFault(next(n for n in _LETTERS if n not in names), "an option is missing between others")
    field, key = _question_field(row), _answer_key(row)
    asked, about = _about(row, text_of(row[field], field))
    options = _texts([row[name] for name in names], "A")
    used = {field, key, *about, *(name for name in _LETTERS if name in row)}
    return Question("columns A, B, …", asked, options, _position(row[key], options, key, 1), frozenset(used))


def _listed(row: Mapping[str, Any]) -> Question | None:
    """HF's MMLU (choices, the answer counts from 0), MMLU-Pro, RACE and AQuA (options), ARC and CommonsenseQA
    (choices of text and label)."""
    field = _question_field(row)
    asked, name, choices, used = row[field], "choices", row.get("choices"), {field}
    if isinstance(asked, dict):
        choices, asked = asked.get("choices"), asked.get("stem")
    elif choices is None:
        name, choices = "options", row.get("options")
    if choices is None or not isinstance(asked, str):
        return None
    used.add(name)
    asked, about = _about(row, text_of(asked, field))
    labels: list[str] = []
    if isinstance(choices, dict):
        labels, choices = _texts(choices.get("label", []), f"{name}.label"), choices.get("text")
    elif isinstance(choices, list) and choices and isinstance(choices[0], dict):
        labels = _texts([choice.get("label") for choice in choices if isinstance(choice, dict)], f"{name}.label")
        choices = [choice.get("text") for choice in choices if isinstance(choice, dict)]
    elif isinstance(choices, str):
        raise RowFault(name, "options in one text: write them as a list, or in columns A, B, C, D")
    options = _texts(choices, name)
    if options and all(o[:2] in (f"{c})", f"{c}.") for o, c in zip(options, ascii_uppercase, strict=False)):
        options = [option[2:].strip() for option in options]
    if labels and len(labels) != len(options):
        raise RowFault(name, f"{len(options)} texts and {len(labels)} labels")
    key = _answer_key(row)
    right = _position(row[key], options, key, 0, labels)
    extra = {"answer_index"} if "answer_index" in row else set()
    # An answer in the words of an option is likely or not as those words; a letter or a place is one of a list.
    lettered = str(row[key]).strip() != options[right].strip()
    return Question("question and choices", asked, options, right, frozenset({*used, key, *about, *extra}), lettered)


def _hellaswag(row: Mapping[str, Any]) -> Question | None:
    begin = row["ctx"] if "ctx" in row else f"{row.get('ctx_a') or ''} {row.get('ctx_b') or ''}".strip()
    topic = f"{row['activity_label']}: " if row.get("activity_label") else ""
    endings = _texts(row["endings"], "endings")
    right = _position(row["label"], endings, "label", 0)
    used = {"ctx", "ctx_a", "ctx_b", "endings", "label", "activity_label"} & row.keys()
    return Question("HellaSwag", topic + text_of(begin, "ctx"), endings, right, frozenset(used), False, True)


def _piqa(row: Mapping[str, Any]) -> Question | None:
    options = _texts([row["sol1"], row["sol2"]], "sol1")
    right = _position(row["label"], options, "label", 0)
    return Question(
        "PIQA", text_of(row["goal"], "goal"), options, right, frozenset({"goal", "sol1", "sol2", "label"}), False, True
    )


def _winogrande(row: Mapping[str, Any]) -> Question | None:
    sentence = text_of(row["sentence"], "sentence")
    if sentence.count("_") != 1:
        raise RowFault("sentence", "a sentence of WinoGrande has one _ where the option goes")
    options = _texts([row["option1"], row["option2"]], "option1")
    right = _position(row["answer"], options, "answer", 1)
    return Question("WinoGrande", sentence, options, right, frozenset({"sentence", "option1", "option2", "answer"}))


def _truth(value: Any, field: str) -> int:
    text = str(value).strip().lower()
    if text not in ("true", "false", "0", "1", "yes", "no"):
        raise RowFault(field, f"expected true or false, got {value!r}")
    return int(text in ("true", "1", "yes"))


def _boolq(row: Mapping[str, Any]) -> Question | None:
    key = "answer" if "answer" in row else "label"
    if key not in row or str(row[key]).strip().lower() not in ("true", "false", "0", "1", "yes", "no"):
        return None
    asked = f"{text_of(row['passage'], 'passage')}\n\n{text_of(row['question'], 'question')}\nAnswer yes or no."
    return Question(
        "BoolQ", asked, ["no", "yes"], _truth(row[key], key), frozenset({"passage", "question", key}), False
    )


def _kobest_boolq(row: Mapping[str, Any]) -> Question | None:
    asked = f"{text_of(row['paragraph'], 'paragraph')}\n\n질문: {text_of(row['question'], 'question')}"
    asked += "\n예 또는 아니요로 답하세요."
    used = frozenset({"paragraph", "question", "label"})
    return Question("KoBEST BoolQ", asked, ["아니요", "예"], _truth(row["label"], "label"), used, False)


_WHY = {
    "결과": "그 결과로 이어질 일은 무엇인가요?",
    "원인": "그렇게 된 까닭은 무엇인가요?",
    "effect": "What happened as a result?",
    "cause": "What was the cause?",
}


def _copa(row: Mapping[str, Any]) -> Question | None:
    names = ("alternative_1", "alternative_2") if "alternative_1" in row else ("choice1", "choice2")
    if row["question"] not in _WHY:
        raise RowFault("question", f"{row['question']!r} is none of {', '.join(_WHY)}")
    options = _texts([row[name] for name in names], names[0])
    asked = f"{text_of(row['premise'], 'premise')}\n{_WHY[row['question']]}"
    right = _position(row["label"], options, "label", 0)
    return Question("COPA", asked, options, right, frozenset({"premise", "question", "label", *names}), False, True)


def _kobest_hellaswag(row: Mapping[str, Any]) -> Question | None:
    names = [f"{'ending_' if 'ending_1' in row else 'choice'}{n}" for n in range(1, 5)]
    options = _texts([row[name] for name in names], names[0])
    asked = f"{text_of(row['context'], 'context')}\n이어질 문장은 무엇인가요?"
    right = _position(row["label"], options, "label", 0)
    return Question("KoBEST HellaSwag", asked, options, right, frozenset({"context", "label", *names}), False, True)


def _kobest_wic(row: Mapping[str, Any]) -> Question | None:
    asked = (
        f"문장 1: {text_of(row['context_1'], 'context_1')}\n문장 2: {text_of(row['context_2'], 'context_2')}\n"
        f"두 문장에서 '{text_of(row['word'], 'word')}'의 뜻이 같은가요? 예 또는 아니요로 답하세요."
    )
    used = frozenset({"word", "context_1", "context_2", "label"})
    return Question("KoBEST WiC", asked, ["아니요", "예"], _truth(row["label"], "label"), used, False)


def _truthfulqa(row: Mapping[str, Any]) -> Question | None:
    targets = row["mc1_targets"]
    if not isinstance(targets, dict):
        raise RowFault("mc1_targets", f"expected an object, got {kind_of(targets)}")
    if "choices" in targets:
        options, labels = _texts(targets["choices"], "mc1_targets.choices"), list(targets.get("labels") or [])
    else:
        options, labels = list(targets), list(targets.values())
    if len(labels) != len(options) or sum(label == 1 for label in labels) != 1:
        raise RowFault("mc1_targets.labels", f"{len(options)} options need as many labels, one of them 1")
    used = frozenset({"question", "mc1_targets"})
    return Question("TruthfulQA", text_of(row["question"], "question"), options, labels.index(1), used, False, True)


def _medmcqa(row: Mapping[str, Any]) -> Question | None:
    names = ("opa", "opb", "opc", "opd")
    options = _texts([row[name] for name in names], "opa")
    right = _position(row["cop"], options, "cop", 0)
    return Question(
        "MedMCQA", text_of(row["question"], "question"), options, right, frozenset({"question", "cop", *names})
    )


_Shape = tuple[frozenset[str], Callable[[Mapping[str, Any]], Question | None]]
_SHAPES: list[_Shape] = [
    (frozenset({"ctx", "endings", "label"}), _hellaswag),
    (frozenset({"ctx_a", "endings", "label"}), _hellaswag),
    (frozenset({"goal", "sol1", "sol2", "label"}), _piqa),
    (frozenset({"sentence", "option1", "option2", "answer"}), _winogrande),
    (frozenset({"question", "mc1_targets"}), _truthfulqa),
    (frozenset({"question", "opa", "opb", "opc", "opd", "cop"}), _medmcqa),
    (frozenset({"premise", "question", "alternative_1", "alternative_2", "label"}), _copa),
    (frozenset({"premise", "question", "choice1", "choice2", "label"}), _copa),
    (frozenset({"context", "ending_1", "ending_2", "ending_3", "ending_4", "label"}), _kobest_hellaswag),
    (frozenset({"context", "choice1", "choice2", "choice3", "choice4", "label"}), _kobest_hellaswag),
    (frozenset({"word", "context_1", "context_2", "label"}), _kobest_wic),
    (frozenset({"paragraph", "question", "label"}), _kobest_boolq),
    *((frozenset({asked, "A", "B"}), _columns) for asked in ("question", "Question", "query", "질문")),
    *(
        (frozenset({asked, options}), _listed)
        for asked in ("question", "Question", "query", "question_stem", "질문")
        for options in ("choices", "options")
    ),
    (frozenset({"question", "answerKey"}), _listed),
    (frozenset({"passage", "question"}), _boolq),
]  # fmt: skip
"""Keys that are those of a benchmark, and how it is read; the more telling ones first."""
