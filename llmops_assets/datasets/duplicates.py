"""Exact and near duplicates: MinHash signatures by datasketch's permutations, sorted bands, and exact verification."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from llmops_assets.datasets import texts

SAME_QUESTION = 0.7
"""Rows with one and the same answer are duplicates only when their prompts are this similar (Jaccard): one answer to
many questions is how a help desk works."""

LARGEST_BUCKET = 64
"""Rows of one bucket that are compared all with all; in a larger one each is compared with a few before it."""

_BLOCK_SHINGLES = 1 << 17


@dataclass(frozen=True)
class Near:
    """Which rows are near duplicates: `bands` × `rows` hash values, character `shingle`-grams, Jaccard ≥ `jaccard`."""

    bands: int = 16
    rows: int = 8
    shingle: int = 5
    jaccard: float = 0.8
    seed: int = 1


@dataclass(frozen=True)
class Duplicates:
    """`clusters`: row_id, cluster (row_id of its kept row), kept, exact; only rows of clusters with two or more."""

    clusters: pl.DataFrame
    exact: int
    near: int


CLUSTERS = {"row_id": pl.String, "cluster": pl.String, "kept": pl.Boolean, "exact": pl.Boolean}


def normalised(text: pl.Expr) -> pl.Expr:
    """Compatibility forms unified, lower case, white space collapsed: differences that make no other text."""
    return text.str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()


def shingles(documents: pl.Series, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the character n-grams of each document.

    Returns the hashes of all documents one after another (uint32) and the start of each document among them, with
    the total at the end (int64, one more than documents). A document shorter than `size` is one shingle.
    """
    lengths = documents.str.len_chars().to_numpy().astype(np.int64)
    # Every document is padded to `size` characters, so that each has a window of its own.
    joined = "".join(documents.str.pad_end(size, "\0").to_list())
    padded = np.maximum(lengths, size)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    windows = max(len(points) - size + 1, 0)
    hashes = np.zeros(windows, dtype=np.uint64)
    for step in range(size):
        hashes ^= points[step : step + windows]
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    counts = padded - size + 1
    starts = np.concatenate(([0], np.cumsum(counts)))
    # Windows that reach over the end of a document are no shingles.
    inside = np.ones(len(points), dtype=bool)
    ends = np.cumsum(padded)
    for step in range(1, size):
        inside[ends - step] = False
    return (hashes[inside[:windows]] >> np.uint64(32)).astype(np.uint32), starts


def signatures(hashes: np.ndarray, starts: np.ndarray, permutations: int, seed: int = 1) -> np.ndarray:
    """MinHash signatures, uint32 of shape (documents, permutations), as datasketch's scheme ``affine32`` has them.

    Each shingle hash is mixed once by MurmurHash3's finalizer, then mapped by a·h + b modulo 2³².
    """
    from datasketch import MinHash

    a, b = (np.asarray(values, dtype=np.uint32) for values in MinHash(permutations, seed=seed).permutations)
    documents = len(starts) - 1
    result = np.empty((permutations, documents), dtype=np.uint32)
    mixed = _finalize(hashes)
    begin = 0
    while begin < documents:
        # Blocks of whole documents that fit the cache: the permuted values never leave it.
        end = int(np.searchsorted(starts, starts[begin] + _BLOCK_SHINGLES, side="right")) - 1
        end = min(max(end, begin + 1), documents)
        folded, edges = _eightfold(mixed[starts[begin] : starts[end]], starts[begin : end + 1] - starts[begin])
        permuted = np.empty_like(folded)
        smallest = np.empty(folded.shape[1], dtype=np.uint32)
        for index in range(permutations):
            np.multiply(folded, a[index], out=permuted)
            np.add(permuted, b[index], out=permuted)
            np.minimum.reduce(permuted, axis=0, out=smallest)
            result[index, begin:end] = np.minimum.reduceat(smallest, edges)
        begin = end
    return np.ascontiguousarray(result.T)


