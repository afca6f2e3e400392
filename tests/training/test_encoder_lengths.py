"""A long text is cut for an encoder's training as sentence-transformers will cut it for its users."""

from pathlib import Path

import pytest

from images.train.plan_encoder import cut_as_served

WORDS = ["통행료", "환불", "영수증", "단말기", "휴게소", "사고", "요금소", "창구", "매장", "출구"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random encoder of ten words, whose tokenizer writes [CLS] and [SEP] around a text as BERT's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = {token: number for number, token in enumerate(["[PAD]", "[CLS]", "[SEP]", "[UNK]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **shape)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("side", "kept"), [("right", WORDS[:4]), ("left", WORDS[-4:])])
def test_a_long_text_keeps_what_stands_around_it_and_loses_the_end_that_its_tokenizer_says(
    folder: Path, side: str, kept: list[str]
) -> None:
    from sentence_transformers.sentence_transformer.modules import Transformer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, truncation_side=side)
    tokenizer.save_pretrained(folder)
    served = Transformer(str(folder), max_seq_length=6)
    for text, is_long in ((" ".join(WORDS), True), (" ".join(WORDS[:4]), False)):
        ids, cut = cut_as_served(tokenizer, text, 6)
        assert cut is is_long
        assert ids == served.preprocess([text])["input_ids"][0].tolist()
    ids, _ = cut_as_served(tokenizer, " ".join(WORDS), 6)
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", *kept, "[SEP]"]
