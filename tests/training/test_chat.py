"""What a model is trained to write is found under every kind of chat template."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from images.train import rows
from images.train.chat import (
    CHATML,
    Template,
    TemplateError,
    choose_template,
    encode,
    keeps_prefixes,
    marked_markdown,
)

TALK = [
    {"role": "user", "content": "통행료가 얼마예요?"},
    {"role": "assistant", "content": "1,200원입니다. *할인*도 있습니다."},
    {"role": "user", "content": "네"},
    {"role": "assistant", "content": "감사합니다."},
]
UNMARKED = CHATML.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
# The last turn is rendered otherwise than the same turn followed by another, as reasoning templates do.
FORGETFUL = UNMARKED.replace(
    "message['content'] + '<|im_end|>'",
    "('' if loop.last else '<was asked again>') + message['content'] + '<|im_end|>'",
)


@pytest.fixture
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_base)


def learnt(tokenizer: PreTrainedTokenizerBase, template: Template) -> str:
    row = encode(tokenizer, template, [TALK], 1000)[0]
    return tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])


def test_own_markers_are_used(tokenizer: PreTrainedTokenizerBase) -> None:
    template = choose_template(tokenizer)
    assert template.origin == "own"
    assert learnt(tokenizer, template) == "1,200원입니다. *할인*도 있습니다.<|im_end|>감사합니다.<|im_end|>"


def test_without_markers_the_answers_are_found_by_difference(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = UNMARKED
    template = choose_template(tokenizer)
    assert template.origin == "difference"
    assert learnt(tokenizer, template) == "1,200원입니다. *할인*도 있습니다.<|im_end|>\n감사합니다.<|im_end|>\n"
    row = encode(tokenizer, template, [TALK], 1000)[0]
    assert tokenizer.convert_ids_to_tokens(row.stop) == "<|im_end|>", "the line end after it is passed over"
    assert keeps_prefixes(tokenizer, template, TALK)


def test_a_template_that_renders_the_past_otherwise_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(TemplateError, match="renders earlier messages differently"):
        encode(tokenizer, choose_template(tokenizer), [TALK], 1000)
    # At serving the question comes last, in training an answer follows it.
    marked = CHATML.replace("}}{%- endif -%}{{- '\\n'", "}}{{- ' /no_think' if loop.last -}}{%- endif -%}{{- '\\n'")
    assert marked != CHATML
    assert not keeps_prefixes(tokenizer, Template(marked, marked, "own"), TALK[:2])


def test_templates_that_trl_knows_are_patched_for_training_only(tokenizer: PreTrainedTokenizerBase) -> None:
    from trl.chat_template_utils import qwen2_5_chat_template

    tokenizer.chat_template = qwen2_5_chat_template
    template = choose_template(tokenizer)
    assert template.origin == "trl" and template.serving == qwen2_5_chat_template
    assert learnt(tokenizer, template).count("<|im_end|>") == 2
    assert keeps_prefixes(tokenizer, template, TALK)


def test_a_base_without_a_template_gets_one_that_fits_its_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = None
    assert choose_template(tokenizer).origin == "chatml"

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[])
    )
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    plain = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")
    template = choose_template(plain)
    assert template.origin == "plain"
    assert learnt(plain, template) == "1,200원입니다. *할인*도 있습니다.</s>감사합니다.</s>"
    row = encode(plain, template, [TALK], 1000)[0]
    assert row.leading_bos == 1 and row.stop == plain.eos_token_id
    double = Template("{{ bos_token }}" + template.training, template.serving, "own")
    assert encode(plain, double, [TALK], 1000)[0].leading_bos == 2


def test_templates_run_in_a_sandbox(tokenizer: PreTrainedTokenizerBase) -> None:
    from jinja2.exceptions import SecurityError

    evil = CHATML + "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(SecurityError):
        encode(tokenizer, Template(evil, evil, "own"), [TALK], 1000)


def test_a_cut_answer_is_known_and_has_no_stop_token(tokenizer: PreTrainedTokenizerBase) -> None:
    template = choose_template(tokenizer)
    whole = encode(tokenizer, template, [TALK], 1000)[0]
    cut = encode(tokenizer, template, [TALK], len(whole.ids) - 3)[0]
    assert cut.truncated and cut.cut_answer and cut.stop is None
    only_the_end = encode(tokenizer, template, [TALK], len(whole.ids) - 1)[0]
    assert only_the_end.truncated and not only_the_end.cut_answer, "the line end after the answer carries no loss"


def test_the_example_shows_the_mask_and_cannot_break_the_page(tokenizer: PreTrainedTokenizerBase) -> None:
    row = encode(tokenizer, choose_template(tokenizer), [TALK], 1000)[0]
    text = marked_markdown(tokenizer, row)
    assert "**감사합니다.\\<\\|im\\_end\\|\\>**" in text
    assert "<|im" not in text and "\\*할인\\*" in text


def test_blocks_hold_every_token_of_the_corpus_in_a_fixed_order(tokenizer: PreTrainedTokenizerBase) -> None:
    texts = [f"{i}번 문서입니다." for i in range(50)]
    blocks = rows.text_blocks(tokenizer, texts, 16, seed=3)
    assert blocks.shape[1] == 16
    assert (blocks == rows.text_blocks(tokenizer, texts, 16, seed=3)).all()
    assert (blocks != rows.text_blocks(tokenizer, texts, 16, seed=4)).any()
    documents = tokenizer.decode(blocks.reshape(-1)).split("<|im_end|>")
    assert set(documents[:-1]) <= set(texts) and len(documents) >= 49
