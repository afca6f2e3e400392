"""Every setting is documented, in one place, and the page in docs/ says the same."""

import re

from llmops_assets.cli.settings import FOR_A_SERVER, FROM_THE_ENVIRONMENT, SET_BY_THE_PLATFORM, rows
from llmops_assets.local.stack import REPOSITORY, environment
from llmops_assets.specs.settings import Settings


def page() -> str:
    lines = ["# Settings", "", "Environment variables, or lines of a `.env` file in the working directory.", ""]
    lines += ["| variable | default | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{r['variable']}` | {r['default']} | {r['meaning']} |" for r in rows(Settings())]
    for title, variables in (
        ("Read from the environment alone, not from a `.env` file:", FROM_THE_ENVIRONMENT),
        ('Of a server (`make server SET="NAME=VALUE …"`, `deploy/compose.yaml`):', FOR_A_SERVER),
        ("Set by the platform for its own processes, never by hand:", SET_BY_THE_PLATFORM),
    ):
        lines += ["", title, "", "| variable | meaning |", "| --- | --- |"]
        lines += [f"| `{variable}` | {meaning} |" for variable, meaning in variables.items()]
    return "\n".join(lines) + "\n"


def test_every_variable_that_the_code_names_is_on_the_page():
    code = [
        path
        for folder in ("llmops_assets", "resources", "sensors", "images", "deploy")
        for path in (REPOSITORY / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".yml", ".html", "") and path.is_file()
    ]
    named = {
        name
        for path in code
        # `LLMOPS_LLM_KEY_…` is a name that a user makes.
        for name in re.findall(r"\bLLMOPS_[A-Z0-9_]*[A-Z0-9]\b", path.read_text(encoding="utf-8", errors="replace"))
    }
    assert len(named) > 20
    documented = set(re.findall(r"`(LLMOPS_[A-Z0-9_]+)`", page()))
    assert named - documented == set()


def test_every_setting_has_a_meaning():
    assert [r["variable"] for r in rows(Settings()) if not r["meaning"].endswith(".")] == []


def test_the_settings_page_is_up_to_date():
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == page()


def test_a_password_in_a_url_is_never_shown(monkeypatch):
    monkeypatch.setenv("LLMOPS_CATALOG_URL", "postgresql+psycopg://kim:hunter2@db/llmops")
    shown = {r["variable"]: r["value"] for r in rows(Settings())}
    assert shown["LLMOPS_CATALOG_URL"] == "postgresql+psycopg://kim:***@db/llmops"


def test_components_get_the_settings_that_were_given_wherever_they_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(
        "LLMOPS_GATEWAY_ACCESS=on\nLLMOPS_JWT_SECRET_FILE=secret\nLLMOPS_WATERMARK_KEY=hidden\nLLMOPS_GATEWAY_WORKERS=2\n"
    )
    given = environment(Settings())
    monkeypatch.chdir("/")
    assert given["LLMOPS_GATEWAY_ACCESS"] == "on" and given["LLMOPS_GATEWAY_WORKERS"] == "2"
    assert given["LLMOPS_JWT_SECRET_FILE"] == str(tmp_path / "secret")
    assert given["LLMOPS_WATERMARK_KEY"] == "hidden"
    assert "LLMOPS_GATEWAY_LIMITS" not in given
    monkeypatch.setenv("LLMOPS_GATEWAY_ACCESS", "off")
    assert environment(Settings())["LLMOPS_GATEWAY_ACCESS"] == "off"
