"""The row that a text was first met in is found again, however many batches lie between."""

import random

import polars as pl

from llmops_assets.datasets.clean import DROPPED, FirstMet


def rows(given: list[tuple[str, int, int]]) -> pl.DataFrame:
    schema = {"row_id": pl.String, "whole": pl.UInt64, "whole2": pl.UInt64}
    return pl.DataFrame(given, schema=schema, orient="row")


def test_a_text_that_was_met_before_is_named_with_its_first_row():
    met = FirstMet()
    assert met.repeats(rows([("a", 1, 1), ("b", 2, 1), ("c", 1, 1)])).rows() == [
        ("c", "duplicate after masking", "of a")
    ]
    # One hash alone does not make two texts the same.
    assert met.repeats(rows([("d", 1, 2), ("e-with-a-longer-name", 2, 1)])).rows() == [
        ("e-with-a-longer-name", "duplicate after masking", "of b")
    ]
    assert met.repeats(rows([("f", 1, 2)])).rows() == [("f", "duplicate after masking", "of d")]
    assert met.repeats(rows([])).schema == DROPPED


def test_it_finds_what_a_dictionary_finds():
    random.seed(4)
    met, first, number = FirstMet(), {}, 0
    for _ in range(20):
        batch, wanted = [], []
        for _ in range(50):
            text, number = (random.choice((5, 6, 2**64 - 1)), random.randrange(200)), number + 1
            batch.append((f"row{number}", *text))
            stays = first.setdefault(text, f"row{number}")
            if stays != f"row{number}":
                wanted.append((f"row{number}", f"of {stays}"))
        assert met.repeats(rows(batch)).select("row_id", "detail").rows() == wanted
