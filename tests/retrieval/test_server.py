"""With a Qdrant server, versions are collections, names are its aliases, and what fails there is named."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from resources.retrieval import engine
from resources.retrieval.bm25 import question_terms
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import Indexes, QdrantServer, UnknownIndex
from tests.retrieval.qdrant_server import FakeQdrant
from tests.retrieval.test_indexes import PASSAGES, index_of
from tests.serving.conftest import Upstream, free_port


@pytest.fixture(scope="module")
def qdrant() -> Iterator[tuple[FakeQdrant, str]]:
    fake = FakeQdrant(key="secret")
    upstream = Upstream(fake.app())
    yield fake, upstream.url
    upstream.stop()


@pytest.fixture
def indexes(qdrant: tuple[FakeQdrant, str], tmp_path: Path) -> Indexes:
    return Indexes(tmp_path / "artifacts" / "indexes", server=QdrantServer(qdrant[1], "secret"))


def test_it_finds_what_the_embedded_one_finds(indexes: Indexes, qdrant: tuple[FakeQdrant, str]) -> None:
    index = index_of(indexes, PASSAGES, dataset="same@v1")
    assert indexes.stage(index) == index.passages.height
    here, there = engine.Embedded(index), indexes.engine(index)
    assert there.name == qdrant[1] == indexes.address
    for row, question in enumerate(index.passages["text"][:6]):
        vector = index.vectors[row]
        one, other = (engine.search(e, index, question, vector, 5) for e in (here, there))
        # Passages of one rule differ by a place: many are as near as each other, and stand in any order.
        assert one[0].row == other[0].row == row
        scores = [np.array([score for _, score in e.matching(question_terms(question), 5)]) for e in (here, there)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_no_text_of_a_passage_is_sent_to_it(indexes: Indexes, qdrant: tuple[FakeQdrant, str]) -> None:
    index = index_of(indexes, PASSAGES[:20], dataset="texts@v1")
    indexes.stage(index)
    points, _ = qdrant[0].client.scroll(f"llmops-{index.facts.version}", limit=99)
    assert len(points) == 20 and {tuple(point.payload) for point in points} == {("passage",)}


def test_a_name_is_an_alias_that_moves_in_one_request(indexes: Indexes, qdrant: tuple[FakeQdrant, str]) -> None:
    first, second = (index_of(indexes, PASSAGES[:n], dataset="alias@v1") for n in (8, 9))
    with pytest.raises(UnknownIndex, match="there is no index 'alias'"):
        indexes.version("alias")
    for index in (first, second):
        indexes.stage(index)
    assert indexes.point("alias", first.facts.version) is None
    qdrant[0].asked.clear()
    assert indexes.point("alias", second.facts.version) == first.facts.version
    assert qdrant[0].asked.count("POST /collections/aliases") == 1
    assert Indexes(indexes.root, server=indexes.server).version("alias") == second.facts.version
    assert first.facts.version in indexes.collect(0.0)
    assert not qdrant[0].client.collection_exists(f"llmops-{first.facts.version}")
    indexes.remove_name("alias")
    assert "alias" not in indexes.aliases()


def test_a_version_that_is_half_there_is_written_to_its_end(indexes: Indexes, qdrant: tuple[FakeQdrant, str]) -> None:
    index = index_of(indexes, PASSAGES[:30], dataset="half@v1")
    assert indexes.stage(index) == 30
    qdrant[0].client.delete(f"llmops-{index.facts.version}", [3, 4, 5])
    assert indexes.stage(index) == 30
    qdrant[0].asked.clear()
    assert indexes.stage(index) == 30 and not any("PUT" in asked for asked in qdrant[0].asked)


def test_a_server_that_fails_or_is_away_or_knows_no_key_is_named(
    indexes: Indexes, qdrant: tuple[FakeQdrant, str], tmp_path: Path
) -> None:
    index = index_of(indexes, PASSAGES[:5], dataset="away@v1")
    indexes.stage(index)
    searching = indexes.engine(index)
    qdrant[0].fails = True
    try:
        with pytest.raises(EngineUnavailable, match="the search of llmops-"):
            searching.nearest(index.vectors[0], 3)
        with pytest.raises(EngineUnavailable, match="listing its aliases"):
            indexes.version("away")
    finally:
        qdrant[0].fails = False
    keyless = Indexes(tmp_path / "i", server=QdrantServer(qdrant[1]))
    with pytest.raises(EngineUnavailable, match="401"):
        keyless.aliases()
    away = Indexes(tmp_path / "i", server=QdrantServer(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(EngineUnavailable, match="failed at writing"):
        away.stage(index)
