"""Toxic texts are flagged by a list or by a model of one's own, with whom they offend; no model can bring code."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from llmops_assets import intervals
from llmops_assets.cli import app
from llmops_assets.datasets.quality import bias
from llmops_assets.specs.dataset_rules import Toxicity
from llmops_assets.toxicity import scorers
from llmops_assets.toxicity.classifier import Transformers
from llmops_assets.toxicity.linear import Linear, read_labels, train
from llmops_assets.toxicity.scorer import ToxicityError
from llmops_assets.toxicity.scorers import Lexicon

WHO = {"drivers": ["운전자", "기사", "버스 기사"], "visitors": ["관광객", "방문객", "여행자"]}
BAD = ["전부 쓰레기다", "다 꺼졌으면 좋겠다", "제발 사라져라", "머리가 텅 비었다", "역겨워서 못 봐주겠다"]
FINE = ["오늘 많이 오셨네요", "안내를 잘 받았습니다", "표를 끊었어요", "길을 물어봤습니다", "내일 다시 온대요"]
START = ["솔직히", "요즘", "여기", "아침부터", "주말에", "어제 보니", "지난번"]


def labelled(count: int = 400, seed: int = 0) -> list[tuple[str, bool, list[str]]]:
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        group = rng.choice(list(WHO))
        bad = number % 3 == 0
        text = f"{rng.choice(START)} {rng.choice(WHO[group])}들 {rng.choice(BAD if bad else FINE)} {rng.randrange(99)}"
        rows.append((text, bad, [group] if bad else []))
    return rows


@pytest.fixture(scope="module")
def model() -> Linear:
    texts, toxic, groups = zip(*labelled(), strict=True)
    return train(texts, toxic, groups)[0]


def test_a_trained_model_flags_new_texts_and_names_whom_they_offend(model: Linear):
    found = model.groups(
        pl.Series(["솔직히 버스 기사들 전부 쓰레기다", "어제 관광객들 제발 사라져라", "길을 물어봤습니다", None])
    )
    assert found.to_list() == [["drivers"], ["visitors"], [], []]
    assert model.groups(pl.Series([], dtype=pl.String)).to_list() == []


def test_a_saved_model_judges_as_before_and_is_no_pickle(model: Linear, tmp_path: Path):
    path = tmp_path / "toxicity.safetensors"
    model.save(path)
    texts = [text for text, *_ in labelled(50, seed=1)]
    again = Linear.load(path)
    np.testing.assert_array_equal(model.probabilities(texts), again.probabilities(texts))
    assert (again.names, again.threshold) == (("drivers", "visitors"), model.threshold)
    assert Linear.load(path, 0.9).threshold == 0.9
    assert [p.name for p in tmp_path.iterdir()] == ["toxicity.safetensors"]
    for content in (b"\x80\x04N.", path.read_bytes()[:5000], b""):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ToxicityError, match="no toxicity model"):
            Linear.load(tmp_path / "bad")


def test_training_is_repeatable_and_wants_examples_of_both():
    texts, toxic, groups = zip(*labelled(120), strict=True)
    one, other = train(texts, toxic, groups), train(texts, toxic, groups)
    assert one[1] == other[1] and one[1].texts == 24
    np.testing.assert_array_equal(one[0].weights, other[0].weights)
    with pytest.raises(ToxicityError, match="3 toxic and 97 other"):
        train(["글"] * 100, [True] * 3 + [False] * 97)


def write(path: Path, rows: list[tuple[str, str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("글", "독성", "대상"), *rows])
    return path


def test_the_command_trains_from_a_file_and_the_policy_uses_what_it_wrote(tmp_path: Path):
    rows = [(text, "1" if bad else "0", ",".join(groups)) for text, bad, groups in labelled()]
    file = write(tmp_path / "labels.csv", [*rows, ("", "1", ""), ("글", "아마도", "")])
    out = tmp_path / "toxicity.safetensors"
    command = ["dataset", "train-toxicity", str(file), "--text", "글", "--label", "독성", "--group", "대상"]
    result = CliRunner().invoke(app, [*command, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert figures["groups"] == ["drivers", "visitors"] and figures["skipped"] == 2
    assert figures["f1"] > 0.95 and figures["texts"] == 80
    scorer = scorers.scorer(Toxicity(scorer="linear", path=str(out)))
    assert scorer.groups(pl.Series(["여행자들 역겨워서 못 봐주겠다"])).to_list() == [["visitors"]]
    wrong = CliRunner().invoke(app, [*command[:4], "본문", *command[5:], "--out", str(out)])
    assert wrong.exit_code == 1 and "no column '본문'" in " ".join(wrong.output.split())


def test_labels_that_say_neither_are_left_out(tmp_path: Path):
    found = read_labels(
        write(tmp_path / "l.csv", [("가", "Toxic", "a, b"), ("나", "clean", "c"), ("다", "?", "")]),
        "글",
        "독성",
        "대상",
    )
    assert (found.texts, found.toxic, found.groups, found.skipped) == (["가", "나"], [True, False], [["a", "b"], []], 1)


@pytest.mark.parametrize("given", [{"scorer": "linear"}, {"scorer": "lexicon", "path": "x"}])
def test_a_policy_names_a_model_where_one_is_needed(given):
    with pytest.raises(ValidationError, match="path"):
        Toxicity.model_validate(given)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with random weights: what it says means nothing, how it is asked does."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    letters = ["[PAD]", "[UNK]", *sorted({char for text, *_ in labelled() for char in text})]
    tokenizer = Tokenizer(models.WordLevel({c: n for n, c in enumerate(letters)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(letters), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=40, id2label={0: "clean", 1: "women", 2: "age"}, initializer_range=2.0,
    )  # fmt: skip
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    return folder


def test_a_local_classifier_flags_by_its_labels(classifier: Path):
    texts = [text for text, *_ in labelled(40, seed=2)] + ["가" * 500, ""]
    scorer = Transformers(classifier, threshold=0.4, clean=["clean"])
    judged = scorer.probabilities(texts)
    alone = [scorer.probabilities([text])[0] for text in texts]
    np.testing.assert_allclose(judged, alone, atol=1e-4)
    flagged = scorer.groups(pl.Series(texts)).to_list()
    assert any(flagged) and not all(flagged)
    for row, groups in zip(judged, flagged, strict=True):
        named = [label for label, p in zip(("women", "age"), row[1:], strict=True) if p >= 0.4]
        assert groups == (named or (["toxic"] if sum(row[1:]) >= 0.4 else []))


def test_only_a_folder_with_safetensors_and_harmless_labels_is_loaded(classifier: Path, tmp_path: Path):
    with pytest.raises(ToxicityError, match=r"config\.json is missing"):
        Transformers(tmp_path)
    (tmp_path / "config.json").write_text((classifier / "config.json").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    with pytest.raises(ToxicityError, match="pickled weights are not loaded"):
        Transformers(tmp_path)
    with pytest.raises(ToxicityError, match="clean_labels"):
        Transformers(classifier, clean=["clean", "women", "age"])


def test_the_list_names_whom_a_word_offends():
    found = Lexicon().groups(pl.Series(["저 틀딱들은 좀", "길이 막히네요", None]))
    assert found.to_list() == [["age"], [], []]


def test_groups_that_are_spoken_of_worse_are_named():
    counts = {
        "여성 운전자는 친절합니다": 40,
        "노인은 게으르다": 30,
        "요금이 얼마죠?": 100,
        "A kind woman and bad men": 1,
    }
    whole = pl.Series([text for text, count in counts.items() for _ in range(count)])
    toxic = pl.Series([False] * 40 + [True] * 25 + [False] * 5 + [False] * 98 + [True] * 2 + [False])
    parts = [bias.count(whole[:60], toxic[:60]), bias.count(whole[60:], toxic[60:])]
    found = {line["group"]: line for line in bias.disparity(parts)}
    assert list(found) == ["age", "women", "men"]
    age = found["age"]
    assert (age["rows"], age["toxic"], age["toxic_share"], age["times"]) == (30, 25, 0.8333, 41.67)
    assert age["differs"] and age["sentiment"] == -1.0
    assert found["women"]["rows"] == 41 and not found["women"]["differs"] and found["women"]["sentiment"] > 0.9
    assert found["men"]["sentiment"] == 0.0
    assert bias.disparity([]) == []


def test_counts_add_up_over_batches():
    texts = pl.Series([text for text, *_ in labelled(90)] + ["외국인 손님", "The elderly", None, "human women"])
    toxic = pl.Series([number % 4 == 0 for number in range(len(texts))])
    whole = bias.count(texts, toxic)
    parts = pl.concat([bias.count(texts[:33], toxic[:33]), bias.count(texts[33:], toxic[33:])])
    assert parts.group_by("group").sum().sort("group").equals(whole.sort("group"))
    assert dict(whole.select("group", "rows").iter_rows())["men"] == 0


def test_the_interval_of_a_share_is_wilsons():
    low, high = intervals.wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert intervals.wilson(0, 0) == (0.0, 1.0)
