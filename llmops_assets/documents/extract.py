"""Reads the text of documents (txt, md, html, pdf), page by page; what cannot be read says why."""

import io
import re
import unicodedata
from dataclasses import dataclass, field
from html.parser import HTMLParser

SUFFIXES = (".txt", ".md", ".markdown", ".html", ".htm", ".pdf")

MOST_PAGES = 2000
"""Pages of a PDF that are read."""

LARGEST_PAGE = 2_000_000
"""Characters of a page that are kept: a crafted file may expand without end."""

_STUMBLES = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_UNSEEN = {"script", "style", "noscript", "template", "head", "nav", "footer", "svg", "iframe", "form"}
_BLOCKS = {"p", "div", "section", "article", "li", "tr", "table", "ul", "ol", "dl", "dt", "dd", "blockquote", "pre"}
_BLOCKS |= {"br", "hr", "main", "header", "aside", "figure", "figcaption", *_HEADINGS}


class DocumentFault(ValueError):
    """Why a document cannot be read."""


@dataclass(frozen=True)
class Page:
    """Text of one page in NFC; `number` counts a PDF's pages from 1, and is None where there are none."""

    number: int | None
    text: str


@dataclass
class Document:
    """A document's text by page, and the name that it was registered by."""

    name: str
    pages: list[Page] = field(default_factory=list)


def read_document(name: str, data: bytes) -> Document:
    """The text of a document by the suffix of its name; DocumentFault when there is none in it."""
    suffix = "." + name.lower().rsplit(".", 1)[-1] if "." in name else ""
    if suffix == ".pdf":
        pages = _pdf(data)
    elif suffix in (".html", ".htm"):
        pages = [Page(None, _html(_decoded(data)))]
    elif suffix in (".txt", ".md", ".markdown"):
        pages = [Page(None, _decoded(data))]
    else:
        raise DocumentFault(f"no reader for documents ending in {suffix or 'nothing'}: use {', '.join(SUFFIXES)}")
    pages = [Page(page.number, _normal(page.text)) for page in pages]
    if not any(page.text.strip() for page in pages):
        raise DocumentFault(
            "it holds no text (a scan?): recognise its text first" if suffix == ".pdf" else "it holds no text"
        )
    return Document(name, pages)


def _normal(text: str) -> str:
    lines = unicodedata.normalize("NFC", text[:LARGEST_PAGE]).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(char for char in lines if char in "\n\t" or unicodedata.category(char)[0] != "C")


def _decoded(data: bytes) -> str:
    for encoding in ("utf-8-sig", "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DocumentFault("it is not UTF-8: convert it, for example with `iconv -f CP949 -t UTF-8`")


def _pdf(data: bytes) -> list[Page]:
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise DocumentFault("it is protected by a password: remove that first")
        if len(reader.pages) > MOST_PAGES:
            raise DocumentFault(f"it has {len(reader.pages):,} pages, more than {MOST_PAGES:,}: split it")
        return [Page(number, page.extract_text()) for number, page in enumerate(reader.pages, start=1)]
    except DocumentFault:
        raise
    except (PyPdfError, *_STUMBLES) as error:
        # A damaged file makes the library stumble in many ways, and none of them is more than: it cannot be read.
        raise DocumentFault(f"it cannot be read as a PDF ({type(error).__name__}: {str(error)[:100]})") from error


class _Text(HTMLParser):
    """The visible text of a page: headings as in Markdown, blocks parted by blank lines."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self._line: list[str] = []
        self._hidden: list[str] = []
        self._prefix = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._hidden.append(tag)
        if tag in _BLOCKS:
            self._end_block()
        if tag in _HEADINGS:
            self._prefix = "#" * _HEADINGS[tag] + " "
        if tag in ("td", "th") and self._line:
            self._line.append(" | ")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._hidden:
            # A page may forget to close what is inside of it.
            del self._hidden[self._hidden.index(tag) :]
        if tag in _BLOCKS:
            self._end_block()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._line.append(data)

    def _end_block(self) -> None:
        text = re.sub(r"\s+", " ", "".join(self._line)).strip(" |")
        if text:
            self.blocks.append(self._prefix + text)
        self._line, self._prefix = [], ""

    def text(self) -> str:
        self.close()
        self._end_block()
        return "\n\n".join(self.blocks)


def _html(source: str) -> str:
    parser = _Text()
    parser.feed(source)
    return parser.text()