def _eightfold(values: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values in eight rows, so that the minimum of a document is taken by columns first, which processors do at once.

    Each document is filled up to a multiple of eight with its own last value. Returns the rows, of shape
    (8, columns), and the first column of each document.
    """
    sizes = np.diff(starts)
    columns = -(-sizes // 8)
    edges = np.concatenate(([0], np.cumsum(columns)))
    offset = np.arange(8 * edges[-1]) - np.repeat(8 * edges[:-1], 8 * columns)
    index = np.repeat(starts[:-1], 8 * columns) + np.minimum(offset, np.repeat(sizes - 1, 8 * columns))
    return np.ascontiguousarray(values[index].reshape(-1, 8).T), edges[:-1]


def _finalize(values: np.ndarray) -> np.ndarray:
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values ^= values >> np.uint32(13)
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def candidate_pairs(signature: np.ndarray, bands: int) -> np.ndarray:
    """Pairs (smaller, larger) of documents that agree in at least one band; int64 of shape (pairs, 2), unique."""
    documents, permutations = signature.shape
    rows = permutations // bands
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(bands):
        key = np.full(documents, np.uint64(band + 1))
        for row in range(rows):
            key = (key ^ signature[:, band * rows + row].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(32)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        # Neighbours at distance 1, 2, … of one bucket; buckets are small, so the distances soon run out.
        distance = 1
        while distance < LARGEST_BUCKET:
            same = ordered[distance:] == ordered[:-distance]
            if not same.any():
                break
            found.append(np.stack((order[:-distance][same], order[distance:][same]), axis=1))
            distance += 1
    pairs = np.concatenate(found)
    return np.unique(pairs, axis=0)


def jaccard(pairs: np.ndarray, hashes: np.ndarray, starts: np.ndarray, block: int = 20_000) -> np.ndarray:
    """Exact Jaccard similarity of the shingle sets of each pair, float64 of shape (pairs,)."""
    result = np.empty(len(pairs))
    for begin in range(0, len(pairs), block):
        part = pairs[begin : begin + block]
        sizes = (starts[part + 1] - starts[part]).astype(np.int64)
        number = np.repeat(np.arange(len(part)), sizes.sum(axis=1))
        # For each pair the shingles of both documents, side by side.
        flat_sizes = sizes.ravel()
        ends = np.cumsum(flat_sizes)
        index = (
            np.arange(ends[-1]) - np.repeat(ends - flat_sizes, flat_sizes) + np.repeat(starts[part.ravel()], flat_sizes)
        )
        side = np.repeat(np.tile([0, 1], len(part)), flat_sizes).astype(np.uint64)
        keys = (number.astype(np.uint64) << np.uint64(33)) | (hashes[index].astype(np.uint64) << np.uint64(1)) | side
        keys.sort()
        both = keys[np.concatenate(([True], keys[1:] != keys[:-1]))] >> np.uint64(1)
        shared = np.bincount((both[1:][both[1:] == both[:-1]] >> np.uint64(32)).astype(np.int64), minlength=len(part))
        total = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(part))
        result[begin : begin + block] = shared / (total - shared)
    return result


def components(size: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `size` items the smallest item that it is connected with through `pairs`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    smallest = np.full(label.max(initial=-1) + 1, size, dtype=np.int64)
    np.minimum.at(smallest, label, np.arange(size))
    return smallest[label]


def near_pairs(documents: pl.Series, how: Near) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with a Jaccard similarity of at least `how.jaccard`, and that similarity.

    Broder's MinHash with locality-sensitive banding (Leskovec et al., Mining of Massive Datasets, chapter 3); every
    candidate is verified on the real sets, so precision is 1 and only recall depends on the bands.
    """
    hashes, starts = shingles(documents, how.shingle)
    pairs = candidate_pairs(signatures(hashes, starts, how.bands * how.rows, how.seed), how.bands)
    if not len(pairs):
        return pairs, np.empty(0)
    similarity = jaccard(pairs, hashes, starts)
    keep = similarity >= how.jaccard
    return pairs[keep], similarity[keep]


def find(rows: pl.DataFrame, dataset_type: str, how: Near | None = None) -> Duplicates:
    """Clusters of equal and nearly equal rows; of each the first row, in the order given, is the one to keep.

    Exact: equal after normalisation. Near: see `near_pairs`, over the whole text of a row. Rows of a chat with the
    same answer must ask nearly the same (`SAME_QUESTION`).
    """
    how = how or Near()
    table = rows.select(
        "row_id",
        normalised(texts.whole_of(dataset_type)).alias("whole"),
        normalised(texts.prompt_of(dataset_type)).alias("prompt"),
        normalised(texts.answer_of(dataset_type)).alias("answer"),
        pl.int_range(pl.len()).alias("row"),
    )
    firsts = table.group_by("whole", maintain_order=True).agg(pl.col("row"), pl.col("row").first().alias("first"))
    exact_pairs = (
        firsts.filter(pl.col("row").list.len() > 1)
        .explode("row")
        .filter(pl.col("row") != pl.col("first"))
        .select("first", "row")
        .to_numpy()
        .reshape(-1, 2)
        .astype(np.int64)
    )
    unique = table[firsts["first"].to_list()] if firsts.height < table.height else table
    pairs, _ = near_pairs(unique["whole"], how)
    if len(pairs) and unique["prompt"].null_count() < unique.height:
        answers = unique["answer"].to_numpy()
        same_answer = answers[pairs[:, 0]] == answers[pairs[:, 1]]
        if same_answer.any():
            hashes, starts = shingles(unique["prompt"], how.shingle)
            asked_alike = np.ones(len(pairs), dtype=bool)
            asked_alike[same_answer] = jaccard(pairs[same_answer], hashes, starts) >= SAME_QUESTION
            pairs = pairs[asked_alike]
    numbers = unique["row"].to_numpy()
    near = numbers[pairs] if len(pairs) else np.empty((0, 2), dtype=np.int64)
    root = components(table.height, np.concatenate((exact_pairs, near)))
    members = np.bincount(root, minlength=table.height)[root] > 1 if table.height else np.empty(0, dtype=bool)
    index = np.flatnonzero(members)
    repeats = np.isin(index, exact_pairs[:, 1])
    ids = table["row_id"].gather(index)
    clusters = pl.DataFrame(
        {
            "row_id": ids,
            "cluster": table["row_id"].gather(root[index]),
            "kept": pl.Series(root[index] == index, dtype=pl.Boolean),
            "exact": pl.Series(repeats, dtype=pl.Boolean),
        },
        schema=CLUSTERS,
    )
    dropped = clusters.filter(~pl.col("kept"))
    exact = dropped.filter("exact").height
    return Duplicates(clusters=clusters, exact=exact, near=dropped.height - exact)
