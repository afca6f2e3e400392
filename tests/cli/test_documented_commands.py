"""Every command that a guide, an error or a piece of advice names is one that the command line takes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from llmops_assets.cli import app

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDES = [
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *(REPOSITORY / name for name in ("README.md", "README.ko.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "examples").rglob("*.md")),
]
SOURCES = [
    p for top in ("llmops_assets", "resources", "images", "sensors", "deploy") for p in (REPOSITORY / top).rglob("*.py")
]
ROOT: Any = typer.main.get_command(app)
PLACEHOLDER = re.compile(r"[A-Z][A-Z_.|,=@-]*$|.*[…<>{}].*|\.\.\.$")
LOCKS = {"llmops catalog migration"}
"""Names that are shared with earlier versions, and no commands."""
MAKE = re.compile(r"^([a-z-]+):", re.MULTILINE)


def blocks(text: str) -> Iterator[str]:
    """The lines of fenced blocks without a language, or of a shell, continued ones joined."""
    for language, body in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("", "sh", "bash", "console", "shell"):
            yield from body.replace("\\\n", " ").splitlines()


def commands(line: str) -> Iterator[list[str]]:
    """The words of each `llmops` in a line of a shell, behind variables, containers and other commands."""
    # Of `make server-llmops DO="…"`.
    yield from (shlex.split(words) for words in re.findall(r'\bDO="([^"]*)"', line) if words != "…")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError as error:
        raise AssertionError(f"no line of a shell: {line!r}: {error}") from None
    current: list[str] | None = None
    before = ""
    for word in [*words, ";"]:
        if current is not None and (set(word) <= set("|&;<>") or word in (")", "(")):
            yield current
            current = None
        elif current is not None:
            current.append(word)
        elif (word == "llmops" or word.endswith("/bin/llmops")) and not before.startswith("-"):
            current = []
        before = word


def refusal(words: list[str], *, whole: bool) -> str | None:
    """Why the command line does not take these words; None where it does. Not `whole`: options may be left out."""
    command, path = ROOT, "llmops"
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest or rest[0] in ("--help", "-h") or (not whole and PLACEHOLDER.match(rest[0])):
            return None
        if rest[0] not in command.commands and path == "llmops train":
            # `llmops train SPEC.yaml` is short for this.
            rest.insert(0, "start")
        found = command.commands.get(rest[0])
        if found is None:
            return f"{path} has no command {rest[0]!r}"
        command, path = found, f"{path} {rest.pop(0)}"
    options = {
        name: one
        for one in command.params
        if one.param_type_name == "option"
        for name in (*one.opts, *one.secondary_opts)
    }
    given = 0
    while rest:
        word = rest.pop(0)
        name, equals, _ = word.partition("=")
        if word in ("--help", "-h", "…", "..."):
            continue
        if word.startswith("--") or (word.startswith("-") and len(word) == 2):
            if name not in options:
                return f"{path} has no option {name}"
            if not options[name].is_flag and not equals:
                if not rest:
                    return f"{path} {name} has no value" if whole else None
                rest.pop(0)
        else:
            given += 1
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    most = None if any(one.nargs == -1 for one in arguments) else len(arguments)
    if most is not None and given > most:
        return f"{path} takes {most} arguments, and {given} are given"
    required = [one for one in arguments if one.required]
    if whole and given < len(required):
        return f"{path} needs {', '.join(one.name or '' for one in required)}"
    return None


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_every_command_of_a_guide_is_taken(guide: Path):
    text = guide.read_text(encoding="utf-8")
    wrong = []
    for line in blocks(text):
        if re.search(r"\bllmops\b", line) and not line.lstrip().startswith("#"):
            wrong += [f"{line.strip()}: {why}" for words in commands(line) if (why := refusal(words, whole=True))]
    for span in re.findall(r"(?<!`)`([^`\n]*\bllmops [^`\n]*)`(?!`)", text.replace("\\|", "|")):
        wrong += [f"`{span}`: {why}" for words in commands(span) if (why := refusal(words, whole=False))]
    assert wrong == []


def test_every_target_of_make_that_a_guide_names_is_there():
    targets = set(MAKE.findall((REPOSITORY / "Makefile").read_text(encoding="utf-8")))
    wrong = []
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        spans = re.findall(r"(?<!`)`make ([a-z-]+)[^`\n]*`", text)
        lines = [found[1] for line in blocks(text) if (found := re.match(r"\s*make ([a-z-]+)", line))]
        wrong += [f"{guide.name}: make {name}" for name in {*spans, *lines} if name not in targets]
    assert wrong == []


def texts(source: Path) -> Iterator[tuple[int, str]]:
    """Every text that a module says, with `…` where a value is filled in; docstrings among them."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def advised(text: str) -> Iterator[str]:
    """What a text says of `llmops`, as far as it is a command: in quotes whole, else its first words."""
    yield from (span for span in re.findall(r"`([^`\n]*\bllmops [^`\n]*)`", text))
    for found in re.finditer(r"(?<![`\w/.-])llmops ([a-z][a-z-]*)( [a-z][a-z-]*)?", re.sub(r"`[^`]*`", "", text)):
        first, second = found[1], (found[2] or "").strip()
        is_group = hasattr(ROOT.commands.get(first), "commands")
        yield f"llmops {first} {second}".strip() if is_group else f"llmops {first}"


def test_every_command_that_the_platform_advises_is_taken():
    wrong = []
    for source in SOURCES:
        for line, text in texts(source):
            if "llmops " not in text or text in LOCKS:
                continue
            for span in advised(text):
                for words in commands(span.replace("'", "")):
                    if (why := refusal(words, whole=False)) is not None:
                        wrong.append(f"{source.relative_to(REPOSITORY)}:{line}: {span}: {why}")
    assert wrong == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("llmops endpoint logs desk", "no command 'logs'"),
        ("llmops dataset add", "needs version"),
        ("X=1 podman exec c llmops key create kim --colour red # c", "no option --colour"),
        ("llmops verify && llmops frobnicate", "no command 'frobnicate'"),
        ("llmops endpoint show a b", "takes 1 arguments"),
        ("llmops backup", "needs folder"),
        ('make server-llmops DO="key frobnicate"', "no command 'frobnicate'"),
    ],
)
def test_a_command_that_is_none_is_found(line: str, why: str):
    assert any(why in (refusal(words, whole=True) or "") for words in commands(line))
