"""Writes the example data of an expressway's customer desk, and says exactly what was planted in it.

Run `python -m examples.expressway.generate FOLDER` to look at it.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from examples.expressway import conversations, documents
from examples.expressway.tables import intents, table

CONVERSATIONS = {
    "unique": 3420,
    "exact": 120,
    "near": 100,
    "poor": 30,
    "greeted": 170,
    "pii": 0.12,
    "look_alike": 0.03,
    "typo": 0.12,
    "broken": {
        "truncated": 10,
        "bad_json": 8,
        "wrong_type": 10,
        "no_assistant": 8,
        "unknown_role": 8,
        "empty_answer": 8,
    },
}
CORPUS = {
    "manual": 5000,
    "notice": 1800,
    "letter": 1200,
    "log": 600,
    "general": 600,
    "pii": 60,
    "exact": 50,
    "near": 50,
    "broken": {"truncated": 4, "wrong_type": 4, "empty_text": 4},
}


class Planted(BaseModel):
    """What the files hold, counted while they were made."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int
    conversations: Path
    corpus: Path
    free_questions: Path

    rows: int = Field(description="Lines of conversations.jsonl, broken and repeated ones too.")
    unique: int = Field(description="Sound conversations, each once.")
    pii: dict[str, int] = Field(description="Personal data in user turns: items by type.")
    pii_rows: int
    look_alikes: int = Field(description="Rows with figures that look like personal data and are none.")
    exact_duplicates: int = Field(description="Rows that repeat another one in every byte.")
    near_duplicates: int = Field(description="Rows that repeat another one but for a character or two.")
    poor_answers: int = Field(description="Rows whose answer only repeats a character.")
    broken: dict[str, int] = Field(description="Rows that cannot be read as conversations, by what is wrong.")
    typos: int
    greeted: int = Field(description="Unique rows of four turns: a greeting, its answer, the question, the answer.")
    intents: int
    phrasings: int = Field(description="(topic, ask) pairs among the unique rows; metadata `phrasing`.")
    rows_by_category: dict[str, int] = Field(description="Unique rows.")
    rows_by_lang: dict[str, int] = Field(description="Unique rows.")

    corpus_rows: int
    corpus_unique: int
    corpus_pii: dict[str, int]
    corpus_pii_rows: int
    corpus_exact_duplicates: int
    corpus_near_duplicates: int
    corpus_broken: dict[str, int]
    corpus_rows_by_kind: dict[str, int]

    free_rows: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


def free_questions() -> list[dict[str, object]]:
    """The freely written questions, in the messages format, with the fixed answer of their intent."""
    by_id = {intent.id: intent for intent in intents()}
    return [
        {
            "messages": [
                {"role": "user", "content": row["question"]},
                {"role": "assistant", "content": by_id[row["intent"]].answer},
            ],
            "metadata": {
                "source": "free",
                "category": by_id[row["intent"]].category,
                "intent": row["intent"],
                "phrasing": f"free.{number}",
                "lang": row["lang"],
            },
        }
        for number, row in enumerate(table("free_questions"), start=1)
    ]


def write(folder: Path, seed: int = 7) -> Planted:
    """Writes `conversations.jsonl`, `corpus.jsonl` and `free_questions.jsonl` into `folder`, which is made if missing.

    The same seed gives the same bytes. Takes a few seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    talk = conversations.write_rows(random.Random(f"conversations-{seed}"), CONVERSATIONS)
    prose = documents.write_documents(random.Random(f"corpus-{seed}"), CORPUS)
    free = free_questions()
    paths = {name: folder / f"{name}.jsonl" for name in ("conversations", "corpus", "free_questions")}
    for name, lines in (
        ("conversations", talk.lines),
        ("corpus", prose.lines),
        ("free_questions", [json.dumps(row, ensure_ascii=False) for row in free]),
    ):
        paths[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Planted(
        seed=seed,
        **paths,
        rows=len(talk.lines),
        unique=talk.unique,
        pii=dict(sorted(talk.pii.items())),
        pii_rows=talk.pii_rows,
        look_alikes=talk.look_alikes,
        exact_duplicates=talk.exact_duplicates,
        near_duplicates=talk.near_duplicates,
        poor_answers=talk.poor_answers,
        broken=dict(talk.broken),
        typos=talk.typos,
        greeted=talk.greeted,
        intents=len(intents()),
        phrasings=talk.phrasings,
        rows_by_category=dict(sorted(talk.rows_by_category.items())),
        rows_by_lang=dict(sorted(talk.rows_by_lang.items())),
        corpus_rows=len(prose.lines),
        corpus_unique=prose.unique,
        corpus_pii=dict(sorted(prose.pii.items())),
        corpus_pii_rows=prose.pii_rows,
        corpus_exact_duplicates=prose.exact_duplicates,
        corpus_near_duplicates=prose.near_duplicates,
        corpus_broken=dict(prose.broken),
        corpus_rows_by_kind=dict(prose.rows_by_kind),
        free_rows=len(free),
    )


def folder_named(module: str, description: str | None) -> Path:
    """The folder on the command line of `python -m module`; prints help and errors as any command does."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="Made where it is not there yet.")
    return parser.parse_args().folder


if __name__ == "__main__":
    print(write(folder_named("examples.expressway.generate", __doc__)).model_dump_json(indent=2))
