"""Serves a registered model for as long as it takes to ask it what its evaluation asked, and compares the tokens."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from llmops_assets.records.conversation import for_template
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import ParityRecord, QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.serving.parity import differences, generated, no_rounding, spread, summary
from llmops_assets.specs.names import training_key
from resources.dataset_store import DatasetStore
from resources.model_server import ModelServers
from resources.records import Records
from resources.server_guard import with_content

_ASKED = ("row_id", "messages", "tools")


@dataclass(frozen=True)
class Sample:
    """Rows of an evaluation's answers file with the conversations (messages and tools) that they answer; `note` says
    why there are none. `cut` is the share of all its answers that the server may not give in full."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    conversations: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = field(default_factory=list)
    max_new_tokens: int = 0
    note: str = ""
    cut: float = 0.0


def items_of(
    model: RegisteredModelRecord, records: Records, store: DatasetStore, *, most: int, most_tokens: int | None = None
) -> Sample:
    """Up to `most` evaluated items of a model, of answers no longer than `most_tokens`."""
    cell = training_key(model.dataset, model.recipe)
    evaluation = records.load(EvaluationRecord, cell)
    answers, sha256 = Path(evaluation.answers), evaluation.answers_sha256
    if model.scheme:
        made = records.load(QuantizedModelRecord, cell).models
        form = next(m for m in made if m.content_hash == model.content_hash)
        answers, sha256 = Path(form.answers), form.answers_sha256
    if not model.scheme and evaluation.model_hash != model.content_hash:
        return Sample(note=f"{cell} was trained again since {model.ref}: its evaluation is of newer weights")
    suite = next(iter(evaluation.items))
    rows, cut = spread(generated(answers, suite, store.keys, sha256), most, most_tokens)
    if not rows:
        # A pre-trained model was measured by its perplexity, an encoder by what it finds.
        return Sample(
            note=f"the evaluation of {model.ref} has no generated answers that a server could repeat", cut=cut
        )
    test = records.load(SplitsRecord, model.dataset if suite == "test" else suite).manifests["test"]
    frame = store.read(test)
    if "messages" not in frame.columns:
        return Sample(
            note=f"{model.ref} was asked prompts made of more than the rows of {suite}: they are not repeated"
        )
    if "tools" not in frame.columns:
        # Rows that were stored before there were tools.
        frame = frame.with_columns(tools=pl.lit(None, pl.String))
    asked = {row_id: (messages, tools) for row_id, messages, tools in frame.select(*_ASKED).iter_rows()}
    conversations = [for_template(messages[:-1], tools) for messages, tools in (asked[row["id"]] for row in rows)]
    limit = int(evaluation.settings["tuned"]["max_new_tokens"])
    return Sample(rows, conversations, limit, cut=cut)


def measure_parity(
    model: RegisteredModelRecord,
    records: Records,
    store: DatasetStore,
    servers: ModelServers,
    *,
    items: int,
    engine: str = "transformers",
    gpus: int = 0,
) -> ParityRecord:
    """Serve `model` for a moment, ask it `items` questions of its evaluation, and compare what it saw and said.

    Raises ServerError when it cannot be served.
    """
    sample, found = items_of(model, records, store, most=items), []
    if sample.rows:
        runtime = {"device": "cuda" if gpus else "cpu", "dtype": "auto" if gpus else "float32"}
        with servers.probe_server(
            f"probe-{model.name}-{model.version}",
            model.ref,
            model.path,
            engine,
            with_content(runtime, model.content_hash),
        ) as backend:
            limit = {"max_tokens": sample.max_new_tokens, "token_ids": True}
            served = [
                servers.complete(backend, messages, tools=tools, **limit) for messages, tools in sample.conversations
            ]
        found = differences(sample.rows, served)
    exact = engine == "transformers" and not gpus
    return ParityRecord(
        dataset=model.dataset,
        recipe=model.recipe,
        model_hash=model.content_hash,
        engine=engine,
        items=len(sample.rows),
        differences=[vars(one) for one in found],
        explanation=summary(len(sample.rows), found) if sample.rows else sample.note,
        # Another engine or device may round otherwise.
        passed=not found if exact else not no_rounding(len(sample.rows), found),
        at=datetime.now(UTC),
    )


def holds(known: ParityRecord, model: RegisteredModelRecord, items: int) -> bool:
    """Whether an earlier comparison still says that `model` is served as it was evaluated, on as many items."""
    return known.passed and known.model_hash == model.content_hash and known.items >= items
