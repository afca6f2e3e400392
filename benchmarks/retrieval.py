"""Recall and speed of an index on public questions, beside others: `python -m benchmarks.retrieval DATA`.

DATA is a folder with KoBEST's BoolQ (`kobest/BoolQ/{train,dev,test}.tsv`): questions with the paragraph that answers
each. All paragraphs are indexed, and the test questions asked; the paragraph of the row is the one that is right. The
encoder is a random BERT of 1.5M weights that learns from the training questions here, in a minute or so: dense figures
say what such a one gives, and nothing of a real one. Beside it, each on the same texts and in one process: `rank_bm25`
(0.2.2, `pip install rank_bm25`) over words and over our morphemes, and Qdrant's local mode with dense and
sparse vectors fused by itself, as its documentation sets hybrid search up. Milliseconds are of one question without
embedding it.
"""

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from llmops_assets.evaluation.retrieval import Found, Query, mean, passage_key
from llmops_assets.records.retrieval import IndexEncoder
from llmops_assets.retrieval.measure import MODES, found_for
from llmops_assets.retrieval.passages import of_rows
from resources.encryption import NO_KEYS
from resources.retrieval.bm25 import description, question_terms, sparse_rows, words
from resources.retrieval.engine import CANDIDATES, Embedded, search
from resources.retrieval.files import PassageIndex, contents, version_of, write
from resources.stored_paths import StoredPaths


