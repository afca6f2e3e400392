"""No text ends a detector, whatever is in it: real texts that nobody here wrote, invented ones, and very long ones."""

import re
import time
import zlib

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.datasets.quality import bias, features, score
from llmops_assets.datasets.schema import MESSAGES
from llmops_assets.datasets.similarity import duplicates, sketch
from llmops_assets.datasets.similarity.normal import normalise
from llmops_assets.privacy import masking, names, pii
from llmops_assets.privacy.masker import Masker
from llmops_assets.toxicity import scorers
from tests.conftest import PUBLIC_DATA

TOO_LONG_FOR_A_NAME = "리아 웨스턴오스트레일리아주"
"""The word behind the first is longer than any name, so that no name ends in it."""

UNUSUAL = re.compile(r"[가-힣]{9}|[^\x00-\x7f가-힣]")
"""Words beyond a name's length, and characters other than Hangul syllables and ASCII."""

HANGUL = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
JAMO = st.one_of(
    st.characters(min_codepoint=0x1100, max_codepoint=0x11FF), st.characters(min_codepoint=0x3131, max_codepoint=0x318E)
)
MARKS = st.sampled_from("\u200d\ufe0f\u20e3\u0301\u3099\ufeff\u00ad\u202e\u2028\x85\x1c\u0130ı")
EMOJI = st.one_of(st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF), st.sampled_from("🇰🇷👨‍👩‍👧🏽"))
CONTROLS = st.characters(max_codepoint=0x9F, exclude_categories=("L", "P", "S", "N"))
NAMES = [TOO_LONG_FOR_A_NAME, "홍길동 씨", "김철수", "배우 에밀리 왓슨", "洪吉童", "(洪吉童)", "A씨", "모 씨"]
NUMBERS = ["010-1234-5678", "kim@example.com", "주민번호 ", "900101-1234567", "서울시 강남구 역삼동 1"]
PIECES = st.sampled_from([*NAMES, *NUMBERS, " ", "\n", ". ", "("])
CHARACTERS = st.one_of(HANGUL, JAMO, MARKS, EMOJI, CONTROLS, st.characters(exclude_categories=("Cs",)))
TEXTS = st.lists(st.one_of(CHARACTERS, PIECES, st.text(HANGUL, max_size=14)), max_size=14).map("".join)
ANY_STR = st.lists(st.one_of(CHARACTERS, PIECES, st.characters(categories=("Cs",))), max_size=14).map("".join)
"""With lone surrogates, which a Python string can hold and a table cannot."""


def examine(values: list[str]) -> None:
    """Every detector but that of names, on a column as the report has it, and on rows made of it."""
    column = pl.Series("text", values, dtype=pl.String)
    rows = pl.DataFrame(
        {
            "row_id": [str(number) for number in range(len(values))],
            "messages": pl.Series(
                [
                    [{"role": "user", "content": text}, {"role": "assistant", "content": values[-number - 1]}]
                    for number, text in enumerate(values)
                ],
                dtype=MESSAGES,
            ),
            "tools": pl.Series([None] * len(values), dtype=pl.String),
        }
    )
    spans = pii.find(column)
    assert pii.find(pii.mask_texts(column, pii.PATTERNS_ONLY)).height == 0 or spans.height
    flagged = scorers.Lexicon().groups(column)
    counted = features.features(column)
    assert features.estimated_tokens(counted).min() >= 0
    assert bias.count(column, flagged.list.len() > 0)["rows"].sum() >= 0
    scores = score.scores(rows, "sft_pair")
    assert scores["score"].is_between(0, 1).all() and scores["score"].null_count() == 0
    normal = normalise(column)
    assert normal.equals(normalise(normal)), "normalising again changes nothing"
    sketch.sketches(normal, 5, 20, 6)
    duplicates.find(rows, "sft_pair")


def lines() -> list[str]:
    """Every line of every file of the public data, once."""
    files = [path for path in sorted(PUBLIC_DATA.rglob("*")) if path.is_file() and path.suffix != ".md"]
    assert files, f"{PUBLIC_DATA} is empty: LLMOPS_TEST_DATA names the folder of the public data"
    return list(dict.fromkeys(line for path in files for line in path.read_text("utf-8").split("\n")))


def test_a_word_longer_than_any_name_behind_one_ends_nothing():
    text = f"배우 에밀리 왓슨은 {TOO_LONG_FOR_A_NAME}"
    assert [text[span.start : span.end] for span in names.find_names([text])[0]][:1] == ["에밀리 왓슨"]


@pytest.mark.public_data
def test_every_line_of_real_data_is_examined():
    values = lines()
    for start in range(0, len(values), 8192):
        examine(values[start : start + 8192])


@pytest.mark.public_data
def test_names_are_looked_for_in_real_data():
    """In every unusual sentence, and in every fortieth of the others: all of them take two minutes and a half."""
    sentences = {sentence for line in lines() for _, sentence in names.sentences(line)}
    chosen = sorted(s for s in sentences if UNUSUAL.search(s) or zlib.crc32(s.encode()) % 40 == 0)
    for start in range(0, len(chosen), 500):
        names.find_names(chosen[start : start + 500])


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_invented_text_is_examined(values):
    examine(values)
    for text, spans in zip(values, names.find_names(values), strict=True):
        assert all(0 <= span.start < span.end <= len(text) for span in spans)


@settings(max_examples=150, deadline=None)
@given(ANY_STR)
def test_whatever_a_string_holds_is_masked(text):
    masked = Masker(pii.PATTERNS_ONLY)(text)
    assert masking.find(masked) == []
    for span in names.find_names([text])[0]:
        assert 0 <= span.start < span.end <= len(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " " * 300_000, "\n" * 300_000, "가" * 300_000, "김철수" * 100_000, "참석자 김철수, " * 30_000,
        "(" * 300_000, "1" * 300_000, "1-" * 150_000, "a@" * 150_000, "010-1234-5678 " * 20_000,
        f"{TOO_LONG_FOR_A_NAME} " * 20_000, "👨‍👩‍👧" * 50_000, "ᄀ" * 300_000, "서울시 강남구 " * 30_000,
    ],
    ids=lambda text: f"{text[:8]!r} x {len(text)}",
)  # fmt: skip
def test_a_very_long_text_takes_no_longer_for_its_length(text):
    began = time.process_time()
    examine([text, "짧은 글"])
    names.find_names([text])
    assert time.process_time() - began < 60, "the time grows with more than the length"
