"""Pins what a chat template would read from a clock or draw at random, so that it renders alike on every day."""

from collections.abc import Iterator
from datetime import date
from typing import Any

CLOCK = "strftime_now"
"""The function that transformers and vLLM give to templates which ask for the time."""
_RANDOM = ("random", "lipsum", "shuffle", "uuid4")


class UnpinnedTemplate(ValueError):
    """A chat template that cannot be made to render the same text tomorrow; the message says what it asks for."""


def _parsed(template: str) -> Any:
    from transformers.utils.chat_template_utils import _compile_jinja_template

    # Of the environment that renders it, which knows the generation blocks.
    return _compile_jinja_template(template).environment.parse(template)


def reads_clock(template: str) -> bool:
    """Whether a template asks for the time by itself; one that was pinned before does not."""
    if CLOCK not in template:
        return False
    from jinja2 import nodes

    tree = _parsed(template)
    named = any(name.name == CLOCK for name in tree.find_all(nodes.Name))
    return named and not any(macro.name == CLOCK for macro in tree.find_all(nodes.Macro))


def _calls(tree: Any, name: str) -> Iterator[Any]:
    from jinja2 import nodes

    return (c for c in tree.find_all(nodes.Call) if isinstance(c.node, nodes.Name) and c.node.name == name)


def drawn_at_random(template: str) -> list[str]:
    """What a template would draw at random, by name: nothing that it renders could be rendered again."""
    if not any(name in template for name in _RANDOM):
        return []
    from jinja2 import nodes

    tree = _parsed(template)
    filters = [f"| {node.name}" for node in tree.find_all(nodes.Filter) if node.name in _RANDOM]
    return filters + [f"{name}()" for name in _RANDOM if any(_calls(tree, name))]


def pinned(template: str, day: str) -> str:
    """The same template with `day` (ISO 8601) for today, midnight for the time of day; unchanged where it asks neither.

    A macro of the clock's name is put before it, so the text of the template, and of all that it renders, stays.
    Raises UnpinnedTemplate where the format that it asks for is computed, and where it draws at random.
    """
    if drawn := drawn_at_random(template):
        raise UnpinnedTemplate(
            f"the base model's chat template draws at random ({', '.join(drawn)}): no two renderings of a row are "
            "alike, so what is trained is not what is evaluated and served. Take it out of chat_template.jinja"
        )
    if not reads_clock(template):
        return template
    from jinja2 import nodes

    tree, formats = _parsed(template), list[str]()
    asked_whether_there = [test.node for test in tree.find_all(nodes.Test) if test.name in ("defined", "undefined")]
    others = [
        name
        for name in tree.find_all(nodes.Name)
        if name.name == CLOCK and not any(name is known for known in asked_whether_there)
    ]
    calls = list(_calls(tree, CLOCK))
    if len(others) > len(calls):
        raise UnpinnedTemplate(
            f"the base model's chat template asks for the time by another name of {CLOCK}: the date cannot be pinned. "
            "Write the date itself into chat_template.jinja"
        )
    for call in calls:
        given = [*call.args, *(keyword.value for keyword in call.kwargs)]
        if len(given) != 1 or not isinstance(given[0], nodes.Const) or not isinstance(given[0].value, str):
            raise UnpinnedTemplate(
                f"the base model's chat template asks for the time in a format that it computes ({CLOCK}): the date "
                "cannot be pinned. Write the date itself into chat_template.jinja"
            )
        formats.append(given[0].value)
    when = date.fromisoformat(day)
    cases = "".join(
        f"{{%- {'elif' if number else 'if'} format == {_quoted(form)} -%}}{{{{- {_quoted(when.strftime(form))} -}}}}"
        for number, form in enumerate(dict.fromkeys(formats))
    )
    return f"{{%- macro {CLOCK}(format) -%}}{cases}{{%- endif -%}}{{%- endmacro +%}}{template}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"
