"""An index is the same for the same passages, read by any number of readers, and never half of one or a changed one."""

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llmops_assets.records.retrieval import IndexEncoder
from llmops_assets.retrieval import passages as sources
from llmops_assets.retrieval import verdicts
from llmops_assets.retrieval.measure import exact_agreement
from llmops_assets.specs.policy import load_policy
from resources.encryption import Keyring, new_key
from resources.retrieval import bm25, engine, files
from resources.retrieval.files import IndexCorrupt, PassageIndex, contents
from resources.retrieval.indexes import Indexes, UnknownIndex
from tests.retrieval import desk

ENCODER = IndexEncoder(ref="finder@1", path="/nowhere", content_hash="encoder-1")


def frame_of(texts: list[str], rows: list[list[str]] | None = None) -> pl.DataFrame:
    made = pl.DataFrame(
        {
            "row_id": [str(n) for n in range(len(texts))] if rows is None else [r[0] for r in rows],
            "source": [None] * len(texts),
            "positives": [[text] for text in texts],
            "negatives": [[] for _ in texts],
        },
        schema_overrides={"source": pl.String, "negatives": pl.List(pl.String)},
    )
    return sources.of_rows([made], "desk@v1").frame


def index_of(indexes: Indexes, texts: list[str], seed: int = 0, dataset: str = "desk@v1") -> PassageIndex:
    frame = frame_of(texts)
    vectors = np.random.default_rng(seed).normal(size=(frame.height, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    version = files.version_of(frame, dataset, ENCODER, bm25.description())
    return files.write(
        indexes.folder(version),
        frame,
        vectors,
        bm25.sparse_rows(contents(frame)),
        dataset=dataset,
        recipe="r",
        encoder=ENCODER,
        keys=indexes.keys,
        paths=indexes.paths,
    )


PASSAGES = [row["positives"][0] for row in desk.rows()]


@pytest.fixture
def indexes(tmp_path: Path) -> Indexes:
    return Indexes(tmp_path / "artifacts" / "indexes")


def test_the_words_of_a_question_find_its_passage_whatever_particle_or_spelling(indexes: Indexes) -> None:
    index = index_of(indexes, PASSAGES)
    found = engine.Embedded(index)
    texts = index.passages["text"].to_list()
    for question in (
        "강변에서는 하이패스 단말기를 언제까지 교환하나요",
        "강변 영업소의 단말기 교환",
        "강변 단말기교환",
    ):
        best = found.matching(bm25.question_terms(question), 1)[0][0]
        assert "강변" in texts[best] and "단말기" in texts[best], texts[best]
    decomposed = "강변 영업소의 단말기 교환".encode().decode()
    import unicodedata

    same = bm25.question_terms(unicodedata.normalize("NFD", decomposed))
    assert same == bm25.question_terms(decomposed)
    assert bm25.question_terms("東京 タワー") and bm25.question_terms("!?") == []


def test_bm25_is_the_formula_of_robertson_and_zaragoza() -> None:
    rows = bm25.sparse_rows(["통행료 통행료 환불", "환불"])
    terms, weights = rows.row(0)
    toll = weights[terms.index(bm25.term_id("통행료"))]
    # Two of three terms, the average is two: 2 × 2.2 / (2 + 1.2 × (.25 + .75 × 3 / 2)).
    assert toll == pytest.approx(2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 1.5)), rel=1e-6)
    assert bm25.idf(2, np.array([1]))[0] == pytest.approx(np.log(1.5 / 1.5 + 1))


def test_what_both_sides_find_comes_first_and_what_is_excluded_is_found_by_nobody(indexes: Indexes) -> None:
    index = index_of(indexes, PASSAGES)
    found = engine.Embedded(index)
    row = next(n for n, text in enumerate(index.passages["text"]) if "산성" in text and "미납" in text)
    asked = index.passages["text"][row]
    hits = engine.search(found, index, asked, index.vectors[row], 5)
    assert (
        hits[0].row == row and hits[0].score == pytest.approx(2 / 61) and hits[0].cosine == pytest.approx(1, abs=1e-5)
    )
    assert [h.row for h in engine.search(found, index, asked, index.vectors[row], 5, excluded=[row])].count(row) == 0
    assert engine.search(found, index, "!?", index.vectors[row], 3, mode="sparse") == []
    assert exact_agreement(found, index, index.vectors[:20])[0] == 1.0


def test_the_same_passages_are_the_same_version_and_anything_else_is_another(indexes: Indexes, tmp_path: Path) -> None:
    frame = frame_of(PASSAGES)
    version = files.version_of(frame, "desk@v1", ENCODER, bm25.description())
    again = frame_of(list(reversed(PASSAGES)), [[str(n)] for n in reversed(range(len(PASSAGES)))])
    assert files.version_of(again, "desk@v1", ENCODER, bm25.description()) == version
    others = [
        (frame.head(5), "desk@v1", ENCODER),
        (frame, "desk@v2", ENCODER),
        (frame, "desk@v1", ENCODER.model_copy(update={"content_hash": "encoder-2"})),
        (frame, "desk@v1", ENCODER.model_copy(update={"query_prompt": "query: "})),
        (frame.with_columns(text=pl.col("text") + "."), "desk@v1", ENCODER),
    ]
    assert len({version, *(files.version_of(*other, bm25.description()) for other in others)}) == 6


