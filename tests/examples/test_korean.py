import random

import pytest

from examples.expressway.korean import choose, endings, fill, slots, with_josa


@pytest.mark.parametrize(
    ("word", "josa", "expected"),
    [
        ("통행료", "은는", "통행료는"),
        ("할인", "은는", "할인은"),
        ("졸음쉼터", "이가", "졸음쉼터가"),
        ("충전할 곳", "이가", "충전할 곳이"),
        ("SUV", "을를", "SUV를"),
        ("서울", "으로", "서울로"),
        ("부산", "으로", "부산으로"),
        ("광주", "으로", "광주로"),
        ("010-0123-4567", "으로", "010-0123-4567로"),
        ("010-0123-4560", "으로", "010-0123-4560으로"),
        ("me@example.com", "으로", "me@example.com으로"),
        ("me@example.org", "으로", "me@example.org로"),
        ("김영희", "이라고", "김영희라고"),
        ("홍길동", "이라고", "홍길동이라고"),
        ("대전", "까지", "대전까지"),
    ],
)
def test_a_josa_follows_the_last_sound_as_it_is_read(word: str, josa: str, expected: str):
    assert with_josa(word, josa) == expected


def test_an_unknown_josa_and_a_missing_word_are_errors():
    with pytest.raises(KeyError):
        with_josa("통행료", "에서")
    with pytest.raises(KeyError):
        fill("{t:은는} 얼마예요?", {})


def test_an_ask_has_every_combination_of_its_endings_and_a_choice_is_one_of_them():
    ask = "{t:을를} [하고 싶은데|해야 하는데] [안내해 주세요.|도와주세요.]"
    assert endings(ask) == [
        "{t:을를} 하고 싶은데 안내해 주세요.",
        "{t:을를} 하고 싶은데 도와주세요.",
        "{t:을를} 해야 하는데 안내해 주세요.",
        "{t:을를} 해야 하는데 도와주세요.",
    ]
    assert choose(ask, random.Random(1)) in endings(ask)
    assert slots("{city:과와} {city2:을를} 오가는 {car}") == ["city", "city2", "car"]
