"""Prints a dossier's page as a PDF, tagged for screen readers (PDF/UA), with WeasyPrint where it is installed."""

import logging
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_NOT_IN_FONTS = re.compile(r'unsupported by fonts: "(.*)" \(U\+', re.S)
_ONE_AT_A_TIME = threading.Lock()
"""WeasyPrint tells of letters without a font in its log alone, which two threads would share."""
_LANGUAGES_OF_FONTS = "fonts-noto-cjk (Korean), fonts-noto-core (other scripts), fonts-noto-color-emoji"
_STYLE = """
@page { size: A4; margin: 18mm 16mm; @bottom-right { content: counter(page) " / " counter(pages); font-size: 8pt; } }
.laws, .source, .lead { color: #555; } th, td { border-top: 1px solid #ccc; }
.gap td, .gap th { background: #fbe8d0; }
"""
"""What print needs besides, and colours for what WeasyPrint does not know to mix."""


class NotPrinted(RuntimeError):
    """A PDF cannot be made here: it says what is missing, and how to install it."""


class _Missing(logging.Handler):
    """Collects the letters that no installed font has: their boxes would say nothing."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.letters: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if found := _NOT_IN_FONTS.search(record.getMessage()):
            self.letters |= set(found[1])


@contextmanager
def _missing() -> Iterator[_Missing]:
    log, handler = logging.getLogger("weasyprint"), _Missing()
    propagates, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield handler
    finally:
        log.removeHandler(handler)
        log.propagate = propagates


def pdf(page: str) -> bytes:
    """An HTML page that stands alone, as PDF; nothing that it names is fetched, from here or from elsewhere.

    Raises NotPrinted where WeasyPrint, the libraries that it calls, or a font for the page's letters is missing.
    """
    try:
        from weasyprint import CSS, HTML
        from weasyprint.urls import URLFetcher
    except ImportError as error:
        raise NotPrinted("a PDF is printed by WeasyPrint, which is not installed: pip install 'llmops[pdf]'") from error
    except OSError as error:
        raise NotPrinted(
            "WeasyPrint needs Pango, which is not installed: apt-get install libpango-1.0-0 libpangoft2-1.0-0 "
            f"libharfbuzz-subset0 ({error})"
        ) from error
    fetcher = URLFetcher(allowed_protocols=("data",))
    with _ONE_AT_A_TIME, _missing() as missing:
        document = HTML(string=page, url_fetcher=fetcher)
        printed: bytes = document.write_pdf(stylesheets=[CSS(string=_STYLE)], pdf_variant="pdf/ua-1")
    if missing.letters:
        letters = "".join(sorted(missing.letters))[:40]
        raise NotPrinted(f"no font here has the letters {letters}: install {_LANGUAGES_OF_FONTS}")
    return printed
