"""Whether a served model says what its evaluation saw: the same chat template, the same answers."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def template_hash(folder: Path | str) -> str | None:
    """12 hex digits of SHA-256 over the chat template that a server reads from a model folder; None without one."""
    folder = Path(folder)
    file = folder / "chat_template.jinja"
    if file.is_file():
        template = file.read_text(encoding="utf-8")
    else:
        config = folder / "tokenizer_config.json"
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    return hashlib.sha256(template.encode()).hexdigest()[:12] if isinstance(template, str) and template else None


@dataclass(frozen=True)
class Disagreement:
    """A question that the server answers otherwise than the model did in its evaluation."""

    question: str
    evaluated: str
    served: str


def disagreements(questions: Sequence[str], evaluated: Sequence[str], served: Sequence[str]) -> list[Disagreement]:
    """The questions whose answers differ in more than normal form and surrounding white space."""
    triples = zip(questions, evaluated, served, strict=True)
    return [Disagreement(q, e, s) for q, e, s in triples if _plain(e) != _plain(s)]


def answers_to_repeat(answers: Path, suite: str, most: int, most_tokens: int | None = None) -> list[dict[str, Any]]:
    """Up to `most` rows of an evaluation's answers file, spread over the items of `suite`.

    Answers of more than `most_tokens` tokens are left out: a server that may not answer as long would cut them.
    """
    rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    usable = [
        row
        for row in rows
        if row["suite"] == suite and row["tokens"] and (most_tokens is None or row["tokens"] <= most_tokens)
    ]
    return usable[:: max(1, len(usable) // most)][:most]


def _plain(text: str) -> str:
    # A character that the length limit cut in two is shown as U+FFFD by some servers and left out by others.
    return unicodedata.normalize("NFC", text).strip().rstrip("\ufffd")
