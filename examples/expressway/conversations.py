"""Composes the desk's conversations and plants what a platform has to find in them."""

import copy
import json
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from examples.expressway import people
from examples.expressway.distinct import Distinct, jaccard, shingles
from examples.expressway.korean import choose, fill
from examples.expressway.tables import Intent, intents, table

# Rows are kept below this similarity, so that the near duplicates (0.8 and above) are the planted ones and no others.
_LIMIT = 0.77
_ATTEMPTS = 400
_CHANNELS = ("app", "web", "email", "phone")


@dataclass(frozen=True)
class Question:
    """A question as sent, and as it reads with its personal data masked."""

    text: str
    masked: str
    pii: tuple[str, ...] = ()
    look_alike: bool = False


@dataclass
class Written:
    """The lines of the file, shuffled, and what was planted in them."""

    lines: list[str]
    unique: int
    pii: Counter[str]
    pii_rows: int
    look_alikes: int
    typos: int
    greeted: int
    exact_duplicates: int
    near_duplicates: int
    poor_answers: int
    broken: Counter[str]
    rows_by_category: Counter[str]
    rows_by_lang: Counter[str]
    phrasings: int
    answers: dict[str, str] = field(default_factory=dict)


def phrasing(intent: Intent, topic: int, ask: int) -> str:
    """Id of a (topic, ask) pair: what the splits keep apart."""
    return f"{intent.id}.t{topic + 1}a{ask + 1}"


def _words(lang: str, rng: random.Random) -> dict[str, str]:
    phrases = table("phrases")
    words = {name: rng.choice(values) for name, values in phrases["slots"].items()}
    if lang == "en":
        words["city"], words["city2"] = rng.sample(phrases["slots_en"]["city"], 2)
    else:
        words["city"], words["city2"] = rng.sample(phrases["slots"]["city"], 2)
    return words


def _mistyped(text: str, lang: str, rng: random.Random) -> str:
    """The text with one misspelling and, in Korean, sometimes a lost space; unchanged where none fits."""
    fitting = [(right, wrong) for right, wrong in table("phrases")["typos"][lang] if right in text]
    if fitting:
        right, wrong = rng.choice(fitting)
        text = text.replace(right, wrong, 1)
    spaces = [i for i, char in enumerate(text) if char == " "]
    if lang == "ko" and spaces and (not fitting or rng.random() < 0.5):
        lost = rng.choice(spaces)
        text = text[:lost] + text[lost + 1 :]
    return text


def compose(intent: Intent, topic: int, ask: int, rng: random.Random, *, typo: bool, extra: str | None) -> Question:
    """One question: opener, situation, core and closer, each but the core left out at times.

    `extra` adds a sentence: "pii" with personal data, "look_alike" with figures that only look like some.
    """
    phrases, lang = table("phrases"), intent.lang
    core = fill(choose(phrases["asks"][intent.ask][ask], rng), {"t": intent.topics[topic]})
    if typo:
        core = _mistyped(core, lang, rng)
    before = []
    if rng.random() < 0.45:
        before.append(rng.choice(phrases["openers"][lang]))
    if rng.random() < 0.75:
        before.append(fill(rng.choice(phrases["situations"][lang]), _words(lang, rng)))
    after = [rng.choice(phrases["closers"][lang])] if rng.random() < 0.5 else []
    added, masked, types = "", "", []
    if extra == "pii":
        added, masked, types = people.phrase(rng.choice(table("people")["phrases"][lang]), rng, table("people"))
    elif extra == "look_alike":
        figures = {
            "n4": f"{rng.randrange(3000, 9999)}",
            "n3": f"{rng.randrange(100, 400)}",
            "d": str(rng.randrange(1, 10)),
            "amount": f"{rng.randrange(12, 320) * 100:,}",
        }
        added = masked = fill(rng.choice(table("people")["look_alikes"]), figures)
    first = rng.random() < 0.5

    def joined(sentence: str) -> str:
        around = [sentence] if sentence else []
        return " ".join((around if first else []) + before + [core] + after + ([] if first else around))

    return Question(joined(added), joined(masked), tuple(types), extra == "look_alike")


def _row(intent: Intent, question: str, pair: str, channel: str, greeting: tuple[str, str] | None) -> dict[str, Any]:
    turns = [("user", greeting[0]), ("assistant", greeting[1])] if greeting else []
    turns += [("user", question), ("assistant", intent.answer)]
    return {
        "messages": [{"role": role, "content": content} for role, content in turns],
        "metadata": {
            "source": channel,
            "category": intent.category,
            "intent": intent.id,
            "phrasing": pair,
            "lang": intent.lang,
        },
    }


def _nearly(question: str, rng: random.Random) -> str:
    """The question with one or two characters more: a stutter of the keyboard, or a tail."""
    if rng.random() < 0.5:
        return question + rng.choice((" 네", "요", " 꼭", ".."))
    place = rng.choice([i for i in range(4, len(question) - 3) if question[i - 1] != " "])
    return question[:place] + question[place - 1] + question[place:]


