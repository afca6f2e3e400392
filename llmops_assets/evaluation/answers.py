"""Asks a model through the train worker, or finds what the same model answered to the same questions before."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmops_assets.evaluation import answer_seals
from llmops_assets.evaluation.suites import Answer, Document, Item, prompts_hash
from llmops_assets.records.jobs import AskJob, BertscoreJob, ChoicesJob, GenerateJob, Job, PerplexityJob
from resources import files
from resources.encryption import NO_KEYS, Keyring

log = logging.getLogger("evaluation.answers")

GENERATION_VERSION = "3"
"""Part of the key that answers are kept under: raise it when the worker may answer the same prompt differently."""


class Worker(Protocol):
    """The part of the trainer that is used here."""

    def run(self, context: Any | None, job: Job, *, work_dir: Path) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Model:
    """A model folder under evaluation; `precision` and `gpus` are what it is loaded with."""

    path: str
    content_hash: str
    precision: str = "fp32"
    gpus: int = 0


@dataclass(frozen=True)
class Likelihood:
    """What the document of that key costs a model: nats over all its tokens."""

    key: str
    nll: float
    tokens: int
    bytes: int


def chat_template_of(model_dir: Path | str) -> str:
    """What the tokenizer in a model folder renders conversations with; empty where it cannot. Several are one text."""
    folder = Path(model_dir)
    found = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("chat_template.j*"))]
    found += [path.read_text(encoding="utf-8") for path in sorted(folder.glob("additional_chat_templates/*.jinja"))]
    config = folder / "tokenizer_config.json"
    inside = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.exists() else None
    if isinstance(inside, list):
        found += [str(template.get("template", "")) for template in inside if isinstance(template, dict)]
    elif inside:
        found.append(str(inside))
    return "\n".join(found)


def has_chat_template(model_dir: Path | str) -> bool:
    """Whether the tokenizer in a model folder can render a conversation."""
    return bool(chat_template_of(model_dir))


def shows_tools(template: str) -> bool:
    """Whether a chat template renders the tools that a conversation may call."""
    return re.search(r"\btools\b", template) is not None


def ask(
    worker: Worker,
    context: Any | None,
    model: Model,
    items: Sequence[Item],
    cache: Path,
    *,
    max_new_tokens: int,
    batch_size: int,
    seed: int = 0,
    latency_items: int = 0,
    asks_alone: bool = False,
) -> tuple[list[Answer], dict[str, Any]]:
    """Greedy answers of `model` to `items`, with the worker's result; asked once for the same model and questions.

    Answers are kept in a folder below `cache` named by everything that they depend on; the batch size is not part of
    it. `context` is Dagster's, or None for a plain child process. The result has `cached`, and the seconds that
    `latency_items` of the items took one at a time under `latency`; with `asks_alone`, `alone` says how far a few
    answers are from those that the model gives alone.
    """
    settings = {
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "seed": seed,
        "latency_items": latency_items,
        "asks_alone": asks_alone,
    }
    key = {"max_new_tokens": max_new_tokens, "seed": seed}
    if latency_items:
        key["latency_items"] = latency_items
    prompts = [_prompt(i) for i in items]
    rows, result = kept(worker, context, model, GenerateJob, settings, key, prompts, prompts_hash(items), cache)
    return [
        Answer(r["id"], r["text"], r["tokens"], r["finish_reason"], tuple(r["token_ids"]), tuple(r["prompt_ids"]))
        for r in rows
    ], result


def _prompt(item: Item) -> dict[str, Any]:
    tools = {"tools": list(item.tools)} if item.tools else {}
    return {"id": item.key, "messages": list(item.messages), **tools}


def choose(
    worker: Worker, context: Any | None, model: Model, items: Sequence[Item], cache: Path, *, batch_size: int
) -> tuple[list[Answer], dict[str, Any]]:
    """The likeliest choice of each multiple-choice item under `model`, with the worker's result; kept like answers.

    The log-likelihood of a choice is divided by its length where the item says so (`length_norm`); of choices as
    likely as each other the first counts.
    """
    prompts = [_prompt(i) | {"choices": list(i.choices)} for i in items]
    settings = {"batch_size": batch_size}
    rows, result = kept(worker, context, model, ChoicesJob, settings, {}, prompts, prompts_hash(items), cache)
    answers = []
    for item, row in zip(items, rows, strict=True):
        costs = [nll / length for nll, length in zip(row["nll"], _lengths(item, row["choice_tokens"]), strict=True)]
        best = min(range(len(costs)), key=costs.__getitem__)
        answers.append(Answer(item.key, item.choices[best], 0, "choice", nll=tuple(row["nll"])))
    return answers, result


def _lengths(item: Item, tokens: Sequence[int]) -> list[int]:
    if item.length_norm == "tokens":
        return [max(1, n) for n in tokens]
    if item.length_norm == "characters":
        return [len(choice) for choice in item.choices]
    return [len(choice.encode()) if item.length_norm == "bytes" else 1 for choice in item.choices]


def similarity(
    worker: Worker,
    context: Any | None,
    encoder: Model,
    answers: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    cache: Path,
) -> tuple[dict[str, float], dict[str, Any]]:
    """BERTScore F1 by key of `answers` against their `references` under a local encoder, and the worker's result."""
    pairs = [{"id": key, "answer": text, "references": list(references[key])} for key, text in answers.items()]
    digest = hashlib.sha256(json.dumps(pairs, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
    rows, result = kept(worker, context, encoder, BertscoreJob, {}, {}, pairs, digest, cache)
    return {row["id"]: row["f1"] for row in rows}, result


def measure(
    worker: Worker, context: Any | None, model: Model, documents: Sequence[Document], cache: Path
) -> tuple[list[Likelihood], dict[str, Any]]:
    """The likelihood of each document under `model`, with the worker's result; kept like answers are."""
    texts = [{"id": d.key, "text": d.text} for d in documents]
    rows, result = kept(worker, context, model, PerplexityJob, {}, {}, texts, prompts_hash(documents), cache)
    return [Likelihood(r["id"], r["nll"], r["tokens"], r["bytes"]) for r in rows], result


def kept(
    worker: Worker,
    context: Any | None,
    model: Model,
    kind: type[AskJob],
    settings: Mapping[str, Any],
    key: Mapping[str, Any],
    inputs: list[dict[str, Any]],
    inputs_hash: str,
    cache: Path,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What the worker writes for `inputs`, with its result, or what it wrote before for the same model and `key`.

    The worker gets a job of the class `kind` with these `settings`; `key` has those of them that its answers depend on.
    """
    depends_on = {
        "task": kind.model_fields["task"].default,
        "model": model.content_hash,
        "inputs": inputs_hash,
        "precision": model.precision,
        "version": GENERATION_VERSION,
        # The tokens that end an answer stand there, outside of what the content hash covers.
        "generation_config": _digest(Path(model.path) / "generation_config.json"),
        **key,
    }
    name = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache) / name
    folder.mkdir(parents=True, exist_ok=True)
    output, complete = folder / "output.jsonl", folder / "complete.json"
    with _only_one(folder):
        known = _complete(output, complete, depends_on, keys_of(worker))
        if known is not None:
            return _in_order(known[0], inputs), known[1] | {"cached": True}
        input_file = folder / "input.jsonl"
        keys = keys_of(worker)
        _write(input_file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in inputs), keys)
        given = {"model_dir": model.path, "output_file": str(output), kind.input_field: str(input_file)}
        job = kind(**settings, **given, precision=model.precision, gpus=model.gpus)
        result = worker.run(context, job, work_dir=folder)
        written = keys.open(output.read_bytes(), output)
        # As it is read again: a tuple is a list then.
        result = json.loads(json.dumps(result))
        mark = answer_seals.seal(Path(cache), keys, depends_on, written, result)
        _write(complete, json.dumps({"depends_on": depends_on, "seal": mark, "result": result}, indent=1))
        rows = [json.loads(line) for line in written.splitlines()]
    return _in_order(rows, inputs), result | {"cached": False}


def keys_of(worker: Worker) -> Keyring:
    """The keys that the worker was handed: what it writes is sealed with them."""
    return getattr(worker, "keys", NO_KEYS)


def _complete(
    output: Path, complete: Path, depends_on: Mapping[str, Any], keys: Keyring
) -> tuple[list[dict[str, Any]], dict[str, Any]] | None:
    """The rows and result of an earlier call, when they are whole."""
    if not (output.exists() and complete.exists()):
        return None
    data = keys.open(output.read_bytes(), output)
    try:
        seal = json.loads(complete.read_text(encoding="utf-8"))
        mark, result = seal["seal"], seal["result"]
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): the model is asked again", complete, error)
        return None
    # A folder that was exchanged for another's is as whole as its own.
    if not answer_seals.holds(mark, complete.parent.parent, keys, depends_on, data, result):
        log.warning("%s is not what %s was written for: the model is asked again", output, complete)
        return None
    return [json.loads(line) for line in data.splitlines()], result


def _in_order(rows: list[dict[str, Any]], inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in the order of the inputs: the same questions may have been asked in another order before."""
    position = {str(row.get("id")): n for n, row in enumerate(inputs)}
    return sorted(rows, key=lambda row: position.get(row["id"], 0))


@contextmanager
def _only_one(folder: Path):
    """Two runs that want the same answers: the second waits and finds them."""
    with files.locked(folder / ".lock"):
        yield


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else None


def _write(path: Path, text: str, keys: Keyring = NO_KEYS) -> None:
    files.write_bytes(path, keys.seal(text.encode()), durable=False)
