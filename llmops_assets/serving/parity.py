"""Whether a served model sees and says what its evaluation saw: template, BOS, stop token, length, token for token."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from llmops_assets.evaluation.answers_file import read_answers
from resources.encryption import NO_KEYS, Keyring


def template_hash(folder: Path | str) -> str | None:
    """12 hex digits of SHA-256 over the chat template that a server reads from a model folder; None without one."""
    folder = Path(folder)
    file = folder / "chat_template.jinja"
    if file.is_file():
        template = file.read_text(encoding="utf-8")
    else:
        config = folder / "tokenizer_config.json"
        template = json.loads(config.read_text(encoding="utf-8")).get("chat_template") if config.is_file() else None
    return hashlib.sha256(template.encode()).hexdigest()[:12] if isinstance(template, str) and template else None


Kind = Literal["template", "bos", "prompt cut", "stop", "length", "answer", "sampling", "replica"]
OF_THE_PROMPT: tuple[Kind, ...] = ("template", "bos", "prompt cut")
"""What no rounding explains: the model was shown something else."""
EARLY = 8
"""Tokens of an answer within which rounding changes one answer in ten or so: a hundredth of tokens are near ties."""
_FEW = 4
"""With fewer questions than these, half of them may differ early by chance."""
_TWICE = 2
"""Questions to which one server gives two answers that part early, and not by chance."""

_ADVICE: dict[Kind, str] = {
    "template": "the server renders another chat template: compare chat_template.jinja with the training's",
    "bos": "the server begins prompts otherwise: compare add_bos_token and the template's own BOS",
    "prompt cut": "the server cuts prompts: raise its max_input_tokens",
    "stop": "the server ends answers at another token: compare eos_token_id in generation_config.json",
    "length": "the server cuts answers: raise its max_output_tokens",
    "sampling": "the server samples where a request does not say how, as most do not: start it with "
    "--generation-config vllm --override-generation-config '{\"temperature\": 0.0}', or take the sampling out of its "
    "generation_config.json",
    "replica": "the same question asked twice in a row gets two answers, so more than one model answers there: look "
    "for a replica of before that goes on serving, or servers that were started otherwise",
    "answer": "the server decodes otherwise: greedy, no penalties, the same precision",
}


class Served(Protocol):
    """What a server answered; ids are None where the engine does not tell them."""

    text: str
    finish_reason: str | None
    prompt_ids: tuple[int, ...] | None
    token_ids: tuple[int, ...] | None


@dataclass(frozen=True)
class Difference:
    """A question that the server treats otherwise than the evaluation did: how, and what either had."""

    question: str
    kind: Kind
    evaluated: str
    served: str
    at: int | None = None
    """Tokens of an answer that were the same before (characters, where the engine tells no tokens)."""


def difference(row: Mapping[str, Any], served: Served) -> Difference | None:
    """How `served` differs from a row of an evaluation's answers file; None where it does not.

    Token ids decide where both sides have them; text, less normal form and surrounding white space, where not.
    """
    question, prompt_ids, token_ids = row["prompt"], row.get("prompt_ids"), row.get("token_ids")
    if prompt_ids and served.prompt_ids is not None and tuple(prompt_ids) != served.prompt_ids:
        return Difference(
            question, _prompt_kind(prompt_ids, served.prompt_ids), *_around(prompt_ids, served.prompt_ids)
        )
    if not token_ids or served.token_ids is None:
        same = _plain(row["got"]) == _plain(served.text)
        at = _common(_plain(row["got"]), _plain(served.text))
        return None if same else Difference(question, "answer", row["got"], served.text, at)
    evaluated, got = tuple(token_ids), served.token_ids
    # Some engines leave the token that ended an answer out.
    if got == evaluated or (got == evaluated[:-1] and row["finish_reason"] == served.finish_reason == "stop"):
        return None
    kind = _answer_kind(evaluated, got, served.finish_reason)
    return Difference(question, kind, *_around(evaluated, got), _common(evaluated, got))


def differences(rows: Sequence[Mapping[str, Any]], served: Sequence[Served]) -> list[Difference]:
    """The rows that a server treats otherwise."""
    found = (difference(row, answer) for row, answer in zip(rows, served, strict=True))
    return [one for one in found if one is not None]


def answered_again(
    kind: Kind, first: Sequence[Served], again: Sequence[Served], questions: Sequence[str]
) -> list[Difference]:
    """The questions that one server answers in two ways, named by `kind`; none where it does that once in several.

    Two greedy requests too may part by rounding, by what else was in the batch.
    """
    found = []
    for question, one, other in zip(questions, first, again, strict=True):
        row = {"prompt": question, "got": one.text, "finish_reason": one.finish_reason, "token_ids": one.token_ids}
        if (differs := difference(row, other)) is not None:
            found.append(replace(differs, kind=kind))
    return found if len(found) >= max(_TWICE, len(questions) / 2) else []


def no_rounding(asked: int, found: Sequence[Difference]) -> bool:
    """Whether `found`, of `asked` questions, is more than another engine's or device's rounding explains.

    A prompt is never rounded, nor is where a server cuts an answer. Answers diverge by rounding where two tokens are
    nearly as likely, which is rare: when more than half do within the first tokens, or end elsewhere, it is another
    cause (penalties, other weights, another end token).
    """
    if any(one.kind in (*OF_THE_PROMPT, "length") for one in found):
        return True
    # One server, asked twice, rounds otherwise by what else is in its batch: long answers part so on a busy one, late.
    if sum(one.kind in ("sampling", "replica") and one.at is not None and one.at < EARLY for one in found) >= _TWICE:
        return True
    sudden = [one for one in found if one.kind == "stop" or (one.at is not None and one.at < EARLY)]
    return asked >= _FEW and len(sudden) > asked / 2


def summary(asked: int, found: Sequence[Difference]) -> str:
    """What a comparison came to, and what to do about each kind of difference."""
    if not found:
        return f"{asked} of {asked} prompts and answers are those of the evaluation"
    kinds = Counter(one.kind for one in found)
    faults = "; ".join(f"{count} × {kind}: {_ADVICE[kind]}" for kind, count in kinds.most_common())
    return f"{asked - len(found)} of {asked} prompts and answers are those of the evaluation; {faults}"


def _prompt_kind(evaluated: Sequence[int], served: Sequence[int]) -> Kind:
    one, other = list(evaluated), list(served)
    if one[1:] == other or other[1:] == one:
        return "bos"
    if len(other) < len(one) and (one[: len(other)] == other or one[-len(other) :] == other):
        return "prompt cut"
    return "template"


def _answer_kind(evaluated: Sequence[int], served: Sequence[int], reason: str | None) -> Kind:
    shorter = min(len(evaluated), len(served))
    if list(evaluated[:shorter]) != list(served[:shorter]):
        return "answer"
    return "length" if len(served) < len(evaluated) and reason == "length" else "stop"


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many elements two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


def _around(evaluated: Sequence[int], served: Sequence[int]) -> tuple[str, str]:
    """Both sides from a little before the first token in which they differ."""
    at = _common(evaluated, served)
    start = max(0, at - 3)
    shown = (f"from token {start} of {len(ids)}: {list(ids[start : at + 5])}" for ids in (evaluated, served))
    one, other = shown
    return one, other


def answers_to_repeat(
    answers: Path,
    suite: str,
    most: int,
    most_tokens: int | None = None,
    keys: Keyring = NO_KEYS,
    sha256: str = "",
) -> list[dict[str, Any]]:
    """Up to `most` rows of an evaluation's answers file, spread over the items of `suite`.

    Answers of more than `most_tokens` tokens are left out: a server that may not answer as long would cut them.
    `sha256` is the hash of the file that is on record.
    """
    return spread(generated(answers, suite, keys, sha256), most, most_tokens)[0]


def generated(answers: Path, suite: str, keys: Keyring = NO_KEYS, sha256: str = "") -> list[dict[str, Any]]:
    """The rows of an answers file that a model answered to the items of `suite`."""
    return [
        row
        for row in read_answers(answers, keys, sha256)
        # A document whose likelihood was measured has tokens too, but nobody answered it.
        if row["suite"] == suite and row.get("tokens") and "nll" not in row
    ]


def spread(
    rows: Sequence[dict[str, Any]], most: int, most_tokens: int | None = None
) -> tuple[list[dict[str, Any]], float]:
    """Up to `most` of the rows with no more than `most_tokens` tokens, and the share of whole answers that has more.

    An answer that the evaluation itself cut came to no end of its own, and is not counted.
    """
    short = [row for row in rows if most_tokens is None or row["tokens"] <= most_tokens]
    whole = sum(row.get("finish_reason") != "length" for row in rows)
    fit = sum(row.get("finish_reason") != "length" for row in short)
    return short[:: max(1, len(short) // most)][:most], 1 - fit / whole if whole else 0.0


def _plain(text: str) -> str:
    # A character that the length limit cut in two is shown as U+FFFD by some servers and left out by others.
    return unicodedata.normalize("NFC", text).strip().rstrip("\ufffd")