def _broken(row: dict[str, Any], reason: str, rng: random.Random) -> str:
    """The row's line, spoilt in one way."""
    row = copy.deepcopy(row)
    messages = row["messages"]
    if reason == "truncated":
        line = json.dumps(row, ensure_ascii=False)
        return line[: rng.randrange(len(line) // 3, len(line) - 10)]
    if reason == "bad_json":
        return json.dumps(row, ensure_ascii=False).replace('"messages":', "'messages':", 1)
    if reason == "wrong_type":
        messages[-1]["content"] = rng.choice((5, True, 2026, ["안내", "완료"]))
    elif reason == "no_assistant":
        del messages[-1]
    elif reason == "unknown_role":
        messages[-1]["role"] = rng.choice(("상담원", "narrator", "desk"))
    elif reason == "empty_answer":
        messages[-1]["content"] = rng.choice(("", "   "))
    else:
        raise ValueError(f"unknown way to break a row: {reason}")
    return json.dumps(row, ensure_ascii=False)


def write_rows(rng: random.Random, counts: dict[str, Any]) -> Written:
    """All lines of `conversations.jsonl`.

    `counts` says how many: `unique`, `exact`, `near`, `poor`, `greeted`, and `broken` by reason; shares `pii`,
    `look_alike` and `typo` of the unique rows. Raises RuntimeError when the tables are too poor for that many rows.
    """
    everything, phrases = intents(), table("phrases")
    cells: list[tuple[Intent, int, int]] = []
    while len(cells) < counts["unique"] + counts["poor"] + sum(counts["broken"].values()):
        once = [(i, t, a) for i in everything for t in range(len(i.topics)) for a in range(len(phrases["asks"][i.ask]))]
        rng.shuffle(once)
        cells += once
    distinct = Distinct(_LIMIT)

    def fresh(cell: tuple[Intent, int, int], extra: str | None, typo: bool) -> Question:
        intent, topic, ask = cell
        for _ in range(_ATTEMPTS):
            question = compose(intent, topic, ask, rng, typo=typo, extra=extra)
            # The answer is common to all questions of the intent, so the whole texts are more alike than the questions.
            if distinct.accepts(intent.id, f"{question.masked}\n{intent.answer}"):
                return question
        raise RuntimeError(
            f"no new question for {phrasing(*cell)} after {_ATTEMPTS} attempts: add topics or situations"
        )

    written = Written(
        [], 0, Counter(), 0, 0, 0, counts["greeted"], counts["exact"], counts["near"], counts["poor"],
        Counter(counts["broken"]), Counter(), Counter(), 0,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    greeted = set(rng.sample(range(counts["unique"]), counts["greeted"]))
    pairs: set[str] = set()
    for number, cell in enumerate(cells[: counts["unique"]]):
        draw = rng.random()
        extra = "pii" if draw < counts["pii"] else "look_alike" if draw < counts["pii"] + counts["look_alike"] else None
        if extra == "look_alike" and cell[0].lang == "en":
            extra = None
        typo = rng.random() < counts["typo"]
        question = fresh(cell, extra, typo)
        greeting = tuple(rng.choice(phrases["greetings"][cell[0].lang])) if number in greeted else None
        row = _row(cell[0], question.text, phrasing(*cell), rng.choice(_CHANNELS), greeting)
        rows.append(row)
        pairs.add(row["metadata"]["phrasing"])
        written.pii.update(question.pii)
        written.pii_rows += bool(question.pii)
        written.look_alikes += question.look_alike
        written.typos += typo
        if not question.pii and not greeting:
            plain.append(row)
    written.unique = len(rows)
    written.phrasings = len(pairs)
    written.answers = {intent.id: intent.answer for intent in everything}
    written.rows_by_category.update(row["metadata"]["category"] for row in rows)
    written.rows_by_lang.update(row["metadata"]["lang"] for row in rows)

    long = [row for row in plain if len(row["messages"][-2]["content"]) >= 40]
    rng.shuffle(long)
    near: list[dict[str, Any]] = []
    for row in long[: counts["near"]]:
        question = row["messages"][-2]["content"]
        grams = shingles(question)
        candidate = _nearly(question, rng)
        while candidate == question or jaccard(grams, shingles(candidate)) < 0.82:
            candidate = _nearly(question, rng)
        copied = copy.deepcopy(row)
        copied["messages"][-2]["content"] = candidate
        near.append(copied)
    if len(near) < counts["near"]:
        raise RuntimeError(f"only {len(near)} questions are long enough to plant {counts['near']} near duplicates")
    exact = [copy.deepcopy(row) for row in rng.sample(long[counts["near"] :], counts["exact"])]

    rest = iter(cells[counts["unique"] :])
    poor: list[dict[str, Any]] = []
    for _ in range(counts["poor"]):
        cell = next(rest)
        row = _row(cell[0], fresh(cell, None, False).text, phrasing(*cell), rng.choice(_CHANNELS), None)
        row["messages"][-1]["content"] = rng.choice(phrases["poor_answers"])
        poor.append(row)
    broken: list[str] = []
    for reason, count in sorted(counts["broken"].items()):
        for _ in range(count):
            cell = next(rest)
            row = _row(cell[0], fresh(cell, None, False).text, phrasing(*cell), rng.choice(_CHANNELS), None)
            broken.append(_broken(row, reason, rng))

    lines = [json.dumps(row, ensure_ascii=False) for row in rows + near + exact + poor] + broken
    rng.shuffle(lines)
    written.lines = lines
    return written


def by_phrasing(lines: list[str]) -> dict[str, list[str]]:
    """Last user turn of each readable line, grouped by its phrasing."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        row = json.loads(line)
        users = [m["content"] for m in row["messages"] if m["role"] == "user"]
        grouped[row["metadata"]["phrasing"]].append(users[-1])
    return grouped
