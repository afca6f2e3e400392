"""Cuts documents into passages at headings and paragraphs, each with where it stands in its document."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from llmops_assets.documents.extract import Document, Page

SHORTEST = 20
"""Characters of a passage below which there is nothing to ask about: a page number, a lone heading."""

_BLOCK = re.compile(r"[^\n]+(?:\n(?!\s*\n)(?!#{1,6}\s)[^\n]*)*")
_HEADING = re.compile(r"#{1,6}\s+(?P<text>\S.*)|(?:제\s*\d+\s*[장절조]|\d+(?:\.\d+)*\.)\s+\S.{0,60}$")
_SENTENCE_END = re.compile(r"(?<=[.!?。])\s+|\n")


@dataclass(frozen=True)
class Passage:
    """`text` is ``page text[start:end]`` of the document as it was read, in characters."""

    document: str
    page: int | None
    start: int
    end: int
    heading: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the text, UTF-8, hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def cut(document: Document, longest: int) -> list[Passage]:
    """The passages of a document in order: at most `longest` characters each, none across a heading or a page."""
    found: list[Passage] = []
    heading = ""
    for page in document.pages:
        for start, end, heading in _spans(page, longest, heading):  # noqa: B020  a heading holds on the next page
            text = page.text[start:end]
            if len(text.strip()) >= SHORTEST:
                found.append(Passage(document.name, page.number, start, end, heading, text))
    return found


def _spans(page: Page, longest: int, heading: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and heading of each passage of a page."""
    start = end = None
    has_body = False
    for block in _BLOCK.finditer(page.text):
        first = block.group().splitlines()[0].strip()
        match = _HEADING.match(first)
        if match and has_body and start is not None:
            yield start, end, heading
            start = None
        if match:
            heading, has_body = (match["text"] or first).strip(), "\n" in block.group()
        elif start is not None and block.end() - start > longest:
            yield start, end, heading
            start = None
        has_body = has_body or not match
        if block.end() - block.start() > longest:
            if start is not None and start != block.start():
                yield start, end, heading
            for piece_start, piece_end in _pieces(page.text, block.start(), block.end(), longest):
                yield piece_start, piece_end, heading
            start, has_body = None, False
            continue
        start = block.start() if start is None else start
        end = block.end()
    if start is not None:
        yield start, end, heading


def _pieces(text: str, start: int, end: int, longest: int) -> Iterator[tuple[int, int]]:
    """A long block in pieces, cut behind sentences where there is one."""
    while end - start > longest:
        ends = [m.start() for m in _SENTENCE_END.finditer(text, start + longest // 2, start + longest)]
        at = ends[-1] if ends else start + longest
        yield start, at
        start = at
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end
