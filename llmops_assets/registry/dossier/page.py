"""Writes a dossier as one HTML file that prints well and asks for nothing from elsewhere."""

from html import escape

from llmops_assets.registry.dossier.content import Dossier, Fact, Gap, Language, label, texts, words

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.55 "Noto Sans KR", "Noto Sans CJK KR", "Malgun Gothic", system-ui, sans-serif;
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.laws, .source, .lead { color: color-mix(in srgb, currentColor 65%, transparent); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; vertical-align: top; padding: .35rem .5rem;
  border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); } th { width: 15rem; font-weight: 600; }
.gap td, .gap th { background: color-mix(in srgb, #d97706 16%, transparent); }
code { font-size: .8rem; } nav li { margin: .1rem 0; }
@media print { body { max-width: none; margin: 0; font-size: 10.5pt; } h2 { break-after: avoid; }
  tr { break-inside: avoid; } nav { display: none; } }
"""


def page(dossier: Dossier, language: Language) -> str:
    """The whole file in a language. Everything that people or data wrote is escaped."""
    t = texts()

    def say(name: str, **values: object) -> str:
        return escape(t[name][language].format(**values))

    at = f"{dossier.at:%Y-%m-%d %H:%M} UTC"
    heading = say("title", ref=dossier.ref)
    parts = [
        f"<h1>{heading}</h1>",
        f'<p class="lead">{say("lead", at=at, code=dossier.code)}</p>',
        f"<p><strong>{say('no_advice')}</strong></p>",
        f"<p>{say('open_gaps', n=len(dossier.open_gaps))}</p>",
        f"<nav><ol>{''.join(_entry(s.name, language) for s in dossier.sections)}</ol></nav>",
    ]
    for number, section in enumerate(dossier.sections, start=1):
        words_of = t["sections"][section.name]
        parts.append(f'<section id="{section.name}"><h2>{number}. {escape(words_of["title"][language])}</h2>')
        parts.append(f'<p class="laws">{escape(words_of["laws"][language])}</p><table>')
        parts += [_fact(fact, language) for fact in section.facts]
        parts += [_gap(gap, dossier.ref, language) for gap in section.gaps]
        parts.append("</table></section>")
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{heading}</title>'
        f"<style>{_STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _entry(section: str, language: Language) -> str:
    return f'<li><a href="#{section}">{escape(texts()["sections"][section]["title"][language])}</a></li>'


def _fact(fact: Fact, language: Language) -> str:
    source = f'<div class="source">{escape(texts()["source"][language])}: {escape(fact.source.text)}</div>'
    return f"<tr><th>{escape(label(fact, language))}</th><td>{escape(words(fact, language))}{source}</td></tr>"


def _gap(gap: Gap, ref: str, language: Language) -> str:
    t, statement = texts(), gap.statement
    question = escape(t["gaps"][gap.name]["question"][language])
    if statement is None:
        command = f'llmops model state {ref} {gap.name} "…"'
        how = escape(t["how_to_fill"][language].format(command=command))
        missing = escape(t["gap"][language])
        return f'<tr class="gap"><th>{question}</th><td>{missing}<div class="source">{how}</div></td></tr>'
    here = statement.ref == ref
    by = t["stated_by" if here else "stated_for"][language].format(
        author=statement.author, at=f"{statement.at:%Y-%m-%d}", ref=statement.ref
    )
    mark = "" if here else ' class="gap"'
    text = escape(statement.text).replace("\n", "<br>")
    return f'<tr{mark}><th>{question}</th><td>{text}<div class="source">{escape(by)}</div></td></tr>'
