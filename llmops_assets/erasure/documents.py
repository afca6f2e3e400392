"""Takes a person out of registered documents: paragraphs of plain text, and whole files where the text is laid out."""

import re
from collections.abc import Callable

from llmops_assets.documents.extract import DocumentFault, read_document
from llmops_assets.documents.passages import cut

PLAIN = (".txt", ".md", ".markdown")
_PARAGRAPH = re.compile(r"[^\n]+(?:\n(?!\s*\n)[^\n]*)*\n*")


def theirs(name: str, data: bytes, in_text: Callable[[str], bool], passages: set[str], longest: int) -> set[int] | None:
    """Where the person stands in a document: starts of paragraphs or passages, in characters. None: nobody can tell.

    `passages` are the first 16 hex digits of the hashes of passages that rows of the person were made from, `longest`
    is what the document was cut with.
    """
    try:
        document = read_document(name, data)
    except DocumentFault:
        return None
    found = set()
    for page in document.pages:
        found |= {m.start() for m in _PARAGRAPH.finditer(page.text) if in_text(m.group())}
        if not found and in_text(page.text):
            # Torn by a blank line or the end of a page: which paragraph it is cannot be said.
            found.add(0)
    found |= {passage.start for passage in cut(document, longest) if passage.sha256[:16] in passages}
    return found


def without(name: str, data: bytes, in_text: Callable[[str], bool], passages: set[str], longest: int) -> bytes:
    """A document of plain text without those paragraphs and passages; nothing of one whose text is laid out."""
    if not name.lower().endswith(PLAIN):
        return b""
    document = read_document(name, data)
    text = document.pages[0].text
    for passage in reversed(cut(document, longest)):
        if passage.sha256[:16] in passages:
            text = text[: passage.start] + text[passage.end :]
    kept = "".join(m.group() for m in _PARAGRAPH.finditer(text) if not in_text(m.group()))
    # What is still there is torn over paragraphs, and goes with the document.
    return b"" if in_text(kept) else kept.encode()
