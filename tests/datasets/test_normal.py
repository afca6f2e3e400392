"""The compiled normalisation of texts against the general functions, whatever stands in the texts."""

import random

import polars as pl

from llmops_assets.datasets.similarity.normal import normalise, normalise_any

PLAIN = list("aZ Q\t\n09가힣나·“’ ")
ODD = list("aZ\r\x0b\x0c\x1c\x1f\x00\x7f가힣ㄱㅏ·”‘…éＡｂÅ①㎏\u00a0\u3000\u0085\u2028ΑςΣ𝒜😀힤ힰ퟿İ ")


def texts(seed: int, count: int) -> pl.Series:
    rng = random.Random(seed)

    def text() -> str | None:
        chars = rng.choice((PLAIN, PLAIN, ODD))
        return None if rng.random() < 0.05 else "".join(rng.choices(chars, k=rng.randrange(30)))

    return pl.Series("prompt", [text() for _ in range(count)])


def test_the_compiled_pass_writes_what_the_general_functions_write():
    values = texts(0, 50_000)
    assert normalise(values).equals(normalise_any(values), check_names=True)


def test_slices_nulls_and_nothing():
    values = texts(1, 300)
    for some in (
        values[7:90],
        values[:0],
        pl.Series("prompt", [None, None], dtype=pl.String),
        values.filter([True] * 300),
    ):
        assert normalise(some).equals(normalise_any(some), check_names=True)