def rows_of(path: Path) -> list[tuple[str, str]]:
    """(question, paragraph) of a file of BoolQ."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["Question"].strip(), row["Text"].strip()) for row in csv.DictReader(file, delimiter="\t")]


def trained(pairs: Sequence[tuple[str, str]], folder: Path, steps: int) -> Any:
    """A small encoder that puts a question near its paragraph and away from the others of a batch."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules as parts
    from transformers import BertConfig, BertModel

    from images.train.tokenizer import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([text for pair in pairs for text in pair], 8000, 2, 256)
    sizes = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 256}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=256, **sizes)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    body = parts.Transformer(str(folder), max_seq_length=128)
    model = SentenceTransformer(
        modules=[body, parts.Pooling(body.get_embedding_dimension(), "mean"), parts.Normalize()], device="cpu"
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    order = np.random.default_rng(0)
    model.train()
    for _ in range(steps):
        batch = [pairs[i] for i in order.choice(len(pairs), 32, replace=False)]
        left, right = (
            model({k: v for k, v in model.preprocess([pair[side] for pair in batch]).items()})["sentence_embedding"]
            for side in (0, 1)
        )
        loss = torch.nn.functional.cross_entropy(left @ right.T / 0.05, torch.arange(len(batch)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def timed(ask: Callable[[int], Sequence[int]], count: int) -> tuple[list[Sequence[int]], float]:
    """What each question finds, and the median milliseconds that one takes."""
    found, seconds = [], []
    for number in range(count):
        began = time.perf_counter()
        found.append(ask(number))
        seconds.append(time.perf_counter() - began)
    return found, 1000 * statistics.median(seconds)


def report(name: str, found: Sequence[Found], milliseconds: float | None, built: float | None) -> None:
    """One line: recall at 1 and 10 with its 95 % interval, the mean reciprocal rank, and the times."""
    first, tenth = (mean([hit.recall(depth) for hit in found]) for depth in (1, 10))
    reciprocal = mean([hit.reciprocal() for hit in found])
    times = "" if milliseconds is None else f"{milliseconds:8.2f} ms"
    times += "" if built is None else f" {built:7.1f} s to build"
    interval = f"{tenth.value:.3f} ({tenth.low:.3f} to {tenth.high:.3f})"
    print(f"{name:<46} {first.value:.3f}   {interval}   {reciprocal.value:.3f} {times}", flush=True)


def as_found(questions: Sequence[Query], rows: Sequence[Sequence[int]], ids: Sequence[str]) -> list[Found]:
    """The same of what another program found, as numbers of passages."""
    found = []
    for question, hits in zip(questions, rows, strict=True):
        rank = {ids[row]: place for place, row in enumerate(hits, 1)}
        found.append(Found(question, (rank.get(question.relevant[0], len(ids) + 1),), (), ()))
    return found


def rank_bm25(
    texts: Sequence[str], questions: Sequence[Query], ids: Sequence[str], cut: Callable[[str], list[str]]
) -> Any:
    """rank_bm25's defaults over a tokenizer: what it finds, milliseconds, and seconds to build."""
    from rank_bm25 import BM25Okapi

    began = time.perf_counter()
    index = BM25Okapi([cut(text) for text in texts])
    built = time.perf_counter() - began
    rows, spent = timed(lambda n: np.argsort(-index.get_scores(cut(questions[n].text)))[:10].tolist(), len(questions))
    return as_found(questions, rows, ids), spent, built


def qdrant_local(index: PassageIndex, questions: Sequence[Query], vectors: np.ndarray, ids: Sequence[str]) -> Any:
    """Qdrant's local mode with both vectors and its own fusion: what it finds, milliseconds, and seconds to build."""
    from qdrant_client import QdrantClient
    from qdrant_client import models as m

    began = time.perf_counter()
    client = QdrantClient(":memory:")
    client.create_collection(
        "texts",
        vectors_config={"dense": m.VectorParams(size=index.facts.dimensions, distance=m.Distance.COSINE)},
        sparse_vectors_config={"sparse": m.SparseVectorParams(modifier=m.Modifier.IDF)},
    )
    for start in range(0, len(ids), 256):
        points = []
        for row in range(start, min(start + 256, len(ids))):
            terms, weights = index.sparse.row(row)
            both = {"dense": index.vectors[row].tolist(), "sparse": m.SparseVector(indices=terms, values=weights)}
            points.append(m.PointStruct(id=row, vector=both))
        client.upsert("texts", points)
    built = time.perf_counter() - began

    def ask(number: int) -> list[int]:
        terms = question_terms(questions[number].text)
        sparse = m.SparseVector(indices=terms, values=[1.0] * len(terms))
        sides = [
            m.Prefetch(query=vectors[number].tolist(), using="dense", limit=CANDIDATES),
            m.Prefetch(query=sparse, using="sparse", limit=CANDIDATES),
        ]
        fused = m.RrfQuery(rrf=m.Rrf(k=60))
        return [int(p.id) for p in client.query_points("texts", prefetch=sides, query=fused, limit=10).points]

    rows, spent = timed(ask, len(questions))
    return as_found(questions, rows, ids), spent, built


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--steps", type=int, default=120, help="of the encoder's training")
    parser.add_argument("--questions", type=int, default=700)
    options = parser.parse_args()
    folder = options.data / "kobest" / "BoolQ"
    splits = {name: rows_of(folder / f"{name}.tsv") for name in ("train", "dev", "test")}
    every = [pair for pairs in splits.values() for pair in pairs]
    columns = {"row_id": [str(n) for n in range(len(every))], "source": [None] * len(every)}
    columns |= {"positives": [[text] for _, text in every], "negatives": [[] for _ in every]}
    schema = {"source": pl.String, "negatives": pl.List(pl.String)}
    passages = of_rows([pl.DataFrame(columns, schema_overrides=schema)], "boolq@v1").frame
    texts, ids = contents(passages), passages["id"].to_list()
    asked = splits["test"][: options.questions]
    questions = [Query(str(n), text, "", (passage_key(own),)) for n, (text, own) in enumerate(asked)]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        began = time.perf_counter()
        model = trained(splits["train"], root / "encoder", options.steps)
        print(f"{len(texts):,} passages, {len(questions):,} questions; encoder: {time.perf_counter() - began:.0f} s")
        began = time.perf_counter()
        vectors = model.encode(texts, normalize_embeddings=True, batch_size=64, show_progress_bar=False)
        embedded = time.perf_counter() - began
        asked_vectors = model.encode([q.text for q in questions], normalize_embeddings=True, show_progress_bar=False)
        began = time.perf_counter()
        sparse = sparse_rows(texts)
        cut = time.perf_counter() - began
        encoder = IndexEncoder(ref="here", path=str(root), content_hash="here")
        version = version_of(passages, "boolq@v1", encoder, description())
        given = {"dataset": "boolq@v1", "recipe": "here", "encoder": encoder}
        paths = StoredPaths(root)
        index = write(root / version, passages, np.asarray(vectors), sparse, **given, keys=NO_KEYS, paths=paths)
        began = time.perf_counter()
        engine = Embedded(index)
        filled = time.perf_counter() - began
        print(f"build: {embedded:.1f} s of vectors, {cut:.1f} s of morphemes, {filled:.1f} s into the embedded Qdrant")
        print(f"{'':<46} at 1    at 10 (95 %)             MRR")
        for mode in MODES:
            found = found_for(engine, index, questions, asked_vectors, mode)

            def ask(number: int, mode: Any = mode) -> list[int]:
                question = questions[number].text
                return [h.row for h in search(engine, index, question, asked_vectors[number], 10, mode=mode)]

            _, spent = timed(ask, min(300, len(questions)))
            report(f"ours, {mode}", found, spent, cut + filled if mode == "hybrid" else None)
        for label, tokenizer in (("words", str.split), ("our morphemes", words)):
            try:
                report(f"rank_bm25 over {label}", *rank_bm25(texts, questions, ids, tokenizer))
            except ImportError:
                print("rank_bm25 is not installed: pip install rank_bm25")
                break
        few = questions[:100]
        found, spent, built = qdrant_local(index, few, asked_vectors, ids)
        report(f"Qdrant local mode, hybrid ({len(few)} questions)", found, spent, built)


if __name__ == "__main__":
    main()
