"""What uploaded files hold before they are registered: columns, what they would be read as, what is refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.wiring import Wiring

READ = 200
"""Rows of each file that a preview reads."""
SHOWN, CELL = 5, 120
FIELDS: dict[str, tuple[str, ...]] = {
    "sft_pair": ("question", "answer", "instruction", "input", "output", "messages", "system", "category"),
    "eval_suite": ("question", "answer", "category"),
    "pretrain_corpus": ("text", "source", "category"),
    "rlhf_pair": ("prompt", "chosen", "rejected", "category"),
    "kto": ("prompt", "completion", "label", "category"),
    "rag_qa": ("question", "answer", "positives", "negatives", "category"),
    "embedding_pair": ("anchor", "positives", "negatives", "category"),
}
"""Fields that a column can be mapped to, by type of dataset."""


@dataclass(frozen=True)
class Refusal:
    """A row that would be refused: where it stands and why."""

    file: str
    line: int
    field: str
    reason: str


@dataclass(frozen=True)
class Preview:
    """The first rows of uploaded files.

    `guess` says in words what they seem to be, `type` is that type (None where nothing tells it), `columns` are those
    of the rows, `samples` some rows with personal data masked; of `looked_at` rows `rows` would be taken as `as_type`
    with `mapping`, and `refused` would not.
    """

    files: dict[str, int]
    as_type: str
    type: str | None
    guess: str
    columns: list[str]
    samples: list[dict[str, str]]
    looked_at: int
    rows: int
    mapping: dict[str, str] = field(default_factory=dict)
    refused: list[Refusal] = field(default_factory=list)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that a column can be mapped to."""
        return FIELDS.get(self.as_type, ())


def preview_files(
    wiring: Wiring, actor: str, folder: Path, dataset_type: str, mapping: Mapping[str, str] | None = None
) -> Preview:
    """How the files in `folder` would be read as a dataset of a type, with `mapping` (column by field) where given.

    Nothing is registered. Raises SpecError where a file is no data.
    """
    from llmops_assets.datasets.reading.ingest import ingest
    from llmops_assets.datasets.reading.raw import Limits
    from llmops_assets.datasets.reading.readers import read_file
    from llmops_assets.datasets.reading.recognise import guess
    from llmops_assets.datasets.versions.register import find_files

    authorise(wiring, actor, "dataset.register")
    limits = Limits(line=wiring.policy.limits.max_line_bytes, file=wiring.policy.limits.max_decompressed_bytes)
    found = find_files([str(folder)]).data
    given = {name: column for name, column in (mapping or {}).items() if column}
    guessed = guess(found, given or None, limits)
    taken, refused = 0, list[Refusal]()
    for name, path in found:
        batch = next(ingest([(name, path)], dataset_type, given or None, limits=limits, batch_rows=READ))
        taken += batch.rows.height
        refused += [Refusal(*row) for row in batch.quarantine.select("file", "line", "field", "reason").iter_rows()]
    samples: list[dict[str, str]] = []
    shown = cells(wiring)
    for _, path in found[:1]:
        for raw in islice(read_file(path, limits), SHOWN):
            if isinstance(raw.value, dict):
                samples.append({str(name): shown(value) for name, value in raw.value.items()})
    return Preview(
        files={name: path.stat().st_size for name, path in found},
        as_type=dataset_type,
        type=guessed.type,
        guess=guessed.words(),
        columns=guessed.found,
        samples=samples,
        looked_at=taken + len(refused),
        rows=taken,
        mapping=given,
        refused=refused[:20],
    )


def cells(wiring: Wiring) -> Callable[[Any], str]:
    """What writes a cell as a page shows it: personal data masked as the policy says, long text cut."""
    from llmops_assets.privacy.masker import Masker

    masker = Masker.of(wiring.policy)

    def shown(value: Any) -> str:
        text = masker(value if isinstance(value, str) else str(value))
        return text if len(text) <= CELL else f"{text[: CELL - 1]}…"

    return shown
