"""Plans a training on answers behind prompts, compared in pairs or rated one by one: what both plans have in common."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import polars as pl

from images.train.chat import Row, Template, choose_template, marked_markdown, template_hash
from images.train.content_findings import stop_ids
from images.train.marked_texts import Conversation
from images.train.reporter import Reporter
from images.train.template_findings import findings
from images.train.trained_modules import check_token_ids
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rendered(Protocol):
    """A prompt with its answers in tokens."""

    @property
    def prompt(self) -> list[int]: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def leading_bos(self) -> int: ...
    @property
    def keeps_prefix(self) -> bool: ...
    @property
    def length(self) -> int: ...


One = TypeVar("One", bound=Rendered)
Planned = Sequence[tuple[str, One]]
"""The rendered rows of a split, each with its row id."""


@dataclass(frozen=True)
class Answers(Generic[One]):
    """What differs between answers that are compared and answers that are rated."""

    name: str
    """In words, several of them."""
    conversations: Callable[[pl.DataFrame], Iterator[Conversation]]
    """Every conversation of a frame of which the last answer is trained."""
    render: Callable[["PreTrainedTokenizerBase", Template, pl.DataFrame, int], list[One]]
    save: Callable[[Path, pl.DataFrame, list[One]], None]
    token_ids: Callable[[One], Iterable[int]]
    facts: Callable[["PreTrainedTokenizerBase", TrainJobSpec, Planned[One], pl.DataFrame], dict[str, Any]]
    """What is known of the planned rows of the training split, which are those of the frame."""


def plan(
    kind: Answers[One],
    spec: TrainJobSpec,
    frames: dict[str, pl.DataFrame],
    base: Path,
    folder: Path,
    reporter: Reporter,
    date: str | None = None,
) -> dict[str, Any]:
    """Render the rows of `frames` (row_id and the columns of `kind`), keep them in `folder`, and tell what they are."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    template = choose_template(tokenizer, date)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    reporter.log.info("chat template: %s", template.origin)
    conversations = (row for frame in frames.values() for row in kind.conversations(frame))
    known = findings(tokenizer, template, conversations, stop_ids(base, tokenizer))
    planned: dict[str, Planned[One]] = {}
    dropped: list[str] = []
    for split, frame in frames.items():
        found = kind.render(tokenizer, template, frame, spec.hyperparams.max_seq_len)
        if spec.hyperparams.overlong == "drop":
            whole = pl.Series([not one.truncated for one in found], dtype=pl.Boolean)
            if split == "train":
                dropped = frame.filter(~whole)["row_id"].to_list()
            frame, found = frame.filter(whole), [one for one in found if not one.truncated]
        planned[split] = list(zip(frame["row_id"].to_list(), found, strict=True))
        if found:
            kind.save(folder / f"{split}.parquet", frame, found)
        reporter.log.info("rendered %d %s of %s", len(found), kind.name, split)
    if not planned["train"]:
        raise ValueError(
            f"all {len(dropped)} {kind.name} are longer than max_seq_len {spec.hyperparams.max_seq_len}: raise it"
        )
    check_token_ids(tokenizer, max(max(kind.token_ids(one), default=0) for _, one in planned["train"]), base)
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(folder / "tokenizer")
    facts = kind.facts(tokenizer, spec, planned["train"], frames["train"])
    facts |= {
        "rows": {split: len(found) for split, found in planned.items() if found},
        "dropped_rows": len(dropped),
        "chat_template_hash": template_hash(template.serving),
        "template_origin": template.origin,
        "findings": [finding.model_dump() for finding in known],
    }
    if dropped:
        facts["failures"]["dropped"] = dropped[:10]
    return facts


def common_facts(
    tokenizer: "PreTrainedTokenizerBase",
    found: Planned[One],
    stops: Callable[[One], Iterable[int | None]],
    wrong: dict[str, list[str]],
    *,
    answer_tokens: int,
    sequences: int,
) -> dict[str, Any]:
    """The facts that both plans have. `stops` gives the last token of each answer of a row (None of a cut one),
    `wrong` row ids by what is wrong besides, `answer_tokens` those of all answers; a row is `sequences` sequences."""
    ends = Counter(stop for _, one in found for stop in stops(one) if stop is not None)
    stop = ends.most_common(1)[0][0] if ends else None
    special = set(tokenizer.all_special_ids) | set(tokenizer.get_added_vocab().values())
    wrong = wrong | {
        "cut_answers": [i for i, one in found if one.truncated],
        "double_bos": [i for i, one in found if one.leading_bos > 1],
        "stop_token_untrained": [i for i, one in found if any(s is not None and s not in special for s in stops(one))],
        "prefix_changed": [i for i, one in found if not one.keeps_prefix],
    }
    longest = max(one.length for _, one in found)
    tokens = sequences * sum(len(one.prompt) for _, one in found) + answer_tokens
    return {
        "tokens": tokens,
        "trainable_tokens": answer_tokens,
        "longest_row": longest,
        "packing_efficiency": tokens / (sequences * len(found) * longest),
        "rows_without_trainable_tokens": len(wrong["no_trainable_tokens"]),
        "truncated_rows": len(wrong["cut_answers"]),
        "cut_answers": len(wrong["cut_answers"]),
        "double_bos_rows": len(wrong["double_bos"]),
        "stop_token": tokenizer.convert_ids_to_tokens(stop) if stop is not None else None,
        "stop_token_trained": stop is not None and not wrong["stop_token_untrained"],
        "prefix_preserving": not wrong["prefix_changed"],
        "vocabulary": len(tokenizer),
        "failures": {kind: row_ids[:10] for kind, row_ids in wrong.items() if row_ids},
    }


def example(tokenizer: "PreTrainedTokenizerBase", one: Rendered, name: str, answer: list[int]) -> str:
    """One answer behind its prompt as Markdown, what is trained bold."""
    mask = [0] * len(one.prompt) + [1] * len(answer)
    row = Row(one.prompt + answer, mask, one.truncated, one.truncated, one.leading_bos, None)
    return f"**{name}**: {marked_markdown(tokenizer, row, 300)}"
