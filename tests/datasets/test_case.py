"""Rows that differ in upper and lower case alone are one row in prose, and two where code tells names by it."""

import numpy as np
import polars as pl
import pytest

from llmops_assets.datasets import batches, schema
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.datasets.similarity.differences import CASE, compare
from llmops_assets.datasets.similarity.keys import Near
from llmops_assets.datasets.similarity.normal import normalise
from llmops_assets.datasets.similarity.sketch import buffers

TWO = [
    ("회원 번호는 userId에 있습니다.", "회원 번호는 userid에 있습니다."),
    ("const userID = getUser(); return userID;", "const userid = getUser(); return userid;"),
    ("x = True; y = [x, None]; z = {x: y}", "x = true; y = [x, None]; z = {x: y}"),
    ("Set MAX_SIZE before you start it.", "Set max_size before you start it."),
    ("Use this:\n```\nprint(X)\n```", "Use this:\n```\nprint(x)\n```"),
    ("`-V` shows which version it is.", "`-v` shows which version it is."),
    # Not ASCII and Hangul alone: the general functions normalise these.
    ("회원 번호는 → userId에 있습니다 😀", "회원 번호는 → userid에 있습니다 😀"),
    ("ÜBER getUserName steht es dort.", "über getusername steht es dort."),
]
ONE = [
    ("Open the JavaScript Console and type it.", "open the javascript console and type it."),
    ("SELECT name FROM users WHERE id = 1;", "select name from users where id = 1;"),
    ("THIS IS VERY IMPORTANT TO KNOW.", "this is very important to know."),
    ("Der HIMMEL ist blau → über allem 😀", "der himmel ist blau → Über allem 😀"),
    ("전화(TEL) 번호(No)는 아래(A)에 있습니다.", "전화(Tel) 번호(NO)는 아래(a)에 있습니다."),
]


def clusters(one: str, other: str) -> duplicates.Duplicates:
    def chat(text: str) -> list[dict]:
        return [{"role": "user", "content": "어떻게 하나요?"}, {"role": "assistant", "content": text}]

    columns = {"row_id": pl.String, "messages": schema.MESSAGES, "tools": pl.String}
    chats = {"row_id": ["a", "b"], "messages": [chat(one), chat(other)], "tools": [None, None]}
    rows = pl.DataFrame(chats, schema=columns)
    return duplicates.clusters(
        duplicates.gathered([duplicates.keys(rows, "sft_pair", Near())]), batches.of(rows), "sft_pair", Near()
    )


@pytest.mark.parametrize(("one", "other"), TWO)
def test_code_that_differs_in_case_alone_is_two_rows(one, other):
    assert clusters(one, other).count == 0


@pytest.mark.parametrize(("one", "other"), ONE)
def test_prose_that_differs_in_case_alone_is_one_row(one, other):
    found = clusters(one, other)
    assert (found.exact, found.near) == (1, 0)


@pytest.mark.parametrize(("one", "other"), TWO[:2])
def test_what_differs_is_said_to_be_the_case(one, other):
    texts = buffers(normalise(pl.Series([one, other]), cased=True))
    found = compare(texts, np.array([[0, 1]]), answers=None, letters=np.array([len(one), len(other)]))
    assert found["why"].to_list() == [CASE]


def test_questions_and_leaks_are_compared_without_case():
    assert normalise(pl.Series([one for one, _ in TWO])).to_list() == [
        *normalise(pl.Series([other for _, other in TWO]))
    ]
