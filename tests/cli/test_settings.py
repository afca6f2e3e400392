"""Every setting is documented, in one place, and the page in docs/ says the same."""

from llmops_assets.cli.settings import rows
from llmops_assets.cli.stack import REPOSITORY
from llmops_assets.specs.settings import Settings


def page() -> str:
    lines = ["# Settings", "", "Environment variables, or lines of a `.env` file in the working directory.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{r['variable']}` | {r['default']} | {r['meaning']} |" for r in rows(Settings())]
    return "\n".join(lines) + "\n"


def test_every_setting_has_a_meaning():
    assert [r["variable"] for r in rows(Settings()) if not r["meaning"].endswith(".")] == []


def test_the_settings_page_is_up_to_date():
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_a_password_in_a_url_is_never_shown(monkeypatch):
    monkeypatch.setenv("LLMOPS_CATALOG_URL", "postgresql+psycopg://kim:hunter2@db/llmops")
    shown = {r["variable"]: r["value"] for r in rows(Settings())}
    assert shown["LLMOPS_CATALOG_URL"] == "postgresql+psycopg://kim:***@db/llmops"
