"""Has a model write training rows about passages: strict JSON, bounded, resumable, each row traced to its passage."""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmops_assets.documents.client import AskError, ChatModel, Unusable
from llmops_assets.documents.grounding import groundedness
from llmops_assets.documents.passages import Passage
from llmops_assets.specs.dataset import GenerationSpec

VERSION = "1"
"""Part of the key that answers are kept under: raise it when the same answer would give other rows."""

SILENT_FAILURES = 5
"""Passages in a row that nobody answered before the server counts as gone."""

MOST_CHARACTERS = 8000
SHOWN_CHARACTERS = 500
"""Characters of a bad answer that the model is shown again: enough to see the fault, and no strain on its context."""
_HANGUL = re.compile("[가-힣]")
_FENCED = re.compile(r"\s*```(?:json)?\s*(?P<body>.*?)\s*```\s*", re.DOTALL)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)


Content = Field(min_length=1, max_length=MOST_CHARACTERS)


class Pair(_Strict):
    question: str = Content
    answer: str = Content


class Turn(_Strict):
    role: str = Field(pattern="^(user|assistant)$")
    content: str = Content


class Conversation(_Strict):
    turns: list[Turn] = Field(min_length=2, max_length=20)


class Summary(_Strict):
    instruction: str = Content
    summary: str = Content


class Pairs(_Strict):
    pairs: list[Pair] = Field(min_length=1, max_length=50)


class Conversations(_Strict):
    conversations: list[Conversation] = Field(min_length=1, max_length=50)


class Summaries(_Strict):
    summaries: list[Summary] = Field(min_length=1, max_length=50)


ANSWERS: dict[str, type[_Strict]] = {"qa": Pairs, "chat": Conversations, "summary": Summaries}


class Kept(Protocol):
    """Where answers are kept: by key, whole or not at all."""

    def load(self, key: str) -> dict[str, Any] | None: ...

    def save(self, key: str, answer: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Result:
    """What came of one passage: messages of each row, or why there are none."""

    passage: Passage
    rows: list[list[dict[str, str]]] = field(default_factory=list)
    failure: str | None = None
    reused: bool = False


@cache
def _template(name: str) -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = resources.files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")
    # A passage is a value and never parsed; the sandbox is for templates that others bring.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True).from_string(
        source
    )


def template_hash(name: str) -> str:
    """12 hex digits over the prompts of a template."""
    folder = resources.files(__package__).joinpath("templates")
    text = "\0".join(folder.joinpath(f"{part}.jinja").read_text(encoding="utf-8") for part in ("system", name))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def prompt(passage: Passage, spec: GenerationSpec) -> list[dict[str, str]]:
    """The conversation that asks for rows about a passage."""
    language = {"ko": "Korean", "en": "English"}.get(spec.language)
    if language is None:
        language = "Korean" if _HANGUL.search(passage.text) else "the language of the passage"
    # What looks like the end of the passage inside of it must not end it.
    text = passage.text.replace("</passage>", "< /passage>")
    asked = _template(spec.template).render(count=spec.per_passage, heading=passage.heading, passage=text)
    return [
        {"role": "system", "content": _template("system").render(language=language)},
        {"role": "user", "content": asked},
    ]


def answer_key(passage: Passage, spec: GenerationSpec) -> str:
    """Names the answer to a passage by everything that it depends on."""
    depends_on = [
        VERSION,
        spec.endpoint,
        spec.model,
        template_hash(spec.template),
        spec.language,
        spec.per_passage,
        spec.temperature,
        spec.max_tokens,
        passage.heading,
        passage.text,
    ]
    return hashlib.sha256(json.dumps(depends_on, ensure_ascii=False).encode()).hexdigest()


