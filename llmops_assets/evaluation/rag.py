"""Evaluates what answers from passages: whether the retriever finds them, and what the reader makes of them.

The reader is asked twice: with the passages that its own retriever finds among all that are indexed, which is what a
user gets (suite `test`), and with those that belong to the question (suite `gold`), which is what the reader can do.
"""

from dataclasses import replace
from pathlib import Path

import polars as pl

from llmops_assets.datasets import schema
from llmops_assets.documents.grounding import groundedness
from llmops_assets.evaluation import chat
from llmops_assets.evaluation.case import Case, Evaluated, worker_settings
from llmops_assets.evaluation.error_analysis import worst_answers
from llmops_assets.evaluation.retrieval import (
    DEPTH,
    Query,
    check_corpus,
    mean,
    passage_key,
    queries_of,
    retrieval_metrics,
    search,
)
from llmops_assets.evaluation.suites import TEST, Item, Scored, as_metric, items_of
from llmops_assets.records.evaluation import Metric
from llmops_assets.training.reader import asked, context_of

GOLD = "gold"
RETRIEVAL = "retrieval"


def evaluate(case: Case) -> Evaluated:
    """Recall of the retriever over the index, accuracy and groundedness of the answers, beside the untrained ones."""
    rag, frame = case.spec.rag, case.test.frame
    queries, own = queries_of(frame, "question")
    passages = {**indexed(Path(case.tuned.path) / "index"), **own}
    check_corpus(passages)
    depth = max(DEPTH, rag.passages)
    trained = replace(case.tuned, path=str(Path(case.tuned.path) / "retriever"))
    found, result = search(case, trained, queries, passages, top_k=depth)
    figures: list[Metric] = retrieval_metrics(found, RETRIEVAL, "tuned", (1, rag.passages, DEPTH))
    settings = {"retriever": worker_settings(result)}
    if (untrained := case.others.get("retriever")) is not None:
        before, result = search(case, untrained, queries, passages, top_k=depth)
        figures += retrieval_metrics(before, RETRIEVAL, "base", (1, rag.passages, DEPTH))
        settings["base_retriever"] = worker_settings(result)
    nearest = {hit.query.text: [passages[key] for key in hit.nearest] for hit in found}
    given = {
        TEST: _conversations(case, frame, nearest),
        GOLD: _conversations(case, frame, _gold(queries, passages)),
    }
    suites: dict[str, list[Item]] = {
        name: items_of(rows, name, case.spec.evaluation.judge, cluster_by=case.test.cluster_by)
        for name, rows in given.items()
        if rows.height
    }
    if case.suites:
        suites |= chat.chat_suites(case.spec, case.test, case.suites)
    read = chat.evaluate_chat(case, suites)
    record = chat.chat_record(case, read)
    contexts = _contexts(case, frame, nearest) | _contexts(case, frame, _gold(queries, passages))
    figures += [
        as_metric(mean([_grounded(one, contexts) for one in scored]), suite, "groundedness", name)
        for name, group in read.scored.items()
        for suite, scored in group.items()
        if suite in given and scored
    ]
    record = record.model_copy(
        update={
            "metrics": [*record.metrics, *figures],
            "settings": {**record.settings, **settings},
            "baseline": f"{record.baseline}. {len(queries)} questions over {len(passages)} passages; `gold` is the "
            "reader with the passages that belong to the question",
        }
    )
    return Evaluated(record, chat.chat_rows(read), worst_answers(case, read))


def indexed(folder: Path) -> dict[str, str]:
    """The passages of an index by key."""
    texts = pl.read_parquet(folder / "passages.parquet", columns=["text"])["text"].to_list()
    return {passage_key(text): text for text in texts}


def _gold(queries: list[Query], passages: dict[str, str]) -> dict[str, list[str]]:
    return {query.text: [passages[key] for key in query.relevant] for query in queries}


def _contexts(case: Case, frame: pl.DataFrame, passages: dict[str, list[str]]) -> dict[str, str]:
    """The passages that each prompt of the suites holds, by the prompt."""
    rag, found = case.spec.rag, {}
    for question in frame["question"].str.strip_chars():
        own = passages.get(question, [])
        found[asked(rag, question, own)[0]["content"]] = context_of(own[: rag.passages])
    return found


def _grounded(one: Scored, contexts: dict[str, str]) -> float:
    """Share of an answer's content morphemes and numbers that its passages have; 0 for one that says nothing."""
    return groundedness(one.judged, contexts.get(str(one.item.messages[-1]["content"]), ""))


def _conversations(case: Case, frame: pl.DataFrame, passages: dict[str, list[str]]) -> pl.DataFrame:
    """The rows of the test split as conversations: the question behind `passages` (by question), then the answer."""
    questions = frame["question"].str.strip_chars().to_list()
    messages = [
        [
            *asked(case.spec.rag, question, passages.get(question, [])),
            {"role": "assistant", "content": answer},
        ]
        for question, answer in zip(questions, frame["answer"].to_list(), strict=True)
    ]
    return frame.drop("answer").with_columns(pl.Series("messages", messages, dtype=schema.MESSAGES))
