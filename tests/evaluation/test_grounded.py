"""How much of a reader's answer stands in the passages that it was given, and in no word of the question alone."""

from types import SimpleNamespace

import polars as pl
import pytest

from llmops_assets.evaluation import rag
from llmops_assets.evaluation.suites import Answer, Scored, items_of
from llmops_assets.specs.jobs import RagBlock

PASSAGES = {
    "환불은 언제 되나요?": ["두 번 낸 통행료는 사흘 안에 계좌로 돌려준다.", "영수증은 30일 동안 보관한다."],
    "우산은 어디 있나요?": ["주운 물건은 휴게소가 맡는다.", "영수증은 30일 동안 보관한다."],
}
ANSWERS = {
    "두 번 낸 통행료는 사흘 안에 돌려줍니다.": 1.0,
    "통행료는 90일 안에 돌려줍니다.": 0.75,
    # The second passage is beyond what this reader is given.
    "영수증은 30일 동안 보관합니다.": 0.0,
    "": 0.0,
}


@pytest.mark.parametrize(("answer", "share"), ANSWERS.items())
def test_an_answer_is_grounded_by_the_passages_that_its_reader_was_given(answer: str, share: float) -> None:
    block = RagBlock(retriever_type="dense", retriever_model_ref="x", passages=1)
    case = SimpleNamespace(spec=SimpleNamespace(rag=block))
    frame = pl.DataFrame(
        {
            "row_id": ["a", "b"],
            "question": list(PASSAGES),
            "answer": ["x", "y"],
            "category": ["c", "c"],
            "extra": ["{}", "{}"],
            "file": ["f", "f"],
            "line": [1, 2],
        }
    )
    items = items_of(rag._conversations(case, frame, PASSAGES), "test")
    contexts = rag._contexts(case, frame, PASSAGES)
    assert len(contexts) == 2
    scored = Scored(items[0], Answer("a", answer, 1, "stop"), False)
    assert rag._grounded(scored, contexts) == pytest.approx(share, abs=0.06)