def test_half_an_index_and_a_changed_one_are_refused_by_name(indexes: Indexes) -> None:
    index = index_of(indexes, PASSAGES[:9])
    version, folder = index.facts.version, indexes.folder(index.facts.version)
    assert indexes.read(version).passages.equals(index.passages)
    (folder / files.FACTS).rename(folder / "aside")
    with pytest.raises(IndexCorrupt, match="half written: build it again"):
        indexes.read(version)
    (folder / "aside").rename(folder / files.FACTS)
    for name in (files.PASSAGES, files.VECTORS, files.SPARSE):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IndexCorrupt, match=f"{name} was changed since it was written"):
            indexes.read(version)
        (folder / name).unlink()
        with pytest.raises(IndexCorrupt, match=f"{name} cannot be read"):
            indexes.read(version)
        (folder / name).write_bytes(whole)
    assert indexes.is_whole(version)


def test_with_a_key_no_passage_lies_in_the_clear(tmp_path: Path) -> None:
    keys = Keyring.parse(new_key())
    sealed = Indexes(tmp_path / "artifacts" / "indexes", keys)
    index = index_of(sealed, PASSAGES[:5])
    raw = b"".join(path.read_bytes() for path in sealed.folder(index.facts.version).iterdir())
    assert "영업소".encode() not in raw and b"PAR1" not in raw
    assert sealed.read(index.facts.version).passages.equals(index.passages)
    with pytest.raises(IndexCorrupt, match="cannot be read"):
        Indexes(sealed.root).read(index.facts.version)


def test_a_name_moves_in_one_step_and_old_versions_go_after_their_grace(indexes: Indexes) -> None:
    with pytest.raises(UnknownIndex, match="there is no index 'desk'; known are: none yet"):
        indexes.version("desk")
    first, second = index_of(indexes, PASSAGES[:5]), index_of(indexes, PASSAGES[:7])
    assert indexes.point("desk", first.facts.version) is None
    assert indexes.point("desk", second.facts.version) == first.facts.version
    assert indexes.point("desk", second.facts.version) == second.facts.version
    assert indexes.aliases() == {"desk": second.facts.version}
    assert indexes.collect() == [] and indexes.collect(0.0) == [first.facts.version]
    assert indexes.versions() == [second.facts.version]
    for wrong in ("../up", "a|b", ""):
        with pytest.raises(ValueError, match="partition key"):
            indexes.point(wrong, second.facts.version)
    (indexes.root / "aliases" / "desk.json").write_text("{")
    with pytest.raises(IndexCorrupt, match=r"desk\.json cannot be read"):
        indexes.version("desk")


def test_what_is_buried_stays_buried_and_its_name_tells_nothing(indexes: Indexes, tmp_path: Path) -> None:
    index = index_of(indexes, PASSAGES[:6])
    id = index.passages["id"][2]
    assert indexes.buried_in(index.passages["id"]) == []
    indexes.bury([id], 7)
    indexes.bury([], 8)
    assert Indexes(indexes.root).buried_in(index.passages["id"]) == [id]
    assert id not in (indexes.root / "tombstones.json").read_text()
    another = Indexes(tmp_path / "elsewhere")
    assert another.tombstone(id) != indexes.tombstone(id)
    (indexes.root / "tombstones.json").write_text("[")
    with pytest.raises(IndexCorrupt, match="nothing is served without it"):
        indexes.buried_in([id])


def test_passages_of_documents_are_masked_and_lead_back_to_where_they_stand() -> None:
    from llmops_assets.privacy import pii
    from llmops_assets.specs.dataset import GenerationSpec

    spec = GenerationSpec(endpoint="http://127.0.0.1:1/v1", model="m", passage_chars=300)
    text = (
        f"# 환불\n\n환불은 사흘 안에 계좌로 처리합니다. 담당자 전화는 {desk.PHONE}입니다.\n\n# 감면\n\n"
        + "감면 안내입니다. " * 9
    )
    given = [("manual.md", text.encode()), ("scan.pdf", b"no pdf")]
    found = sources.of_documents(given, spec, pii.detector(load_policy().datasets.pii, "m@v1"))
    assert found.frame["document"].unique().to_list() == ["manual.md"] and found.left_out == {"unreadable document": 1}
    assert desk.PHONE not in "".join(found.frame["text"]) and "[전화번호]" in "".join(found.frame["text"])
    for row in found.frame.filter(~pl.col("text").str.contains(r"\[전화번호\]")).iter_rows(named=True):
        assert text[row["start"] : row["end"]].strip() == row["text"]
    dropping = pii.detector(load_policy().datasets.pii.model_copy(update={"mode": "drop"}), "m@v1")
    assert sources.of_documents(given, spec, dropping).left_out["it holds personal data"] == 1


def test_each_verdict_says_what_is_wrong_and_what_to_do() -> None:
    assert verdicts.no_erased_passages("d@v1", "active", [], "d").passed
    assert "version that follows it" in verdicts.no_erased_passages("d@v1", "erased", [], "d").text
    assert "came back with it: p1" in verdicts.no_erased_passages("d@v1", "active", ["p1"], "d").text
    assert verdicts.same_encoder("e@1", "a", "a", "a").passed
    assert "restore the encoder" in verdicts.same_encoder("e@1", "a", "a", "b").text
    assert verdicts.counts_match(3, 3, 3, 3).passed and not verdicts.counts_match(3, 3, 3, 2).passed
    assert verdicts.finds_as_exact(1.0, 9, "embedded").passed
    assert "HNSW" in verdicts.finds_as_exact(0.9, 9, "http://q").text


def test_versions_can_be_read_by_many_at_once_and_after_they_were_moved(indexes: Indexes, tmp_path: Path) -> None:
    index = index_of(indexes, PASSAGES[:9])
    engines = [engine.Embedded(indexes.read(index.facts.version)) for _ in range(3)]
    assert len({tuple(e.nearest(index.vectors[0], 3)) for e in engines}) == 1
    shutil.move(indexes.root, tmp_path / "moved")
    assert Indexes(tmp_path / "moved").read(index.facts.version).facts.version == index.facts.version
