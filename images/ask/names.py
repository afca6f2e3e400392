"""`python -m images.ask.names`: a token classifier that marks persons, asked over pipes by `resources.name_reader`.

The first line on standard input names the folder and what each label means; each line after it is a list of texts, and
each line of the answer a list of spans for each, or an error. What libraries print goes to standard error.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TextIO

BATCH = 32
LONGEST = 512
"""Tokens of a window at most; fewer if the model takes fewer."""
OVERLAP = 4
"""A window repeats this part of the one before: 4 is a quarter."""


class Token(NamedTuple):
    """Characters `start:end` of a text, what the model says of them (`Tag` of the job), and how sure it is."""

    start: int
    end: int
    tag: str
    sure: float


def spans(text: str, tokens: Sequence[Token]) -> list[tuple[int, int, float]]:
    """Persons that tagged tokens make: start, end, mean certainty. I and E without a beginning begin one too."""
    found: list[list[Token]] = []
    is_open = False
    for token in tokens:
        if token.tag == "O":
            is_open = False
            continue
        goes_on = is_open and (
            token.tag in "IE" or (token.tag == "P" and text[found[-1][-1].end : token.start] in ("", " "))
        )
        if goes_on:
            found[-1].append(token)
        else:
            found.append([token])
        is_open = token.tag not in "ES"
    return [(part[0].start, part[-1].end, sum(t.sure for t in part) / len(part)) for part in found]


class Classifier:
    """A token classifier in a local folder: safetensors only, no code of the model's own."""

    def __init__(self, folder: Path, tags: Sequence[str]) -> None:
        import torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        self._tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        if not self._tokenizer.is_fast:
            raise ValueError(
                f"{folder}: its tokenizer does not say where tokens stand in a text (tokenizer.json is missing)"
            )
        model = AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, **safe)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().to(self._device)
        self._tags = tags
        special = self._tokenizer.num_special_tokens_to_add()
        # RoBERTa's positions begin behind that of padding.
        offset = (model.config.pad_token_id or 0) + 1 if "roberta" in model.config.model_type else 0
        limit = (getattr(model.config, "max_position_embeddings", None) or LONGEST) - offset
        self._longest = max(special + 2, min(LONGEST, limit, self._tokenizer.model_max_length))
        self._overlap = (self._longest - special) // OVERLAP

    def _windows(self, texts: list[str]) -> Iterator[tuple[int, int, Any]]:
        """Number of the text, count of tokens and encoding of each window."""
        encoded = self._tokenizer(
            texts,
            truncation=True,
            max_length=self._longest,
            stride=self._overlap,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        for number, encoding in zip(encoded["overflow_to_sample_mapping"], encoded.encodings, strict=True):
            yield number, len(encoding.ids), encoding

    def __call__(self, texts: list[str]) -> list[list[tuple[int, int, float]]]:
        """Persons in each text, in order."""
        import torch

        tokens: list[dict[tuple[int, int], tuple[int, Token]]] = [{} for _ in texts]
        # Windows of like length together: less padding.
        windows = sorted(self._windows(texts), key=lambda window: window[1])
        for begin in range(0, len(windows), BATCH):
            batch = windows[begin : begin + BATCH]
            inputs = self._tokenizer.pad(
                {
                    "input_ids": [encoding.ids for _, _, encoding in batch],
                    "attention_mask": [encoding.attention_mask for _, _, encoding in batch],
                },
                return_tensors="pt",
            ).to(self._device)
            with torch.inference_mode():
                sure, labels = self._model(**inputs).logits.softmax(dim=-1).max(dim=-1)
            for (number, length, encoding), row, chances in zip(batch, labels.tolist(), sure.tolist(), strict=True):
                for at, (start, end) in enumerate(encoding.offsets):
                    if encoding.special_tokens_mask[at] or start == end:
                        continue
                    # Of two windows the one believed is where the token has more around it.
                    room, known = min(at, length - 1 - at), tokens[number].get((start, end))
                    if known is None or room > known[0]:
                        tokens[number][start, end] = room, Token(start, end, self._tags[row[at]], chances[at])
        return [
            spans(text, [token for _, (_, token) in sorted(found.items())])
            for text, found in zip(texts, tokens, strict=True)
        ]


def serve(lines: TextIO, answers: TextIO) -> None:
    """Answer until there are no more lines."""

    def say(value: object) -> None:
        answers.write(json.dumps(value, ensure_ascii=True) + "\n")
        answers.flush()

    try:
        first = json.loads(next(lines))
        ask = Classifier(Path(first["folder"]), first["tags"])
    except Exception as error:  # noqa: BLE001  the boundary of the process: the parent says it
        say({"error": f"{type(error).__name__}: {error}"})
        return
    say({"ready": True})
    for line in lines:
        try:
            say({"spans": ask(json.loads(line))})
        except Exception as error:  # noqa: BLE001  one list of texts must not end the others
            say({"error": f"{type(error).__name__}: {error}"})


def main() -> None:
    """Keeps standard output for the answers: whatever prints there goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
