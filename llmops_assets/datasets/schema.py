"""The contract of each dataset type: columns, and rules that every canonical row keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from llmops_assets.records.conversation import NO_LOSS, TOOLS
from resources.row_upgrade import MESSAGE, SCORE

if TYPE_CHECKING:
    import pandera.polars as pa

MESSAGES = pl.List(MESSAGE)
TEXTS = pl.List(pl.String)
ROLES = ("system", "user", "assistant", "tool")

COMMON: dict[str, pl.DataType] = {
    "row_id": pl.String(),
    "source": pl.String(),
    "category": pl.String(),
    "quality_score": pl.Float64(),
    "extra": pl.String(),
    "file": pl.String(),
    "line": pl.Int64(),
}

CONTENT: dict[str, dict[str, pl.DataType]] = {
    "sft_pair": {"messages": MESSAGES, TOOLS: pl.String()},
    "eval_suite": {"messages": MESSAGES, TOOLS: pl.String()},
    "pretrain_corpus": {"text": pl.String()},
    "rlhf_pair": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES, TOOLS: pl.String()},
    "kto": {"prompt": MESSAGES, "completion": MESSAGES, TOOLS: pl.String()},
    "rag_qa": {"question": pl.String(), "answer": pl.String(), "positives": TEXTS, "negatives": TEXTS},
    "embedding_pair": {"anchor": pl.String(), "positives": TEXTS, "negatives": TEXTS},
}

JUDGED: dict[str, dict[str, pl.DataType]] = {
    "kto": {"label": pl.Boolean()},
    "embedding_pair": {SCORE: pl.Float64()},
}
"""What people said of a row's content, by type: whether an answer is wanted; how alike the anchor and its only positive
are, from 0 to 1, null where the positives belong to it. It is learned as the content is."""

QUARANTINE: dict[str, pl.DataType] = {
    "file": pl.String(),
    "line": pl.Int64(),
    "field": pl.String(),
    "reason": pl.String(),
    "raw": pl.String(),
}


@dataclass(frozen=True)
class Rule:
    """What must hold in every row: `holds` gives one boolean a row, `field` is where to look when it does not."""

    name: str
    field: str
    reason: str
    holds: pl.Expr


def columns_of(dataset_type: str) -> dict[str, pl.DataType]:
    """Columns of the canonical table of a type, in order: its content, what was said of it, and what all types have."""
    if dataset_type not in CONTENT:
        raise ValueError(f"{dataset_type!r} is no dataset type: use one of {', '.join(CONTENT)}")
    return {"row_id": COMMON["row_id"], **CONTENT[dataset_type], **JUDGED.get(dataset_type, {}), **COMMON}


def empty_frame(dataset_type: str) -> pl.DataFrame:
    """A table without rows that has the columns of a dataset type."""
    return pl.DataFrame(schema=columns_of(dataset_type))


_ROLE = pl.element().struct.field("role")
_CALLS = pl.element().struct.field("tool_calls")


def _roles(column: str) -> pl.Expr:
    """The turns of a conversation as one letter each: ``sua`` is system, user, assistant; ``c`` is an assistant's turn
    that calls tools, ``t`` what a tool answers, ``?`` any other role."""
    letters = _ROLE.replace_strict(list(ROLES), ["s", "u", "a", "t"], default="?", return_dtype=pl.String)
    called = pl.when((letters == "a") & _CALLS.is_not_null()).then(pl.lit("c")).otherwise(letters)
    return pl.col(column).list.eval(called).list.join("")


def _all_filled(texts: pl.Expr) -> pl.Expr:
    filled = pl.element().is_not_null() & (pl.element().str.strip_chars().str.len_chars() > 0)
    return texts.list.eval(filled).list.all()


def _all_say_something(column: str) -> pl.Expr:
    """Whether every message has a text; the assistant's may be empty where it calls a tool."""
    text = pl.element().struct.field("content")
    filled = text.is_not_null() & (text.str.strip_chars().str.len_chars() > 0)
    calls = text.is_not_null() & (_ROLE == "assistant") & _CALLS.is_not_null()
    return pl.col(column).list.eval(filled | calls).list.all()


