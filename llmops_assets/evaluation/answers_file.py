"""The file of an evaluation's answers: written with its hash on record, and read only where it still has it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmops_assets.records.evaluation import EvaluationRecord
from resources import files
from resources.content import ContentChanged
from resources.encryption import NO_KEYS, Keyring


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]], keys: Keyring = NO_KEYS) -> str:
    """Write answers as JSON lines, sealed with `keys`; the SHA-256 of the plain text."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    files.write_bytes(path, keys.seal(text))
    return hashlib.sha256(text).hexdigest()


def write_answers(
    path: Path, rows: Sequence[Mapping[str, Any]], record: EvaluationRecord, keys: Keyring = NO_KEYS
) -> EvaluationRecord:
    """Write the answers of an evaluation; its record with their hash."""
    return record.model_copy(update={"answers_sha256": write_rows(path, rows, keys)})


def read_answers(path: Path | str, keys: Keyring = NO_KEYS, sha256: str = "") -> list[dict[str, Any]]:
    """The rows of an answers file.

    Raises ContentChanged where it has not the hash on record; records of earlier releases have none.
    """
    data = keys.open(Path(path).read_bytes(), path)
    if sha256 and hashlib.sha256(data).hexdigest() != sha256:
        raise ContentChanged(
            f"{Path(path).name} is not what was evaluated: {path} was changed since. Materialise `evaluation` again"
        )
    # As bytes: a text is also parted at U+2028, U+0085 and others, which a model may answer and JSON does not escape.
    return [json.loads(line) for line in data.splitlines()]