def parse(text: str, passage: Passage, spec: GenerationSpec) -> list[list[dict[str, str]]]:
    """The conversations in a model's answer; ValueError that the model can mend it by when it is not as asked."""
    fenced = _FENCED.fullmatch(text)
    try:
        answer = ANSWERS[spec.template].model_validate_json(fenced["body"] if fenced else text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the answer"
        raise ValueError(f"{where}: {first['msg']}") from error
    if isinstance(answer, Pairs):
        return [_turns(p.question, p.answer) for p in answer.pairs[: spec.per_passage]]
    if isinstance(answer, Summaries):
        return [_turns(f"{s.instruction}\n\n{passage.text}", s.summary) for s in answer.summaries[: spec.per_passage]]
    found = []
    for number, conversation in enumerate(answer.conversations[: spec.per_passage]):
        roles = "".join(turn.role[0] for turn in conversation.turns)
        if not re.fullmatch("(ua)+", roles):
            raise ValueError(f"conversations.{number}: user and assistant take turns, and the assistant speaks last")
        found.append([turn.model_dump() for turn in conversation.turns])
    return found


def _turns(asked: str, answered: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


async def _write_rows(passage: Passage, spec: GenerationSpec, model: ChatModel, session: Any, kept: Kept) -> Result:
    key = answer_key(passage, spec)
    known = kept.load(key)
    if known is not None:
        return Result(passage, known["rows"], reused=True)
    messages, schema = prompt(passage, spec), ANSWERS[spec.template].model_json_schema()
    fault = ""
    for _ in range(spec.attempts):
        text = await model.ask(session, messages, schema)
        try:
            rows = parse(text, passage, spec)
        except ValueError as error:
            fault = str(error)
            messages = [
                *messages[:2],
                {"role": "assistant", "content": text[:SHOWN_CHARACTERS]},
                {"role": "user", "content": f"That is not as asked ({fault}). Answer with the JSON object alone."},
            ]
            continue
        # With its passage, so that an erasure finds what was said about a person, and under which words.
        kept.save(key, {"passage": passage.text, "rows": rows})
        return Result(passage, rows)
    return Result(passage, failure=f"no answer was JSON as asked ({spec.attempts} attempts): {fault}")


async def _all(
    passages: Sequence[Passage], spec: GenerationSpec, model: ChatModel, kept: Kept, say: Callable[[str], None]
) -> list[Result]:
    results: list[Result | None] = [None] * len(passages)
    todo = iter(range(len(passages)))
    silent = done = 0
    reported = time.monotonic()

    async def work(session: Any) -> None:
        nonlocal silent, done, reported
        for number in todo:
            try:
                results[number] = await _write_rows(passages[number], spec, model, session, kept)
                silent = 0
            except AskError as error:
                results[number] = Result(passages[number], failure=str(error))
                silent += 1
                if silent >= SILENT_FAILURES:
                    raise Unusable(
                        f"{silent} passages in a row got no answer, the last one because: {error}"
                    ) from error
            done += 1
            if time.monotonic() - reported > 5:
                reported = time.monotonic()
                say(f"{done} of {len(passages)} passages are done")

    async with model.session() as session:
        workers = [asyncio.create_task(work(session)) for _ in range(min(spec.concurrency, max(1, len(passages))))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    return [result for result in results if result is not None]


def generate(
    passages: Sequence[Passage], spec: GenerationSpec, model: ChatModel, kept: Kept, say: Callable[[str], None]
) -> list[Result]:
    """Rows about every passage, in order; what a passage failed with is in its result.

    Raises Unusable when nobody answers, the key is refused or the model is not there. What was answered until then is
    kept: the same call goes on where this one ended.
    """
    results = asyncio.run(_all(passages, spec, model, kept, say))
    reused = sum(result.reused for result in results)
    failed = sum(result.failure is not None for result in results)
    say(f"{len(results)} passages: {reused} answered before, {failed} failed")
    return results


def row_of(messages: list[dict[str, str]], passage: Passage, spec: GenerationSpec) -> dict[str, Any]:
    """A row as users write them, with where it came from and how much of its answers stands there."""
    answer = "\n".join(turn["content"] for turn in messages if turn["role"] == "assistant")
    share = groundedness(answer, f"{passage.heading}\n{passage.text}")
    provenance = {
        "document": passage.document,
        "page": passage.page,
        "start": passage.start,
        "end": passage.end,
        "heading": passage.heading[:80],
        "passage_sha256": passage.sha256[:16],
        "model": spec.model,
        "template": f"{spec.template}-{template_hash(spec.template)}",
    }
    return {
        "messages": messages,
        "metadata": {
            "source": passage.document,
            "category": passage.document,
            "provenance": provenance,
            "groundedness": round(share, 4),
        },
    }


def rows_of(results: Sequence[Result], spec: GenerationSpec) -> Iterator[dict[str, Any]]:
    """Every row of every passage."""
    for result in results:
        for messages in result.rows:
            yield row_of(messages, result.passage, spec)