def _said(column: str) -> pl.Expr:
    """All that a conversation says in one text, spaces around aside: what was thought, said and called."""
    names = ("reasoning_content", "content", "tool_calls")
    fields = [pl.element().struct.field(name).fill_null("").str.strip_chars() for name in names]
    return pl.col(column).list.eval(pl.concat_str(fields, separator="\x1f")).list.join("\x1e")


_TURN = r"u(?:[ac]t+)*"
"""What a user asks, with the calls that are made for it and what the tools answer; several may answer one turn."""


def _filled(column: str) -> pl.Expr:
    return pl.col(column).is_not_null() & (pl.col(column).str.strip_chars().str.len_chars() > 0)


def _chat_rules(column: str) -> list[Rule]:
    turns = _roles(column)
    ordered = rf"^s?(?:{_TURN}[ac])*(?:{_TURN})?$"
    ends = turns.str.contains(r"[ac]$")
    return [
        Rule("no_messages", column, "the conversation has no messages", pl.col(column).list.len() > 0),
        Rule(
            "unknown_role",
            f"{column}[].role",
            f"a role is none of {', '.join(ROLES)}",
            ~turns.str.contains("?", literal=True),
        ),
        Rule("empty_message", f"{column}[].content", "a message is empty", _all_say_something(column)),
        Rule(
            "role_order",
            f"{column}[].role",
            "turns are out of order: an optional system message, then user and assistant in turn",
            turns.str.contains("?", literal=True) | turns.str.contains(ordered) | ~ends,
        ),
        Rule(
            "last_turn",
            f"{column}[].role",
            "the last turn is not the assistant's, so there is no answer to learn",
            ends | turns.str.contains("?", literal=True) | (turns == ""),
        ),
    ]


def _thoughts_end(column: str) -> pl.Expr:
    """Whether every answer that begins with a thought ends it: one that was cut would teach to think for ever."""
    text = pl.element().struct.field("content").fill_null("")
    endless = (_ROLE == "assistant") & text.str.contains(r"^\s*<think>") & ~text.str.contains("</think>", literal=True)
    return ~pl.col(column).list.eval(endless).list.any()


def _thinking(column: str) -> Rule:
    reason = "an answer begins with <think>, which no </think> ends: it was cut, so there is no answer to learn"
    return Rule("endless_thought", f"{column}[].content", reason, _thoughts_end(column))


def _some_loss(column: str) -> pl.Expr:
    weight = pl.element().struct.field("weight")
    return pl.col(column).list.eval((_ROLE == "assistant") & (weight.is_null() | (weight != NO_LOSS))).list.any()


def rules_of(dataset_type: str) -> list[Rule]:
    """The rules of a type, the gravest first: a row is refused with the first that it breaks."""
    if dataset_type == "sft_pair":
        reason = "every turn of the assistant has weight 0, so there is no answer to learn"
        no_loss = Rule("no_loss", "messages[].weight", reason, _some_loss("messages"))
        return [*_chat_rules("messages"), no_loss, _thinking("messages")]
    if dataset_type == "eval_suite":
        return _chat_rules("messages")
    if dataset_type == "pretrain_corpus":
        return [Rule("empty_text", "text", "the document is empty", _filled("text"))]
    if dataset_type == "rlhf_pair":
        return [
            Rule(
                "prompt_order",
                "prompt[].role",
                "the prompt is not a conversation that ends with the user's turn",
                _roles("prompt").str.contains(rf"^s?(?:{_TURN}[ac])*{_TURN}$"),
            ),
            Rule("empty_prompt", "prompt[].content", "a message of the prompt is empty", _all_say_something("prompt")),
            Rule("empty_chosen", "chosen", "the preferred answer is missing or empty", _answer("chosen")),
            _thinking("chosen"),
            Rule("empty_rejected", "rejected", "the rejected answer is missing or empty", _answer("rejected")),
            Rule(
                "same_answers",
                "rejected",
                "chosen and rejected are the same, so there is nothing to prefer",
                _said("chosen") != _said("rejected"),
            ),
        ]
    if dataset_type == "kto":
        return [
            Rule(
                "prompt_order",
                "prompt[].role",
                "the prompt is not a conversation that ends with the user's turn",
                _roles("prompt").str.contains(rf"^s?(?:{_TURN}[ac])*{_TURN}$"),
            ),
            Rule("empty_prompt", "prompt[].content", "a message of the prompt is empty", _all_say_something("prompt")),
            Rule("empty_completion", "completion", "the answer is missing or empty", _answer("completion")),
        ]
    if dataset_type == "rag_qa":
        return [
            Rule("empty_question", "question", "the question is empty", _filled("question")),
            Rule("empty_answer", "answer", "the answer is empty", _filled("answer")),
            Rule("empty_passage", "positives[]", "a passage is empty", _all_filled(pl.col("positives"))),
            Rule("empty_negative", "negatives[]", "a negative passage is empty", _all_filled(pl.col("negatives"))),
        ]
    if dataset_type == "embedding_pair":
        return [
            Rule("empty_anchor", "anchor", "the anchor is empty", _filled("anchor")),
            Rule("no_positives", "positives", "there is no positive text", pl.col("positives").list.len() > 0),
            Rule("empty_positive", "positives[]", "a positive text is empty", _all_filled(pl.col("positives"))),
            Rule("empty_negative", "negatives[]", "a negative text is empty", _all_filled(pl.col("negatives"))),
            Rule(
                "score_of_one",
                SCORE,
                "a score from 0 to 1 is of the anchor and one other text, without negatives",
                pl.col(SCORE).is_null()
                | (
                    pl.col(SCORE).is_between(0, 1)
                    & (pl.col("positives").list.len() == 1)
                    & (pl.col("negatives").list.len() == 0)
                ),
            ),
        ]
    raise ValueError(f"{dataset_type!r} is no dataset type: use one of {', '.join(CONTENT)}")


