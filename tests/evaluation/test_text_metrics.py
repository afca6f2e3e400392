"""Scores of Korean text, against sacrebleu and rouge-score, and the traps that make them say nothing."""

import unicodedata

import pytest

from llmops_assets.evaluation import text_metrics as t

SAID = ["환불은 3일 안에 처리됩니다.", "통행료는 요금소에서 냅니다.", "모릅니다."]
WANTED = ["환불은 사흘 안에 처리됩니다.", "통행료는 요금소에서 카드로 냅니다.", "분실물은 휴게소 안내소에 있습니다."]
REFERENCES = [(text,) for text in WANTED]


def test_bleu_and_chrf_are_sacrebleus_with_an_interval_around_them() -> None:
    from sacrebleu.metrics import BLEU, CHRF

    bleu, chrf = t.bleu(SAID, REFERENCES), t.chrf(SAID, REFERENCES)
    assert bleu.value == pytest.approx(BLEU(tokenize="ko-mecab").corpus_score(SAID, [WANTED]).score)
    assert chrf.value == pytest.approx(CHRF().corpus_score(SAID, [WANTED]).score)
    assert chrf.low < chrf.value < chrf.high and chrf.n == 3
    assert t.chrf(SAID, REFERENCES) == chrf, "the same seed gives the same interval"


def test_of_several_references_the_best_counts() -> None:
    twice = [(WANTED[0], SAID[0]), *REFERENCES[1:]]
    assert t.bleu(SAID, twice).value > t.bleu(SAID, REFERENCES).value
    assert t.rouge_items(SAID, twice, "rouge_l")[0] == 1


def test_decomposed_hangul_scores_as_composed() -> None:
    from sacrebleu.metrics import CHRF

    apart = [unicodedata.normalize("NFD", text) for text in WANTED]
    assert CHRF().corpus_score(apart, [WANTED]).score < 5, "the trap"
    assert t.chrf(apart, REFERENCES).value == pytest.approx(100)
    assert t.bleu(apart, REFERENCES).value == pytest.approx(100)
    assert t.rouge_items(apart, REFERENCES, "rouge1") == [1, 1, 1]


def test_rouge_reads_hangul_which_its_usual_tokenizer_drops() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    usual = RougeScorer(["rougeL"])
    assert usual.score("통행료는 얼마예요?", "통행료는 얼마예요?")["rougeL"].fmeasure == 0, "the trap"
    assert usual.score("GPT-4는 좋다", "GPT-4는 나쁘다")["rougeL"].fmeasure == 1, "the trap"
    assert t.rouge_items(["통행료는 얼마예요?"], [("통행료는 얼마예요?",)], "rouge_l") == [1]
    assert t.rouge_items(["GPT-4는 좋다"], [("GPT-4는 나쁘다",)], "rouge_l")[0] < 1


@pytest.mark.parametrize(("ours", "theirs"), [("rouge1", "rouge1"), ("rouge2", "rouge2"), ("rouge_l", "rougeL")])
def test_rouge_is_rouge_scores_over_the_same_tokens(ours: str, theirs: str) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    class Morphemes:
        def tokenize(self, text: str) -> list[str]:
            return t.morphemes(text)

    scorer = RougeScorer([theirs], tokenizer=Morphemes())
    expected = [scorer.score(wanted, said)[theirs].fmeasure for said, wanted in zip(SAID, WANTED, strict=True)]
    assert t.rouge_items(SAID, REFERENCES, ours) == pytest.approx(expected)


def test_entities_are_counted_one_by_one() -> None:
    estimate = t.entity_f1(["박:PS; 서울:LC", "없음"], ["박:PS; 부산:LC", "없음"])
    assert estimate.value == pytest.approx(0.5)
    assert t.entity_f1(["없음"], ["없음"]).value == 1
