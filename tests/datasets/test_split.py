"""Rows that belong together stay together, shares are kept in every stratum, and added rows move no old ones."""

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.datasets import schema
from llmops_assets.datasets.split import SPLITS, across, assign, metadata, traits

RATIOS = (0.8, 0.1, 0.1)


def table(categories: list[str | None], groups: list[int] | None = None, start: int = 0) -> pl.DataFrame:
    count = len(categories)
    return pl.DataFrame(
        {
            "row_id": [f"{(start + i) * 2654435761 % 2**32:08x}" for i in range(count)],
            "messages": [
                [{"role": "user", "content": f"질문 {start + i}"}, {"role": "assistant", "content": "답"}]
                for i in range(count)
            ],
            "category": categories,
            "extra": [f'{{"conversation":"c{g}"}}' for g in (groups or range(count))],
        },
        schema={"row_id": pl.String, "messages": schema.MESSAGES, "category": pl.String, "extra": pl.String},
    )


def counts(split: pl.Series) -> dict[str, int]:
    return dict.fromkeys(SPLITS, 0) | dict(split.value_counts().iter_rows())


def test_the_shares_are_kept_overall_and_in_every_stratum():
    categories = ["toll"] * 2000 + ["refund"] * 500 + ["lost"] * 100
    rows = table(categories)
    split = assign(rows, "sft_pair")
    for name, ratio in zip(SPLITS, RATIOS, strict=True):
        for category in ("toll", "refund", "lost"):
            have = ((split == name) & (rows["category"] == category)).sum()
            want = ratio * categories.count(category)
            assert abs(have - want) <= max(0.1 * want + 1, 1), (name, category, have, want)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_small_strata_are_trained_first_then_tested(count):
    split = assign(table(["common"] * 300 + ["rare"] * count), "sft_pair")[300:]
    have = counts(split)
    assert have["train"] >= 1
    assert (have["test"] >= 1) == (count >= 2)
    assert (have["validation"] >= 1) == (count >= 3)


def test_a_missing_category_is_a_stratum_of_its_own():
    split = assign(table([None] * 100 + ["toll"] * 100), "sft_pair")
    assert counts(split[:100])["test"] in range(8, 13)


def test_added_rows_move_hardly_any_old_ones():
    rng = random.Random(1)
    categories = [rng.choice("abc") for _ in range(2000)]
    before = assign(table(categories), "sft_pair")
    after = assign(table(categories + [rng.choice("abc") for _ in range(600)]), "sft_pair")
    assert (before != after[:2000]).sum() <= 20


def test_the_seed_changes_the_split_and_the_order_of_rows_does_not():
    rows = table(["a", "b"] * 100)
    split = assign(rows, "sft_pair", seed=1)
    assert not split.equals(assign(rows, "sft_pair", seed=2))
    order = list(range(200))
    random.Random(5).shuffle(order)
    assert assign(rows[order], "sft_pair", seed=1).to_list() == split.gather(order).to_list()


def test_equal_prompts_stay_together():
    rows = table(["a"] * 200)
    same = rows.with_columns(messages=pl.Series([rows["messages"][i // 2] for i in range(200)], dtype=schema.MESSAGES))
    split = assign(same, "sft_pair")
    assert across(pl.Series([str(i // 2) for i in range(200)]), split) == []


def test_clusters_stay_together():
    rows = table(["a"] * 200)
    clusters = pl.DataFrame({"row_id": rows["row_id"], "cluster": [f"k{i % 40}" for i in range(200)]})
    split = assign(rows, "sft_pair", clusters=clusters)
    assert across(clusters["cluster"], split) == []
    assert min(counts(split).values()) > 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.integers(0, 25)), min_size=1, max_size=120),
    st.integers(0, 5),
)
def test_no_group_is_ever_torn(rows, seed):
    frame = table([category for category, _ in rows], [group for _, group in rows])
    split = assign(frame, "sft_pair", group_by="conversation", seed=seed)
    assert across(metadata(frame, "conversation"), split) == []
    assert split.null_count() == 0
    assert counts(split)["train"] > 0


def test_an_evaluation_suite_is_all_test():
    assert counts(assign(table(["a"] * 10), "eval_suite")) == {"train": 0, "validation": 0, "test": 10}


def test_a_share_of_nothing_gets_nothing():
    assert counts(assign(table(["a"] * 50), "sft_pair", ratios=(0.9, 0.0, 0.1)))["validation"] == 0


def test_shares_that_are_none_are_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        assign(table(["a"]), "sft_pair", ratios=(0.5, 0.1, 0.1))


def test_metadata_reaches_into_objects_and_text_is_as_it_was():
    rows = table(["a"]).with_columns(extra=pl.lit('{"user":{"id":"글 \\"가\\""},"odd name":3}'))
    assert metadata(rows, "user.id").to_list() == ['글 "가"']
    assert metadata(rows, "odd name").to_list() == ["3"]
    assert metadata(rows, "absent").to_list() == [None]


def test_documents_without_a_prompt_are_split_too():
    documents = pl.DataFrame(
        {"row_id": [f"d{n}" for n in range(40)], "text": [f"문서 {n}" for n in range(40)], "extra": ["{}"] * 40}
    ).with_columns(category=pl.lit("manual"))
    table = traits(documents, "pretrain_corpus", stratify_by="category", group_by=None)
    assert table.height == 40 and table["prompt"].null_count() == 40
