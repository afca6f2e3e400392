"""Composes the prose that the base model reads, and plants what a platform has to find in it."""

import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from examples.expressway import people
from examples.expressway.distinct import jaccard, shingles
from examples.expressway.korean import fill, slots
from examples.expressway.tables import Intent, intents, table

_LIMIT = 0.74
_ATTEMPTS = 60


@dataclass
class Written:
    """The lines of the file, shuffled, and what was planted in them."""

    lines: list[str]
    unique: int
    pii: Counter[str]
    pii_rows: int
    exact_duplicates: int
    near_duplicates: int
    broken: Counter[str]
    rows_by_kind: Counter[str]


class _Apart:
    """Compares a document only with those made of the same pieces: two that share less cannot be near duplicates."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, ...], list[frozenset[str]]] = defaultdict(list)

    def accepts(self, keys: list[tuple[str, ...]], text: str) -> bool:
        grams = shingles(text)
        if any(jaccard(grams, other) >= _LIMIT for key in keys for other in self._seen[key]):
            return False
        for key in keys:
            self._seen[key].append(grams)
        return True


def _words(rng: random.Random) -> dict[str, str]:
    own, phrases = table("corpus")["slots"], table("phrases")
    words = {name: rng.choice(values) for name, values in own.items()}
    words |= {name: rng.choice(phrases["slots"][name]) for name in ("time", "later", "road", "car")}
    words["city"], words["city2"] = rng.sample(phrases["slots"]["city"], 2)
    words["city_en"] = rng.choice(phrases["slots_en"]["city"])
    return words | {
        "year": str(rng.randrange(2008, 2027)),
        "month": str(rng.randrange(1, 13)),
        "day": str(rng.randrange(1, 29)),
        "hour": str(rng.randrange(1, 25)),
        "minute": str(rng.randrange(2, 60)),
        "km": str(rng.randrange(3, 410)),
        "n": str(rng.randrange(2, 49)),
    }


def _told(topic: str, lang: str) -> str:
    """A topic as it is told of others; English topics are in the first person."""
    return re.sub(r"\bI\b", "they", re.sub(r"\bmy\b", "their", topic)) if lang == "en" else topic


def _about(intent: Intent, kind: str, rng: random.Random) -> tuple[str, list[tuple[str, ...]]]:
    """A manual page or a notice about an intent, and the pieces it is made of."""
    tables, words = table("corpus"), _words(rng)
    leads = tables["leads"]["en" if intent.lang == "en" else "stem" if intent.ask == "trouble" else "noun"]
    template = rng.choice(tables[kind][intent.lang])
    facts = rng.sample(intent.facts, 3)
    pieces = {
        "lead": fill(rng.choice(leads), words | {"t": _told(rng.choice(intent.topics), intent.lang)}),
        "tail": fill(rng.choice(tables["tails"][intent.lang]), words),
        "answer": intent.answer,
        "fact": facts[0],
        "fact2": facts[1],
        "fact3": facts[2],
    }
    used = sorted(pieces[name] for name in slots(template) if name in ("answer", "fact", "fact2", "fact3"))
    # Two documents with one long piece in common differ in the rest; with two in common they are compared.
    keys = [tuple(used)] if len(used) < 3 else [(a, b) for i, a in enumerate(used) for b in used[i + 1 :]]
    return fill(template, words | pieces), [*keys, *((piece,) for piece in used if piece == intent.answer)]


def _letter(lang: str, rng: random.Random) -> tuple[str, list[tuple[str, ...]]]:
    """A customer's letter: an opener, a situation, what happened, a closer; never a question."""
    corpus, phrases, words = table("corpus"), table("phrases"), _words(rng)
    if lang == "en":
        words["city"], words["city2"] = rng.sample(phrases["slots_en"]["city"], 2)
    sentences = rng.sample(corpus["letter"]["told_en" if lang == "en" else "told"], 2)
    frame = [
        rng.choice([text for text in phrases[part][lang] if "?" not in text])
        for part in ("openers", "situations", "closers")
    ]
    parts = [frame[0], frame[1], *sentences, frame[2]]
    keys = [("letter", a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]
    return " ".join(fill(part, words) for part in parts), keys


def _log(rng: random.Random) -> tuple[str, list[tuple[str, ...]]]:
    log, words = table("corpus")["log"], _words(rng)
    parts = [rng.choice(log[name]) for name in ("when", "what", "done", "ended")]
    return " ".join(fill(part, words) for part in parts), [("log", a, b) for a in parts for b in parts if a < b]


def _general(rng: random.Random) -> tuple[str, list[tuple[str, ...]]]:
    parts = rng.sample(table("corpus")["general"], 3)
    return " ".join(fill(p, _words(rng)) for p in parts), [("general", a, b) for a in parts for b in parts if a < b]


def write_documents(rng: random.Random, counts: dict[str, Any]) -> Written:
    """All lines of `corpus.jsonl`.

    `counts` says how many documents of each kind (`manual`, `notice` over all intents, `letter`, `log`, `general`), how
    many log entries carry personal data (`pii`), and how many `exact`, `near` and `broken` ones are planted on top.
    Raises RuntimeError when the tables are too poor for that many.
    """
    everything, apart = intents(), _Apart()
    written = Written([], 0, Counter(), 0, counts["exact"], counts["near"], Counter(counts["broken"]), Counter())
    rows: list[dict[str, Any]] = []
    for kind in ("manual", "notice", "letter", "log", "general"):
        for number in range(counts[kind]):
            intent = everything[number % len(everything)]
            for _ in range(_ATTEMPTS):
                if kind == "log":
                    text, keys = _log(rng)
                elif kind == "general":
                    text, keys = _general(rng)
                elif kind == "letter":
                    text, keys = _letter(intent.lang, rng)
                else:
                    text, keys = _about(intent, kind, rng)
                if apart.accepts(keys, text):
                    break
            else:
                raise RuntimeError(f"no new {kind} about {intent.id} after {_ATTEMPTS} attempts: add facts or leads")
            if kind == "log" and number < counts["pii"]:
                sentence, _, types = people.phrase(rng.choice(table("corpus")["planted_pii"]), rng, table("people"))
                text = f"{text} {sentence}"
                written.pii.update(types)
                written.pii_rows += 1
            about = kind in ("manual", "notice")
            metadata = {
                "source": kind,
                "category": intent.category if about else kind,
                "lang": intent.lang if about or kind == "letter" else "ko",
            }
            rows.append({"text": text, "metadata": metadata})
    written.unique = len(rows)
    written.rows_by_kind.update(row["metadata"]["source"] for row in rows)

    plain = [row for row in rows if row["metadata"]["source"] in ("manual", "notice")]
    chosen = rng.sample(plain, counts["near"] + counts["exact"])
    near = [
        {**row, "text": f"{row['text']} {rng.choice(('끝.', '이상.', '붙임 1.'))}"} for row in chosen[: counts["near"]]
    ]
    exact = chosen[counts["near"] :]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows + near + exact]
    for reason, count in sorted(counts["broken"].items()):
        for row in rng.sample(plain, count):
            line = json.dumps(row, ensure_ascii=False)
            if reason == "truncated":
                line = line[: len(line) // 2]
            elif reason == "wrong_type":
                line = json.dumps({**row, "text": rng.choice((7, None, ["문서"]))}, ensure_ascii=False)
            elif reason == "empty_text":
                line = json.dumps({**row, "text": "  "}, ensure_ascii=False)
            else:
                raise ValueError(f"unknown way to break a document: {reason}")
            lines.append(line)
    rng.shuffle(lines)
    written.lines = lines
    return written
