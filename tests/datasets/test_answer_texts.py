"""Answers that no one wrote are found, and none that somebody did."""

import json
import random

import polars as pl
import pytest

from llmops_assets.datasets.answer_texts import answers_readable, described, misread, of_rows

_PROSE = "통행료는 요금소에서 냅니다 영수증은 창구에 있고 환불은 사흘 걸리며 단말기는 매장에서 바꿉니다"
WORDS = _PROSE.split()


def rows(answers: list[str], echo: list[bool] | None = None) -> pl.DataFrame:
    given = pl.DataFrame({"answer": answers, "echo": echo or [False] * len(answers)})
    given = given.with_columns(begun=pl.lit(False))
    # Batch by batch, as a table is gone through.
    return pl.concat([described(given[start : start + 64]) for start in range(0, max(given.height, 1), 64)])


def sentences(count: int = 200, words: int = 12, seed: int = 1) -> list[str]:
    rng = random.Random(seed)
    return [f"{n}번. {' '.join(rng.choices(WORDS, k=rng.randint(words // 2, words)))}." for n in range(count)]


GOOD = sentences()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (["nan"] * 3 + GOOD[3:], "3 of 200 answers stand for a missing value ('nan')"),
        (["None"] * 40 + GOOD[40:], "40 of 200 answers stand for a missing value ('None')"),
        (["[object Object]"] * 3 + GOOD[3:], "stand for a missing value"),
        ([t.encode().decode("latin-1") for t in GOOD[:50]] + GOOD[50:], "50 of 200 answers are in the letters"),
        ([t.encode("cp949").decode("utf-8", "replace") for t in GOOD], "200 of 200 answers are in the letters"),
        ([t.encode("latin-1", "replace").decode() for t in ["네 알겠습니다"] * 5] + GOOD[5:], "('? ?????')"),
        ([t[:60] for t in sentences(words=40)], "answers are cut at one length"),
        (
            [f"[이름] {t[:60]}" if n % 9 == 0 else t[:60] for n, t in enumerate(sentences(words=40))],
            "cut at one length",
        ),
        ([f"{t[:60]}..." for t in sentences(words=40)], "answers are cut at one length"),
        ([f"{t[:60]} […]" for t in sentences(words=40)], "answers are cut at one length"),
        ([t.encode("euc-kr").decode("latin-1") for t in GOOD[:5]] + GOOD[5:], "5 of 200 answers are in the letters"),
        ([t.encode("gbk").decode("cp1252") for t in ["你好，请问洗手间在哪里"] * 5] + GOOD[5:], "are in the letters"),
        ([json.dumps(t) for t in GOOD[:3]] + GOOD[3:], "3 of 200 answers are written in escapes"),
        ([t.replace(" ", "\\n") for t in GOOD[:30]] + GOOD[30:], "30 of 200 answers have \\n in place"),
        ([t.replace(" ", "&nbsp;") for t in GOOD[:30]] + GOOD[30:], "30 of 200 answers hold HTML's escapes"),
        ([f'"{t}"' for t in GOOD], "200 of 200 answers stand in quotes"),
        ([f"Assistant: {t}" for t in GOOD], "200 of 200 answers begin with the name of a speaker"),
        ([str(n + 5) for n in range(200)], "200 of 200 answers are the numbers of their rows"),
        (["Quâ€™il faut payer"] * 3 + GOOD[3:], "3 of 200 answers are in the letters"),
    ],
)
def test_what_a_tool_made_of_answers_is_found(answers: list[str], words: str) -> None:
    found = answers_readable(rows(answers), 0.01)
    assert not found.passed and words in found.text


def test_answers_that_begin_with_their_questions_are_found() -> None:
    asked = [(f"{text} 맞나요?", f"{text} 맞나요?\n네.") for text in GOOD]
    found = answers_readable(of_rows([conversations(asked)], "sft_pair"), 0.01)
    assert not found.passed and "200 of 200 answers begin with their question, word for word" in found.text