def _answer(column: str) -> pl.Expr:
    in_order = _roles(column).str.contains(r"^(?:[ac]t+)*[ac]$")
    return (pl.col(column).list.len() > 0) & _all_say_something(column) & in_order


def table_schema(dataset_type: str) -> "pa.DataFrameSchema":
    """The pandera schema of a type: column types, and every rule as a check named after it."""
    import pandera.polars as pa

    def judge(rule: Rule) -> "pa.Check":
        return pa.Check(
            lambda data: data.lazyframe.select(rule.holds.fill_null(False)), name=rule.name, error=rule.name
        )

    columns = {
        name: pa.Column(dtype, nullable=name in _NULLABLE, unique=name == "row_id")
        for name, dtype in columns_of(dataset_type).items()
    }
    return pa.DataFrameSchema(columns, checks=[judge(rule) for rule in rules_of(dataset_type)], strict=True)


_NULLABLE = {"source", "category", "quality_score", TOOLS, SCORE}


def _sound(frame: pl.DataFrame, dataset_type: str) -> bool:
    """Whether a table keeps its contract: what pandera asks of it, in one pass that does not say what is wrong."""
    wanted = columns_of(dataset_type)
    if dict(frame.schema) != wanted:
        return False
    holds = [rule.holds.fill_null(False).all().alias(f"rule {rule.name}") for rule in rules_of(dataset_type)]
    filled = [pl.col(name).is_not_null().all().alias(f"filled {name}") for name in wanted if name not in _NULLABLE]
    unique = (pl.col("row_id").n_unique() == pl.len()).alias("unique")
    return all(frame.select(*holds, *filled, unique).row(0))


def faults(frame: pl.DataFrame, dataset_type: str) -> dict[int, Rule]:
    """The first rule that each faulty row breaks, by row number (0-based).

    Raises ValueError when the columns themselves are not those of the type: then no row can be judged.
    """
    if _sound(frame, dataset_type):
        return {}
    import pandera.errors

    by_name: Mapping[str, tuple[int, Rule]] = {
        rule.name: (rank, rule) for rank, rule in enumerate(rules_of(dataset_type))
    }
    try:
        table_schema(dataset_type).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as error:
        cases = error.failure_cases
        strange = cases.filter(~pl.col("check").is_in(list(by_name)) | pl.col("index").is_null())
        if strange.height:
            raise ValueError(f"the table is not of type {dataset_type}: {strange.head(5).to_dicts()}") from error
        broken: dict[int, tuple[int, Rule]] = {}
        for index, name in cases.select("index", "check").iter_rows():
            found = by_name[name]
            if index not in broken or found[0] < broken[index][0]:
                broken[index] = found
        return {index: rule for index, (_, rule) in sorted(broken.items())}
    return {}
