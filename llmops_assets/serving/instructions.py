"""What a model was told before every question of its training, and whether an endpoint tells it the same."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.prompt import VARIABLE
from llmops_assets.verdict import Verdict
from resources.dataset_store import DatasetStore, DatasetStoreError
from resources.records import Records

CONVERSATIONS = {"sft_pair": "messages", "rlhf_pair": "prompt", "kto": "prompt"}
"""Column of the turns, by the dataset types that have some."""
LOOKED_AT = 8_192
"""Training rows that are looked at: what all of them begin with shows in these."""
NEARLY_ALL, HARDLY_ANY = 0.9, 0.1
"""Shares of the rows from and to which a habit of the training is one."""
_SHOWN = 80
_ROLES = ["system", "developer"]


@dataclass(frozen=True)
class Instructions:
    """System messages of training rows: in how many of how many, and the commonest with the number that have it."""

    rows: int
    with_one: int = 0
    commonest: str = ""
    of_commonest: int = 0


def told_as_trained(
    model: RegisteredModelRecord, prompt: ResolvedPrompt | None, records: Records, store: DatasetStore
) -> Verdict:
    """Whether an endpoint with this prompt tells `model` what its training rows begin with."""
    splits = records.find(SplitsRecord, model.dataset)
    column = CONVERSATIONS.get(splits.type) if splits is not None else None
    if splits is None or column is None:
        return Verdict(True, f"{model.ref} was not trained on conversations")
    try:
        rows = of_rows(store.batches(splits.manifests["train"], [column]), splits.type)
    except DatasetStoreError as error:
        return Verdict(False, f"the rows of {model.dataset} cannot be read: {error}")
    return as_trained(rows, prompt)


def of_rows(batches: Iterable[pl.DataFrame], dataset_type: str) -> Instructions:
    """What the first `LOOKED_AT` rows begin with."""
    column = CONVERSATIONS[dataset_type]
    first = pl.col(column).list.first()
    found: list[pl.Series] = []
    rows = 0
    for batch in batches:
        said = pl.when(first.struct.field("role").is_in(_ROLES)).then(first.struct.field("content").str.strip_chars())
        found.append(batch.select(said.alias("said"))["said"])
        rows += batch.height
        if rows >= LOOKED_AT:
            break
    texts = pl.concat(found).drop_nulls() if found else pl.Series("said", [], pl.String)
    if texts.is_empty():
        return Instructions(rows)
    top = texts.value_counts(sort=True).sort(["count", "said"], descending=[True, False])
    return Instructions(rows, len(texts), top["said"][0], int(top["count"][0]))


def as_trained(trained: Instructions, prompt: ResolvedPrompt | None) -> Verdict:
    """Whether an endpoint with this prompt (None for one without) tells its model what the training told it.

    Another system message, or none, is another prompt than was evaluated; nothing of an answer shows that it was.
    """
    told = _system_of(prompt)
    share = trained.with_one / trained.rows if trained.rows else 0.0
    figures = {"rows": trained.rows, "rows_with_system_message": trained.with_one}
    before = f"the endpoint's prompt {prompt.label} begins with «{_short(told)}»" if prompt and told else ""
    if trained.of_commonest >= NEARLY_ALL * trained.rows and trained.rows:
        text = f"{trained.of_commonest:,} of {trained.rows:,} training rows begin with «{_short(trained.commonest)}»"
        if told is None:
            return Verdict(
                False,
                f"{text}, and the endpoint puts nothing before what users write: a request that does not bring it asks "
                "the model otherwise than it was evaluated. Add it to the prompts (llmops prompt add) and name it in "
                "`prompt` of the deployment's spec, or have every client send it",
                figures,
            )
        if _is_said_by(told, trained.commonest):
            return Verdict(True, f"{text}, and so does what the endpoint asks", figures)
        return Verdict(
            False,
            f"{text}, but {before}: nobody evaluated the model so. Name the prompt of the training, or train and "
            "evaluate with the endpoint's",
            figures,
        )
    if share <= HARDLY_ANY and told is not None:
        return Verdict(
            False,
            f"{trained.with_one:,} of {trained.rows:,} training rows have a system message, but {before}: nobody "
            "evaluated the model so. Train and evaluate with it, or leave `prompt` out of the deployment's spec",
            figures,
        )
    return Verdict(True, f"{trained.with_one:,} of {trained.rows:,} training rows have a system message", figures)


def _system_of(prompt: ResolvedPrompt | None) -> str | None:
    """The system message that a prompt puts before a conversation, its variables as they are written."""
    if prompt is None:
        return None
    if isinstance(prompt.template, str):
        return prompt.template
    first = prompt.template[0]
    return first["content"] if first["role"] in _ROLES else None


def _is_said_by(template: str, text: str) -> bool:
    """Whether a template can say a text, whatever its variables are."""
    parts = (re.escape(part) for part in VARIABLE.split(template.strip())[::2])
    return re.fullmatch(".*".join(parts), text, re.DOTALL) is not None


def _short(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
