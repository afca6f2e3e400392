"""The dossier of a model version: every text in two languages, gaps that people fill, facts with their sources."""

import os
import re
import string
import subprocess
import sys
from datetime import UTC, datetime
from html import unescape
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfReader

from llmops_assets.operations import dossiers
from llmops_assets.operations.errors import Refused, Unavailable
from llmops_assets.registry.dossier.content import (
    LANGUAGES,
    Dossier,
    Fact,
    Gap,
    Section,
    Source,
    gap_names,
    label,
    texts,
    words,
)
from llmops_assets.registry.dossier.monitoring import refused_at
from llmops_assets.registry.dossier.page import page
from llmops_assets.registry.dossier.pdf import pdf
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import Catalog
from resources.catalog.statements import ModelStatement
from tests.debian import font, library

AT = datetime(2026, 11, 30, 9, 0, tzinfo=UTC)


class Filler(string.Formatter):
    """Fills a template with a value that fits each field."""

    def fields(self, template: str) -> dict[str, object]:
        found = [(name, spec) for _, name, spec, _ in self.parse(template) if name]
        return {name: 0.5 if re.search("[eg%f]$", spec or "") else 7 if spec else f"<{name}>" for name, spec in found}


@pytest.mark.parametrize("name", texts()["facts"])
def test_every_fact_says_the_same_in_both_languages(name: str) -> None:
    templates = texts()["facts"][name]
    fields = [
        {field: value for part in ("label", "text") for field, value in Filler().fields(templates[part][one]).items()}
        for one in LANGUAGES
    ]
    assert fields[0].keys() == fields[1].keys()
    for language, values in zip(LANGUAGES, fields, strict=True):
        fact = Fact(name, Source("dataset", "a@v1"), values)
        assert label(fact, language) and words(fact, language)
    hangul = re.compile("[가-힣]")
    assert hangul.search(templates["label"]["ko"] + templates["text"]["ko"]) or templates["label"]["ko"].startswith("{")
    assert not hangul.search(templates["label"]["en"] + templates["text"]["en"])


def small() -> Dossier:
    stated = ModelStatement("a", 2, "provider", "<b>주식회사</b> 누리", "kim", AT)
    earlier = ModelStatement("a", 1, "misuse", "none yet", "lee", AT)
    facts = (
        Fact("weights", Source("registered_model", "d@v1|r"), {"sha": "ab12"}),
        Fact("check_failed", Source("adapter", "d@v1|r", "loss_fell"), {"name": "loss_fell", "text": "<script>"}),
    )
    gaps = (Gap("provider", stated), Gap("misuse", earlier), Gap("overseer"))
    return Dossier("a@2", AT, "0.1.0", (Section("security", facts, gaps),))


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_is_the_one_that_was_looked_at(language) -> None:
    written = page(small(), language)
    golden = Path(__file__).with_name(f"dossier.{language}.html")
    assert written == golden.read_text(encoding="utf-8"), f"look at the page, then keep it as {golden}"


@pytest.fixture(scope="module")
def printer() -> None:
    for name in ("pango-1.0", "pangoft2-1.0", "harfbuzz-subset"):
        library(name, {"harfbuzz-subset": "libharfbuzz-subset0"}.get(name, f"lib{name}-0"))
    font(":lang=ko", "fonts-nanum")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_pdf_says_what_the_page_says_in_text_that_can_be_read_out(printer, language: str) -> None:
    read = PdfReader(BytesIO(dossiers.pdf_of(small(), language)))
    shown = re.sub(r"\s+", "", "".join(one.extract_text() for one in read.pages))
    body = re.sub(r"<nav>.*?</nav>", "", page(small(), language).split("</head>")[1])
    for line in re.findall(r">([^<]+)<", body):
        assert re.sub(r"\s+", "", unescape(line)) in shown, line
    root = read.trailer["/Root"]
    assert root["/Lang"] == language and root["/MarkInfo"]["/Marked"] and "/StructTreeRoot" in root


