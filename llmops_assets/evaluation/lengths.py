"""Whether a right answer has room: how many references are longer than a model may write."""

from collections.abc import Sequence
from pathlib import Path

from llmops_assets.evaluation.suites import Item

LITERAL = ("exact", "contains", "multiple_choice")
"""Judges whose right answers hold the reference itself."""


def too_long(items: Sequence[Item], model_dir: Path | str, max_new_tokens: int) -> int:
    """Items whose shortest reference is more than `max_new_tokens` tokens of the model in `model_dir`.

    Of a tokenizer that is not in one file nothing is known: 0. Items with choices are not generated.
    """
    written = [item for item in items if not item.choices and item.judge.kind in LITERAL]
    file = Path(model_dir) / "tokenizer.json"
    # A token is a byte at least, so that hardly anybody needs the tokenizer.
    suspects = [item for item in written if min(len(r.encode()) for r in item.references) > max_new_tokens]
    if not suspects or not file.exists():
        return 0
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    lengths = [
        min(len(encoded.ids) for encoded in tokenizer.encode_batch(list(item.references), add_special_tokens=False))
        for item in suspects
    ]
    return sum(length > max_new_tokens for length in lengths)
