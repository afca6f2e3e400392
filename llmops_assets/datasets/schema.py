"""The contract of each dataset type: columns, and rules that every canonical row keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    import pandera.polars as pa

MESSAGES = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
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
    "sft_pair": {"messages": MESSAGES},
    "eval_suite": {"messages": MESSAGES},
    "pretrain_corpus": {"text": pl.String()},
    "rlhf_pair": {"prompt": MESSAGES, "chosen": MESSAGES, "rejected": MESSAGES},
    "rag_qa": {"question": pl.String(), "answer": pl.String(), "positives": TEXTS, "negatives": TEXTS},
    "embedding_pair": {"anchor": pl.String(), "positives": TEXTS, "negatives": TEXTS},
}

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
    """Columns of the canonical table of a type, in order: its content, then what all types have."""
    if dataset_type not in CONTENT:
        raise ValueError(f"{dataset_type!r} is no dataset type: use one of {', '.join(CONTENT)}")
    return {"row_id": COMMON["row_id"], **CONTENT[dataset_type], **COMMON}


def empty_frame(dataset_type: str) -> pl.DataFrame:
    """A table without rows that has the columns of a dataset type."""
    return pl.DataFrame(schema=columns_of(dataset_type))


def _roles(column: str) -> pl.Expr:
    """The turns of a conversation as one letter each: ``sua`` is system, user, assistant; ``?`` is any other role."""
    letters = (
        pl.element()
        .struct.field("role")
        .replace_strict(list(ROLES), ["s", "u", "a", "t"], default="?", return_dtype=pl.String)
    )
    return pl.col(column).list.eval(letters).list.join("")


def _contents(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().struct.field("content"))


def _all_filled(texts: pl.Expr) -> pl.Expr:
    filled = pl.element().is_not_null() & (pl.element().str.strip_chars().str.len_chars() > 0)
    return texts.list.eval(filled).list.all()


def _filled(column: str) -> pl.Expr:
    return pl.col(column).is_not_null() & (pl.col(column).str.strip_chars().str.len_chars() > 0)


def _chat_rules(column: str) -> list[Rule]:
    turns = _roles(column)
    # A tool's answer follows the assistant's call; a call is followed by the assistant's words.
    ordered = r"^s?(?:u(?:at+)*a)*(?:u(?:at+)*)?$"
    return [
        Rule("no_messages", column, "the conversation has no messages", pl.col(column).list.len() > 0),
        Rule(
            "unknown_role",
            f"{column}[].role",
            f"a role is none of {', '.join(ROLES)}",
            ~turns.str.contains("?", literal=True),
        ),
        Rule("empty_message", f"{column}[].content", "a message is empty", _all_filled(_contents(column))),
        Rule(
            "role_order",
            f"{column}[].role",
            "turns are out of order: an optional system message, then user and assistant in turn",
            turns.str.contains("?", literal=True) | turns.str.contains(ordered) | ~turns.str.ends_with("a"),
        ),
        Rule(
            "last_turn",
            f"{column}[].role",
            "the last turn is not the assistant's, so there is no answer to learn",
            turns.str.ends_with("a") | turns.str.contains("?", literal=True) | (turns == ""),
        ),
    ]


def rules_of(dataset_type: str) -> list[Rule]:
    """The rules of a type, the gravest first: a row is refused with the first that it breaks."""
    if dataset_type in ("sft_pair", "eval_suite"):
        return _chat_rules("messages")
    if dataset_type == "pretrain_corpus":
        return [Rule("empty_text", "text", "the document is empty", _filled("text"))]
    if dataset_type == "rlhf_pair":
        return [
            Rule(
                "prompt_order",
                "prompt[].role",
                "the prompt is not a conversation that ends with the user's turn",
                _roles("prompt").str.contains(r"^s?(?:u(?:at+)*a)*u(?:at+)*$"),
            ),
            Rule(
                "empty_prompt", "prompt[].content", "a message of the prompt is empty", _all_filled(_contents("prompt"))
            ),
            Rule("empty_chosen", "chosen", "the preferred answer is missing or empty", _answer("chosen")),
            Rule("empty_rejected", "rejected", "the rejected answer is missing or empty", _answer("rejected")),
            Rule(
                "same_answers",
                "rejected",
                "chosen and rejected are the same, so there is nothing to prefer",
                _contents("chosen").list.join("\x1e") != _contents("rejected").list.join("\x1e"),
            ),
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
        ]
    raise ValueError(f"{dataset_type!r} is no dataset type: use one of {', '.join(CONTENT)}")


def _answer(column: str) -> pl.Expr:
    return (
        (pl.col(column).list.len() > 0) & _all_filled(_contents(column)) & _roles(column).str.contains(r"^(?:at+)*a$")
    )


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


_NULLABLE = {"source", "category", "quality_score"}


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