def test_a_pdf_fetches_nothing(printer, tmp_path: Path) -> None:
    secret = tmp_path / "secret.css"
    secret.write_text("p::before { content: 'from the disk' }")
    text = (
        f'<!doctype html><html lang="en"><head><link rel="stylesheet" href="{secret.as_uri()}"></head><p>a</p></html>'
    )
    (only,) = PdfReader(BytesIO(pdf(text))).pages
    assert "from the disk" not in only.extract_text()


def test_letters_that_no_font_has_are_no_boxes_in_a_pdf(printer, tmp_path: Path) -> None:
    # matplotlib brings fonts of its own, without Korean.
    import matplotlib

    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    config = tmp_path / "fonts.conf"
    config.write_text(f"<fontconfig><dir>{fonts}</dir><cachedir>{tmp_path}</cachedir></fontconfig>")
    code = (
        "from llmops_assets.registry.dossier.pdf import NotPrinted, pdf\n"
        "assert pdf('<!doctype html><title>a</title><p>only Latin').startswith(b'%PDF')\n"
        "try:\n    pdf('<!doctype html><title>a</title><p>통행료')\n"
        "except NotPrinted as error:\n    print(error)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "FONTCONFIG_FILE": str(config)}, capture_output=True, text=True
    )
    assert "no font here has the letters 료통행: install fonts-noto-cjk" in found.stdout, found.stderr


def test_without_its_printer_a_pdf_is_refused_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(Unavailable, match=r"pip install 'llmops\[pdf\]'"):
        dossiers.pdf_of(small(), "ko")


def test_what_people_wrote_is_text_and_an_earlier_statement_stays_a_gap() -> None:
    written = page(small(), "ko")
    assert "<script>" not in written and "&lt;b&gt;주식회사" in written
    assert "http" not in written.split("</style>")[1], "a file for a closed network asks for nothing from elsewhere"
    assert small().open_gaps == ["misuse", "overseer"]


def test_statements_are_kept_by_version_with_name_and_date(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    catalog.statements.add("desk", 1, "provider", "the old address", "kim")
    catalog.statements.add("desk", 1, "provider", "the new address", "lee")
    catalog.statements.add("desk", 3, "provider", "of version 3", "lee")
    catalog.statements.add("other", 2, "provider", "of somebody else", "lee")
    held = catalog.statements.holding("desk", 2)["provider"]
    assert (held.version, held.text, held.author) == (1, "the new address", "lee")
    assert catalog.statements.holding("desk", 3)["provider"].text == "of version 3"
    assert [line["detail"] for line in catalog.audit_of("desk@1")] == [{"gap": "provider"}] * 2


@pytest.mark.parametrize(
    ("gap", "text", "reason"), [("colour", "x", "has no gap"), (gap_names()[0], " \n", "is empty")]
)
def test_a_statement_about_nothing_is_refused(tmp_path: Path, gap: str, text: str, reason: str) -> None:
    wiring = Wiring(Settings(home=tmp_path, _env_file=None))
    with pytest.raises(Refused, match=reason):
        dossiers.state(wiring, "kim", "desk@1", gap, text)


def test_what_was_refused_where_a_version_serves_is_told_without_a_name(tmp_path: Path) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}")
    rows = [
        {"id": f"r{n}", "at": AT, "endpoint": "desk", "key": key, "team": "", "reason": reason, "status": 400,
         "requests": count, "worker": None, "sequence": None, "is_sum": False}
        for n, (key, reason, count) in enumerate([("k1", "busy", 1200), ("", "content_filter", 3), ("k2", "busy", 1)])
    ]  # fmt: skip
    catalog.add_traffic([], [], rows)
    found = [words(refused_at(catalog, name), "en") for name in ("desk", "next")]
    assert found == [
        "endpoint desk: 1,204 on record reached no model (busy 1,201, content_filter 3), of 2 known callers and "
        "strangers",
        "endpoint next: none is on record",
    ]
