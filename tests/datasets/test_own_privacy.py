"""What an installation decides: recognizers of its own, and whether personal data is masked, dropped or renamed."""

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.datasets import clean
from llmops_assets.datasets.quality import score
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import masking, pii, recognizers
from llmops_assets.privacy.pseudonyms import PseudonymKeyError, Pseudonyms, canonical, key_from
from llmops_assets.specs.dataset_rules import Pii
from llmops_assets.specs.policy import load_policy
from tests.datasets.test_privacy import SNIPPETS, TEXTS
from tests.datasets.test_quality import GOOD, table

KEY = "a secret of the house that is long enough"
OWN = [
    {"name": "사번", "type": "STAFF_ID", "regex": r"\bEX-?\d{5}\b", "score": 0.9, "placeholder": "[사번]"},
    {"name": "membership", "type": "MEMBER", "regex": r"\d{16}", "context": ["회원번호", "member"], "checksum": "luhn",
     "score": 0.99},
]  # fmt: skip


def rules(mode: str = "mask", **more: object) -> Pii:
    given = load_policy().datasets.pii.model_dump() | {"mode": mode, "names": False, "recognizers": OWN} | more
    return Pii.model_validate(given)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_PSEUDONYM_KEY", KEY)


def masked(text: str, how: pii.Detector) -> str:
    return pii.mask_texts(pl.Series([text]), how)[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("제 사번은 EX-12345입니다.", "제 사번은 [사번]입니다."),
        ("XEX-12345와 EX-123456", "XEX-12345와 EX-123456"),
        ("회원번호 4242424242424242로", "회원번호 [membership]로"),
        ("회원번호 4242424242424241로", "회원번호 4242424242424241로"),
        ("결제 4242424242424242로", "결제 [카드번호]로"),
    ],
)
def test_recognizers_of_the_house_mask_beside_the_others(text, expected):
    assert masked(text, pii.detector(rules(), "desk@v1")) == expected


PIECES = st.one_of(
    st.sampled_from([*SNIPPETS, "EX-12345", "EX12345는", "회원번호 4242424242424242", "ＥＸ－１２３４５"]),
    st.text(alphabet="EX-0123456789 가회원번호member４２", max_size=24),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(TEXTS, st.lists(PIECES, max_size=4).map(" ".join)), min_size=1, max_size=5))
def test_the_prefilter_changes_nothing_with_own_recognizers(texts):
    how = pii.detector(rules(), "desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pii, "_FEW", 0)
        found = pii.find(pl.Series(texts, dtype=pl.String), how)
    alone = [(n, s.start, s.end, s.type) for n, text in enumerate(texts) for s in masking.find(text, how.patterns)]
    assert found.select("text", "start", "end", "type").rows() == alone


def test_presidio_runs_the_recognizers_of_the_house_too():
    how = pii.detector(rules(), "desk")
    engine = recognizers.analyzer(how.patterns, with_names=False)
    for text in ("사번 EX-12345이고 회원번호 4242424242424242", "결제 4242424242424242", "ＥＸ－１２３４５입니다"):
        assert recognizers.find(engine, text) == masking.find(text, how.patterns)


@pytest.mark.parametrize(
    ("type_", "one", "other"),
    [
        ("PHONE_NUMBER", "+82 10-1234-5678", "０１０.1234.5678"),
        ("PERSON", "홍길동", "홍길동 "),
        ("EMAIL_ADDRESS", "Kim@Example.com", "kim@example.com"),
        ("KR_RRN", "900101-1234567", "900101 1234567"),
    ],
)
def test_the_same_person_has_the_same_stand_in(type_, one, other):
    names = Pseudonyms("desk", KEY.encode())
    assert canonical(type_, one) == canonical(type_, other)
    assert names.of(type_, one, "[x]") == names.of(type_, other, "[x]")
    assert names.of(type_, one, "[x]") != Pseudonyms("other", KEY.encode()).of(type_, one, "[x]")
    assert names.of(type_, one, "[x]") != Pseudonyms("desk", KEY[1:].encode()).of(type_, one, "[x]")
    assert names.of(type_, one, "[x]") != names.of(type_, one + "9", "[x]")
    assert KEY not in repr(names)


def test_stand_ins_are_typed_and_the_same_in_all_versions_of_a_dataset(key):
    text = "홍길동의 전화번호는 010-1111-2222이고, 김철수의 전화번호는 010-3333-4444, 홍길동의 메일은 a@example.com"
    one, other = pii.detector(rules("pseudonymise"), "desk@v1"), pii.detector(rules("pseudonymise"), "desk@v2")
    found = masked(text, one)
    assert found == masked(text, other) != masked(text, pii.detector(rules("pseudonymise"), "shop@v1"))
    names = re.findall(r"\[이름-([a-z]{6})\]", found)
    assert len(names) == 3 and names[0] == names[2] != names[1]
    assert len(re.findall(r"\[전화번호-[a-z]{6}\]", found)) == 2
    assert masked(text, one.shown) == re.sub(r"-[a-z]{6}\]", "]", found), "samples are masked, not renamed"


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_a_second_look_finds_nothing_in_what_was_renamed(text):
    how = pii.Detector(mode="pseudonymise", pseudonyms=Pseudonyms("desk", KEY.encode()))
    assert pii.find(pl.Series([masked(text, how)], dtype=pl.String), how).height == 0


def test_without_a_key_nothing_is_renamed(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMOPS_PSEUDONYM_KEY", raising=False)
    with pytest.raises(PseudonymKeyError, match="LLMOPS_PSEUDONYM_KEY is not set"):
        pii.detector(rules("pseudonymise"), "desk@v1")
    with pytest.raises(PseudonymKeyError, match="fewer than 16"):
        key_from({"LLMOPS_PSEUDONYM_KEY": "short"})
    with pytest.raises(PseudonymKeyError, match="cannot be read"):
        key_from({"LLMOPS_PSEUDONYM_KEY_FILE": str(tmp_path / "absent")})
    (tmp_path / "key").write_text(KEY + "\n", encoding="utf-8")
    assert key_from({"LLMOPS_PSEUDONYM_KEY_FILE": str(tmp_path / "key")}) == KEY.encode()


@pytest.mark.parametrize("dataset_type", ["sft_pair", "eval_suite"])
def test_rows_with_personal_data_are_dropped_with_what_was_in_them(dataset_type):
    rows = table(
        ("환불은 언제 되나요? 번호는 010-1111-2222입니다.", GOOD),
        ("영수증을 다시 받을 수 있나요?", "네, 누리집의 이용 내역에서 다시 받을 수 있습니다."),
    )
    cleaning = clean.cleaning(
        rows,
        dataset_type,
        clusters=duplicates.find(rows, dataset_type).clusters,
        scores=score.scores(rows, dataset_type),
        lowest_score=0.3,
        personal=pii.detector(rules("drop"), "desk"),
    )
    kept = pl.concat(list(cleaning.frames()))
    if dataset_type == "eval_suite":
        assert kept.height == 2 and cleaning.dropped.height == 0 and cleaning.masked == {"PHONE_NUMBER": 1}
    else:
        assert kept["row_id"].to_list() == ["r1"]
        assert cleaning.dropped.rows() == [("r0", "personal data", "PHONE_NUMBER 1")]
