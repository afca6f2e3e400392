"""Reasons that operations give, on Korean pages: whole kinds of them are translated, with what they name."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.pofile import read_po

from images.console.web import i18n
from images.console.web.i18n import STATES
from images.console.web.reasons import said, templates, translated
from llmops_assets.local.stack import REPOSITORY

ERRORS = {"Refused", "Withheld", "Forbidden", "InUse", "Failed", "Unavailable", "Conflict", "NotFound", "NotPrinted"}
FAULTS = {"SpecFault", "Fault"}
NO_PAGE = {
    # What is asked for by the command alone, or on machines.
    "operations/access_table.py", "operations/api_keys.py", "operations/audit.py", "operations/backups.py",
    "operations/doctor_processes.py", "operations/rollbacks.py", "operations/upgrades.py",
    "operations/experiment_logs.py", "operations/history.py", "operations/indexes.py", "operations/keys.py",
    "operations/logins.py", "operations/prompts.py", "operations/retention.py", "operations/retrainings.py",
    "operations/spending.py", "operations/specs.py", "operations/suites.py", "operations/users.py",
    "operations/verification.py", "operations/versions.py",
    "specs/files.py", "specs/search.py",
}  # fmt: skip
COMPOSED = {"{}, but is {}", "should be {}, not {}"}
"""What `specs.base` puts together of texts that have translations as they come out."""
PLACES = ("llmops_assets/operations", "llmops_assets/specs", "llmops_assets/registry/dossier/pdf.py")
FIELD = re.compile(r"\{[^{}]*\}")
HANGUL = re.compile("[가-힣]")


def texts(node: ast.expr | None) -> Iterator[str]:
    """Every text that an expression may be, `{}` for what is put into it."""
    match node:
        case ast.Constant(value=str(text)):
            yield text.replace("{", "{{").replace("}", "}}")
        case ast.JoinedStr(values=values):
            yield "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in values)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (*texts(body), *texts(orelse))


def reasons(file: Path) -> Iterator[str]:
    """The errors that a module raises, and the faults of fields that it finds with their hints."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        given: list[ast.expr] = []
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            given = node.args[:1] if name in ERRORS else node.args[1:3] if name in FAULTS else []
        elif isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 3:
            given = node.value.elts[1:]
        elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and file.name == "base.py":
            given = node.value.elts
        for one in given:
            yield from (text for text in texts(one) if " " in FIELD.sub("", text).strip() and text not in COMPOSED)


def files() -> list[Path]:
    found = [f for place in PLACES for f in ([REPOSITORY / place] if place.endswith(".py") else [])]
    for place in PLACES[:2]:
        found += [f for f in sorted((REPOSITORY / place).rglob("*.py")) if "/".join(f.parts[-2:]) not in NO_PAGE]
    return found


@pytest.mark.parametrize("file", files(), ids=lambda file: "/".join(file.parts[-2:]))
def test_every_error_and_fault_that_a_page_may_show_is_said_in_korean(file: Path) -> None:
    # A state stands where only states may.
    filled = {
        text: [re.sub(r"(\{\})+", word, text).replace("{{", "{").replace("}}", "}") for word in ("QX7", "held")]
        for text in reasons(file)
    }
    missing = [
        text for text, tried in filled.items() if not any(HANGUL.search(translated(one, "ko") or "") for one in tried)
    ]
    assert missing == [], f"write these into reasons.ko.yaml: {missing}"


def test_a_translation_names_nothing_that_the_reason_does_not() -> None:
    for english, korean in templates("ko").items():
        assert HANGUL.search(korean) and not HANGUL.search(english)
        fields = [set(re.findall(r"\{(\w+)\}", text)) for text in (english, korean)]
        assert fields[1] <= fields[0], english


@pytest.mark.parametrize(
    ("given", "korean"),
    [
        ("kim may not do model.promote: ask someone who may", "kim: model.promote 권한이 없습니다. 권한이 있는"),
        ("base@1 is draft: have it approved before a training starts", "base@1: 초안 상태입니다. 학습을 시작하기 전에"),
        ("hyperparams.lr: should be less than or equal to 1, but is 7.0", "hyperparams.lr: 1 이하여야 합니다. 받은"),
        ("unknown key. Did you mean 'lr'?", "모르는 항목입니다. 'lr' 아닌가요?"),
        ("lr: unknown key\nmodel: required, but missing. Add 'model'", "lr: 모르는 항목입니다\nmodel: 있어야 하는데"),
        (
            "check accuracy_gate: accuracy of suite test is 0.018 (95 % interval 0.006 to 0.056, n = 332); the gate is "
            "accuracy of test >= 0.9 on 200 items or more. The model is not registered.",
            "점검 accuracy_gate: 평가 test의 accuracy: 0.018 (95 % interval 0.006 to 0.056, n = 332). 기준: acc",
        ),
        (
            "users rate desk@2 higher by 3.24 (95% sequence 3.09 to 3.38), every guardrail is within its margin, and "
            "users are split as intended (p = 0.93)",
            "사용자가 desk@2 모델을 3.24 (95% sequence 3.09 to 3.38) 더 높게 평가했고,",
        ),
        ("sft_pair, in 120 of the first 120 rows", "sft_pair (처음 120행 중 120행)"),
        ("nothing to stop: desk@v1|a-1 is registered", "desk@v1|a-1: 등록됨 상태라 멈출 것이 없습니다"),
    ],
)  # fmt: skip
def test_a_reason_keeps_what_it_names(given: str, korean: str) -> None:
    assert (translated(given, "ko") or "").startswith(korean)
    assert translated(given, "en") == given


def test_what_is_not_known_stays_whole_and_is_marked_as_english() -> None:
    unknown = "has no effect whatsoever & <b>more</b>"
    assert said(unknown, "ko") == '<span lang="en">has no effect whatsoever &amp; &lt;b&gt;more&lt;/b&gt;</span>'
    # Half of a reason in another language would be none.
    assert translated("unknown key. Nobody knows this sentence", "ko") is None
    assert said("정수여야 합니다.", "ko") == "정수여야 합니다." and said("", "ko") == "" and said(None, "ko") == ""
    assert said("a " * 200, "ko", 20).endswith("…</span>")


def test_a_long_reason_is_read_in_one_pass() -> None:
    # An expression with several fields tries every split of such a text, which takes minutes.
    hostile = "a: " * 500 + "is to end it may not be " * 90
    assert len(hostile) < 4000 and translated(hostile, "ko") is None


def test_states_that_reasons_name_have_a_korean_word() -> None:
    with open(i18n.LOCALE / "ko.po", "rb") as file:
        known = {message.id for message in read_po(file, locale="ko") if message.string}
    assert set(STATES.values()) <= known
