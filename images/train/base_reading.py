"""How well a base model predicts the texts of a plan's rows before it is trained on them, and whether its layers stand
in the order that predicts them best."""

import math
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from images.train.check_time import counted
from images.train.probe import probes

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TOKENS = 64
"""Of a text, so many."""
_FEWEST = 4
"""Of a text with fewer there is nothing to predict from."""
_TEXTS = 16
_READS_WELL = 0.5
"""Share of the loss of guessing below which nobody looks for a fault: a model that knows a language has a third."""
_GAIN = 0.3
"""Nats a token by which an exchange of two layers must be better; of a whole model every one is worse."""
_OF_THE_TEXTS = 0.8
"""Share of the texts of which that must be so."""
_BELOW_GUESSING = 0.5
"""Nats a token below guessing that the better order must reach: of texts that a model does not know, none says more."""
_MOST_LAYERS = 8
"""Of more layers only neighbours and a few others are exchanged: each takes a pass over the texts."""


def reading(model: Any, tokenizer: "PreTrainedTokenizerBase", plan_dir: Path) -> dict[str, Any] | None:
    """What a BaseReading record is made of; None where there is no text to look at, or no number."""
    with counted():
        texts = _texts(tokenizer, probes(plan_dir))
        if not texts:
            return None
        losses = _losses(model, texts)
        tokens = [len(text) - 1 for text in texts]
        guessing = math.log(model.get_input_embeddings().weight.shape[0])
        loss = _mean(losses, tokens)
        if not math.isfinite(loss):
            return None
        found = {"loss": loss, "guessing": guessing, "tokens": sum(tokens)}
        if loss > _READS_WELL * guessing:
            found |= _exchanged(model, texts, losses, tokens, guessing)
        return found


def _texts(tokenizer: "PreTrainedTokenizerBase", rows: list[torch.Tensor]) -> list[list[int]]:
    """Token ids of what is said in rows, without headers and control tokens, which a base need not know yet."""
    special = set(tokenizer.all_special_ids)
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    found: list[list[int]] = []
    for row in rows:
        piece: list[int] = []
        for number in [*row[0].tolist(), None]:
            if number is not None and number not in special:
                piece.append(number)
                continue
            text = tokenizer.decode(piece, clean_up_tokenization_spaces=False).strip()
            role, line, said = text.partition("\n")
            text = said if line and role in _ROLES else text
            ids = tokenizer(text, add_special_tokens=False)["input_ids"][:_TOKENS]
            if len(ids) >= _FEWEST:
                found.append(ids if begin is None else [begin, *ids])
            piece = []
    # Questions and answers, of as many rows as there are.
    return found[:: max(1, math.ceil(len(found) / (2 * _TEXTS)))]


_ROLES = {"system", "user", "assistant", "tool", "model", "human", "gpt"}


@torch.inference_mode()
def _losses(model: Any, texts: list[list[int]]) -> list[float]:
    """Nats of all tokens of each text behind its first."""
    device = next(model.parameters()).device
    found = []
    for text in texts:
        ids = torch.tensor([text], device=device)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        found.append(float(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum")))
    return found


def _mean(losses: list[float], tokens: list[int]) -> float:
    return sum(losses) / max(1, sum(tokens))


def _exchanged(
    model: Any, texts: list[list[int]], losses: list[float], tokens: list[int], guessing: float
) -> dict[str, Any]:
    """The two layers whose exchange makes the model predict the texts, with the loss then; empty where none does."""
    layers = _layers(model)
    best: dict[str, Any] = {}
    lowest = min(_mean(losses, tokens) - _GAIN, guessing - _BELOW_GUESSING)
    for one, other in _pairs(len(layers)) if layers is not None else ():
        if type(layers[one]) is not type(layers[other]):
            continue
        _exchange(layers, one, other)
        try:
            found = _losses(model, texts)
        finally:
            _exchange(layers, one, other)
        better = sum(a < b for a, b in zip(found, losses, strict=True))
        if (mean := _mean(found, tokens)) < lowest and better >= _OF_THE_TEXTS * len(texts):
            lowest = mean
            best = {"exchanged": [one, other], "exchanged_loss": mean}
    return best


def _layers(model: Any) -> Any | None:
    count = getattr(model.config, "num_hidden_layers", None)
    lists = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == count)
    return next(lists, None)


def _exchange(layers: Any, one: int, other: int) -> None:
    layers[one], layers[other] = layers[other], layers[one]


def _pairs(count: int) -> list[tuple[int, int]]:
    every = list(combinations(range(count), 2))
    if count <= _MOST_LAYERS:
        return every
    # The first and the last of a model are unlike any other: one of them in another place is what harms most.
    ends = {0, count - 1}
    return [(a, b) for a, b in every if b == a + 1 or a in ends or b in ends]
