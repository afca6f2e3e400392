"""Trains the tokenizer of a model that starts from nothing."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from images.train.chat import CHATML

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, START, END = "<|pad|>", "<|im_start|>", "<|im_end|>"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, min_frequency: int, length: int
) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer of at most `vocab_size` entries with ChatML's tokens; no text is unknown to it.

    Text is brought to NFC first, so that composed and decomposed Hangul give the same tokens. `length` is the longest
    sequence of the model, in tokens.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        model_max_length=length,
        clean_up_tokenization_spaces=False,
        chat_template=CHATML,
    )
