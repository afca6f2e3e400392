"""Keeps generated texts apart: no two of them come near the Jaccard similarity that counts as a near duplicate."""

from collections import Counter, defaultdict


def shingles(text: str, size: int = 5) -> frozenset[str]:
    """Character n-grams of a text, the whole text where it is shorter than one."""
    return frozenset(text[i : i + size] for i in range(max(1, len(text) - size + 1)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over the size of the union."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


class Distinct:
    """Accepts a text unless it is as similar as `limit` to one accepted before under the same key.

    Texts of different keys are not compared; where they cannot be alike, a narrow key saves the time.
    """

    def __init__(self, limit: float):
        self.limit = limit
        self._sizes: dict[str, list[int]] = defaultdict(list)
        self._postings: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))

    def accepts(self, key: str, text: str) -> bool:
        """True, and the text is remembered, when nothing like it was accepted under this key."""
        grams = shingles(text)
        sizes, postings = self._sizes[key], self._postings[key]
        common = Counter(number for gram in grams if gram in postings for number in postings[gram])
        for number, shared in common.items():
            if shared >= self.limit * (len(grams) + sizes[number] - shared):
                return False
        for gram in grams:
            postings[gram].append(len(sizes))
        sizes.append(len(grams))
        return True
