"""The technical documentation of a model version: written from lineage, and from what people state of its gaps."""

from datetime import UTC, datetime

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused, Unavailable
from llmops_assets.registry.dossier.collect import collect
from llmops_assets.registry.dossier.content import LANGUAGES, Dossier, Language, gap_names, texts
from llmops_assets.registry.dossier.page import page
from llmops_assets.registry.dossier.pdf import NotPrinted, pdf
from llmops_assets.registry.dossier.sources import Sources
from llmops_assets.wiring import Wiring
from resources.catalog.statements import ModelStatement

LONGEST_STATEMENT = 20_000
"""Characters of one statement; a longer text is a document of its own, which a statement names."""


def dossier(wiring: Wiring, ref: str) -> Dossier:
    """What is known of a version now, with its gaps; raises UnknownModel."""
    version = wiring.tracking.version(ref)
    statements = wiring.catalog.statements.holding(version.name, version.version)
    sources = Sources(wiring.records, wiring.catalog, wiring.tracking, wiring.run_log, wiring.policy)
    return collect(version.ref, sources, statements, datetime.now(UTC))


def page_of(found: Dossier, language: str = "en") -> str:
    """A dossier as an HTML file that stands alone. Raises Refused for a language that it is not written in."""
    known: dict[str, Language] = {one: one for one in LANGUAGES}
    if language not in known:
        raise Refused(f"a dossier is written in {' or '.join(LANGUAGES)}, not in {language!r}")
    return page(found, known[language])


def dossier_page(wiring: Wiring, ref: str, language: str = "en") -> str:
    """What is known of a version now as an HTML file."""
    return page_of(dossier(wiring, ref), language)


def pdf_of(found: Dossier, language: str = "en") -> bytes:
    """The same as a PDF. Raises Unavailable, with what to install, where none can be printed on this machine."""
    text = page_of(found, language)
    try:
        return pdf(text)
    except NotPrinted as error:
        raise Unavailable(str(error)) from error


def dossier_pdf(wiring: Wiring, ref: str, language: str = "en") -> bytes:
    """What is known of a version now as a PDF."""
    return pdf_of(dossier(wiring, ref), language)


def gaps(wiring: Wiring, ref: str, language: str) -> list[tuple[str, str, ModelStatement | None]]:
    """Name, words in a language, and what was last stated, of everything that only a person can state of a version."""
    found = [gap for section in dossier(wiring, ref).sections for gap in section.gaps]
    return [
        (gap.name, texts()["gaps"][gap.name]["question"]["ko" if language == "ko" else "en"], gap.statement)
        for gap in found
    ]


def state(wiring: Wiring, actor: str, ref: str, gap: str, text: str) -> ModelStatement:
    """Keep what a person states about a gap of a version, with name and date; earlier statements stay on record.

    Raises Refused for a gap that a dossier does not have, an empty text, or one that is too long.
    """
    authorise(wiring, actor, "model.state")
    if gap not in gap_names():
        raise Refused(f"a dossier has no gap {gap!r}; it has {', '.join(gap_names())}")
    text = text.strip()
    if not text:
        raise Refused(f"the statement about {gap} is empty: a gap stays one until somebody says something")
    if len(text) > LONGEST_STATEMENT:
        raise Refused(f"the statement about {gap} has {len(text):,} characters; {LONGEST_STATEMENT:,} are kept")
    version = wiring.tracking.version(ref)
    return wiring.catalog.statements.add(version.name, version.version, gap, text, actor)