def test_answers_that_are_their_questions_are_found() -> None:
    found = answers_readable(rows(GOOD, [True] * 190 + [False] * 10), 0.01)
    assert not found.passed and "190 of 200 answers are the question itself" in found.text


@pytest.mark.parametrize(
    "answers",
    [
        GOOD,
        ["nan"] * 2 + GOOD[2:],
        ['print("a\\\\nb")\nprint("c\\\\n")'] * 60 + GOOD[60:],
        ["Write <b> as &lt;b&gt;."] * 100 + GOOD[100:],
        ["JSON writes 가 as \\uac00, and 나 as \\ub098."] * 50 + GOOD[50:],
        [f'"{t}"' for t in GOOD[:100]] + GOOD[100:],
        [f"Answer: {t}" for t in GOOD],
        [str(n * n) for n in range(200)],
        [str(n % 50) for n in range(200)],
        [f"{t}..." for t in sentences()],
        ["Đây là câu trả lời", "Où êtes-vous, Zoë? Ça va: déjà vu", "ÄÖÜäöüß", "§§§ ··· ¿¡", "naïveté"] * 40,
        ["None", "positive", "negative", "neutral"] * 50,
        ["Müller zahlt 5 €, garçon, façade, naïve", "Łódź", "Ñandú ¿qué?", "«Да»", "é", "Â"] * 34,
        [f"{n:064x}" for n in range(200)],
        [f'{{"road": "경부선", "fare": {n:06d}, "unit": "원", "note": "요금소에서 냅니다"}}' for n in range(200)],
        ["정말요???", "네?", "뭐라고요???"] * 70,
        [t[:60] + "." for t in sentences(words=40)],
        [f"답 {n % 7}" for n in range(200)],
        [t.rstrip(".") for t in sentences(400, words=18)],
        [t + "\ufffd" for t in sentences(words=40)[:20]] + GOOD[20:],
    ],
)
def test_what_somebody_wrote_is_left_alone(answers: list[str]) -> None:
    found = answers_readable(rows(answers), 0.01)
    assert found.passed, found.text


def test_corrections_of_what_was_right_are_left_alone() -> None:
    assert answers_readable(rows(GOOD, [True] * 120 + [False] * 80), 0.01).passed


def test_misread_text_is_told_by_its_bytes() -> None:
    assert misread("안녕".encode().decode("latin-1")) and misread("â€œhiâ€\x9d")
    assert not any(misread(text) for text in ("안녕", "Müller", "garçon", "Ã", "plain"))


SCHEMA = {"messages": pl.List(pl.Struct({"role": pl.String, "content": pl.String, "reasoning_content": pl.String,
                                         "tool_calls": pl.String}))}  # fmt: skip


def conversations(pairs: list[tuple[str, str]]) -> pl.DataFrame:
    both = [[{"role": "user", "content": asked}, {"role": "assistant", "content": said}] for asked, said in pairs]
    return pl.DataFrame({"messages": both}, schema=SCHEMA)


def test_rows_are_read_by_their_type() -> None:
    pairs = [("같다 ", " 같다"), ("묻다", "답하다"), ("무엇을 물어볼까요?", "무엇을 물어볼까요? 날씨요")]
    found = of_rows([conversations(pairs)], "sft_pair")
    known = sorted(found.select("length", "end", "echo", "begun").rows())
    assert known == [(2, "다", 1, False), (3, "다", 0, False), (14, "요", 0, True)]


def test_the_texts_of_answers_are_not_held() -> None:
    answers = [f"{number}번 답입니다. " + "통행료는 요금소에서 냅니다. " * 200 for number in range(2000)]
    found = rows(answers)
    assert found.height == 2000
    # Of each batch those alone that may be quoted as cut: the longest.
    assert found.estimated_size() < 0.1 * sum(len(answer.encode()) for answer in answers)
