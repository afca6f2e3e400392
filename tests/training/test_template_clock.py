"""A chat template that asks for today is told the day of the plan, on every later day and in every later place."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from images.ask import generate
from images.train.chat import CHATML, choose_template, encode, prompt_ids
from images.train.template_clock import UnpinnedTemplate, drawn_at_random, pinned, reads_clock
from llmops_assets.records.training import BaseModelRecord
from llmops_assets.training.base import template_date

DATED = (
    "{%- if strftime_now is defined %}{%- set today = strftime_now('%d %b %Y') %}{%- else %}"
    "{%- set today = '26 Jul 2024' %}{%- endif %}"
    "{{- 'Today: ' + today + strftime_now(format=\" it's %H:%M\") + '\\n' }}"
)
TALK = [{"role": "user", "content": "오늘은?"}, {"role": "assistant", "content": "월요일입니다."}]


@pytest.fixture
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(tiny_base)
    found.chat_template = DATED + CHATML
    return found


def test_training_evaluation_and_a_server_read_the_day_of_the_plan(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    template = choose_template(tokenizer, "2024-02-29")
    row = encode(tokenizer, template, [TALK], 1000)[0]
    assert tokenizer.decode(row.ids).startswith("Today: 29 Feb 2024 it's 00:00\n<|im_start|>user")
    tokenizer.chat_template = template.serving
    tokenizer.save_pretrained(tmp_path)
    served = AutoTokenizer.from_pretrained(tmp_path)
    prompt = prompt_ids(tokenizer, template, TALK[:1])
    assert served.apply_chat_template(TALK[:1], add_generation_prompt=True, return_dict=False) == prompt
    assert generate.encode(served, {"messages": TALK[:1]}) == prompt == row.ids[: len(prompt)]


def test_a_pinned_template_is_pinned_for_what_is_trained_on_it_too(tokenizer: PreTrainedTokenizerBase) -> None:
    once = pinned(DATED + CHATML, "2024-02-29")
    assert reads_clock(DATED) and not reads_clock(once) and not reads_clock(CHATML)
    assert pinned(once, "2030-01-01") == once
    assert once.endswith(DATED + CHATML), "the template itself stays as it was"
    assert pinned(CHATML, "2030-01-01") == CHATML


@pytest.mark.parametrize("start", ["\n  first", "  {{ 'a' }}", "\n\n{% if true %}\nx\n{% endif %}\n"])
def test_a_pin_changes_no_other_character(tokenizer: PreTrainedTokenizerBase, start: str) -> None:
    template = start + "{{ strftime_now('%Y') }}" + CHATML
    plain = start + "2024" + CHATML
    assert tokenizer.apply_chat_template(TALK, chat_template=pinned(template, "2024-02-29"), tokenize=False) == (
        tokenizer.apply_chat_template(TALK, chat_template=plain, tokenize=False)
    )


def test_what_cannot_be_pinned_is_refused_by_what_it_asks_for() -> None:
    with pytest.raises(UnpinnedTemplate, match="format that it computes"):
        pinned("{{ strftime_now(fmt) }}", "2024-02-29")
    with pytest.raises(UnpinnedTemplate, match="another name"):
        pinned("{% set now = strftime_now %}{{ now('%Y') }}", "2024-02-29")
    with pytest.raises(UnpinnedTemplate, match=r"draws at random \(\| random\)"):
        pinned("{{ ['하나', '둘'] | random }}" + CHATML, "2024-02-29")
    assert drawn_at_random("{{ lipsum() }}") == ["lipsum()"]
    assert drawn_at_random("{{ 'a random word' }}") == []


def test_only_a_base_that_asks_gets_a_day_and_a_plan_keeps_it(tmp_path: Path) -> None:
    base = BaseModelRecord(ref="hf:x", family="llama", path=str(tmp_path), content_hash="c")
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    assert template_date(base, None) is None and template_date(None, None) is None
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": DATED + CHATML}))
    assert template_date(base, "2024-02-29") == "2024-02-29"
    assert len(template_date(base, None) or "") == 10
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": pinned(DATED, "2024-02-29")}))
    assert template_date(base, None) is None
