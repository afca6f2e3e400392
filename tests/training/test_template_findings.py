"""What a chat template does to rows that nobody meant is a finding of the plan, by name, with its rows."""

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from transformers import AddedToken, AutoTokenizer, PreTrainedTokenizerBase
from trl import chat_template_utils as shipped

from images.train.chat import CHATML, choose_template, encode, keeps_prefixes
from images.train.marked_texts import Conversation
from images.train.plan_pairs import plan_pairs
from images.train.reporter import Reporter
from images.train.template_findings import RefusedRows, findings
from llmops_assets.datasets import schema
from llmops_assets.specs.training import TrainJobSpec
from tests.training.job_data import job_spec
from tests.training.test_control_tokens import GEMMA, LLAMA, MISTRAL, TAGS

TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "fee",
                "description": "통행료",
                "parameters": {"type": "object", "properties": {"gate": {"type": "string"}}},
            },
        }
    ]
)
CALL = json.dumps([{"id": "call_0001", "type": "function", "function": {"name": "fee", "arguments": {"gate": "서울"}}}])


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    """A message as the store gives it: every field is there."""
    fields = dict.fromkeys(("name", "tool_calls", "tool_call_id", "reasoning_content", "weight"))
    return {"role": role, "content": content, **fields, **more}


PLAIN = [
    said("user", "통행료가 얼마예요?"),
    said("assistant", "1,200원입니다."),
    said("user", "네"),
    said("assistant", "네."),
]
SYSTEM = [said("system", "짧게 답한다."), *PLAIN]
CALLED = [
    said("user", "서울 통행료?"),
    said("assistant", "", tool_calls=CALL),
    said("tool", "1200", tool_call_id="call_0001"),
    said("assistant", "1,200원입니다."),
]
REASONED = [said("user", "둘 더하기 셋?"), said("assistant", "5", reasoning_content="2+3은 5다.")]

NO_SYSTEM = CHATML.replace(
    "{%- for message in messages -%}", "{%- for message in messages if message.role != 'system' -%}"
)
LAST_TURN = CHATML.replace("{%- for message in messages -%}", "{%- for message in messages[-2:] -%}")
HEADER = (
    "{%- for message in messages -%}{%- if message['role'] == 'assistant' -%}"
    "{%- generation -%}{{- '<|im_start|>assistant\\n' + message['content'] + '<|im_end|>\\n' -}}{%- endgeneration -%}"
    "{%- else -%}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
OPENS = CHATML.replace(
    "'<|im_start|>assistant\\n' -}}{%- endif -%}", "'<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}"
)
LOWER = CHATML.replace("message['content'] + '<|im_end|>'", "message['content'] | replace('원', '') + '<|im_end|>'")
SAYS = "{{- message['content'] + '<|im_end|>' -}}{%- endgeneration -%}"
QUOTES = CHATML.replace(SAYS, "{{- message['content'] | tojson + '<|im_end|>' -}}{%- endgeneration -%}")
REMARKS = CHATML.replace(SAYS, "{{- message['content'] + ' [AI 답변]<|im_end|>' -}}{%- endgeneration -%}")
HALF = CHATML.replace(
    "{%- generation -%}" + SAYS,
    "{{- message['content'][:5] -}}{%- generation -%}{{- message['content'][5:] + '<|im_end|>' -}}"
    "{%- endgeneration -%}",
)
LAST_MARKED = CHATML.replace(
    "{%- generation -%}" + SAYS,
    "{%- if loop.last -%}{%- generation -%}"
    + SAYS
    + "{%- else -%}{{- message['content'] + '<|im_end|>' -}}{%- endif -%}",
)
NO_PROMPT = CHATML.replace("{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}", "")
LAST_STOPS = CHATML.replace(
    SAYS, "{{- message['content'] + ('<|im_end|>' if loop.last else '') -}}{%- endgeneration -%}"
)
TRIMS = CHATML.replace("message['content'] + '<|im_end|>'", "message['content'] | trim + '<|im_end|>'")


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> PreTrainedTokenizerBase:
    found = AutoTokenizer.from_pretrained(tiny_base)
    found.add_special_tokens({"bos_token": "<|begin|>"})
    found.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    return found


def names(
    tokenizer: PreTrainedTokenizerBase, template: str | None, *rows: list[dict[str, Any]], tools: Any = None
) -> list[str]:
    tokenizer.chat_template = template
    talks = [Conversation(f"r{number}", row, tools) for number, row in enumerate(rows)]
    return [finding.name for finding in findings(tokenizer, choose_template(tokenizer), talks)]


@pytest.mark.parametrize("template", [CHATML, None, shipped.qwen2_5_chat_template, shipped.llama3_chat_template, LLAMA])
def test_a_template_that_writes_all_has_no_finding(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    assert names(tokenizer, template, PLAIN, SYSTEM, PLAIN[:2]) == []


@pytest.mark.parametrize(
    ("template", "row", "finding"),
    [
        (NO_SYSTEM, SYSTEM, "system_prompt_dropped"),
        (LAST_TURN, PLAIN, "turn_dropped"),
        (HEADER, PLAIN, "header_trained"),
        (OPENS, PLAIN, "think_opened"),
        (LOWER, PLAIN, "content_rewritten"),
        (QUOTES, PLAIN[:2], "answer_padded"),
        (REMARKS, PLAIN, "answer_padded"),
        (HALF, PLAIN[:2], "answer_untrained"),
        (LAST_MARKED, PLAIN, "answer_untrained"),
        (NO_PROMPT, PLAIN[:2], "generation_prompt_missing"),
        (LAST_STOPS, PLAIN, "earlier_stop_missing"),
        (TRIMS, [said("user", " 앞에 빈칸"), said("assistant", "네")], "content_trimmed"),
        (CHATML, CALLED, "tool_calls_dropped"),
        (CHATML, REASONED, "reasoning_dropped"),
        (MISTRAL, [*PLAIN[:2], said("user", "a"), said("assistant", "", tool_calls=CALL)], "tool_calls_dropped"),
        (GEMMA, REASONED, "reasoning_dropped"),
        (
            shipped.qwen3_chat_template,
            [*REASONED, said("user", "더하기 둘?"), said("assistant", "7", reasoning_content="5+2")],
            "earlier_reasoning_dropped",
        ),
        (
            shipped.qwen3_chat_template,
            [PLAIN[0], said("assistant", "<think>\n셈\n</think>\n\n1,200원"), PLAIN[2], said("assistant", "네")],
            "earlier_reasoning_dropped",
        ),
    ],
)
def test_what_a_template_does_is_named(
    tokenizer: PreTrainedTokenizerBase, template: str, row: list[dict[str, Any]], finding: str
) -> None:
    assert finding in names(tokenizer, template, row)


# The template of llava takes the parts of a message alone, and no text.
SHIPPED = {
    name: text
    for name, text in vars(shipped).items()
    if name.endswith("_template") and isinstance(text, str) and "llava" not in name
}
_CONTROL = re.compile(r"<[|｜]?[a-zA-Z_▁/0-9]+[|｜]?>|\[/?[A-Z_]+\]")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_no_finding_cries_wolf_over_a_template_that_is_in_use(tiny_base: Path, name: str) -> None:
    theirs = AutoTokenizer.from_pretrained(tiny_base)
    control = sorted({*_CONTROL.findall(SHIPPED[name]), *TAGS})
    theirs.add_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    theirs.add_special_tokens({"bos_token": "<|begin|>"})
    found = names(theirs, SHIPPED[name], PLAIN, PLAIN[:2])
    assert not {*found} & {"answer_untrained", "answer_padded", "generation_prompt_missing", "earlier_stop_missing"}


def test_tools_that_are_not_written_are_named(tokenizer: PreTrainedTokenizerBase) -> None:
    assert "tools_dropped" in names(tokenizer, CHATML, PLAIN, tools=TOOLS)
    for template in (shipped.qwen2_5_chat_template, shipped.qwen3_chat_template, shipped.llama3_1_chat_template):
        assert names(tokenizer, template, CALLED, tools=TOOLS) == [], "calls, results, tools and answers all show"


def test_reasoning_is_trained_where_the_template_writes_it(tokenizer: PreTrainedTokenizerBase) -> None:
    assert names(tokenizer, shipped.qwen3_chat_template, REASONED) == []
    row = encode(tokenizer, choose_template(tokenizer), [REASONED], 1000)[0]
    learnt = tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])
    assert learnt == "<think>\n2+3은 5다.\n</think>\n\n5<|im_end|>\n"


def test_calls_and_answers_carry_loss_and_results_do_not(tokenizer: PreTrainedTokenizerBase) -> None:
    for template in (shipped.qwen2_5_chat_template, shipped.qwen3_chat_template):
        tokenizer.chat_template = template
        row = encode(tokenizer, choose_template(tokenizer), [CALLED], 2000, [TOOLS])[0]
        learnt = tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])
        assert '"name": "fee"' in learnt and "1,200원입니다." in learnt
        assert "tool_response" not in learnt and "서울 통행료" not in learnt
        assert "<tools>" in tokenizer.decode(row.ids)


@pytest.mark.parametrize("template", [CHATML, shipped.qwen2_5_chat_template, LLAMA])
def test_a_turn_of_weight_nought_carries_no_loss(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    tokenizer.chat_template = template
    talk = [PLAIN[0], said("assistant", "틀린 답", weight=0), *PLAIN[2:]]
    row = encode(tokenizer, choose_template(tokenizer), [talk], 1000)[0]
    learnt = tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])
    assert "틀린" not in learnt and learnt.strip().startswith("네.")
    assert "틀린 답" in tokenizer.decode(row.ids), "it is still what came before"


def test_a_refusal_has_the_templates_own_words_and_the_rows(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(
        RefusedRows, match=r"refuses 2 of 3 rows.*«System role not supported» \(rows r1, r2\).*first user"
    ):
        names(tokenizer, shipped.gemma_chat_template, PLAIN, SYSTEM, SYSTEM)
    with pytest.raises(RefusedRows, match=r"roles must alternate.*Join turns"):
        names(tokenizer, shipped.gemma_chat_template, [PLAIN[0], *PLAIN])


def test_findings_count_all_rows_of_a_shape_and_show_one(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = NO_SYSTEM
    rows = [Conversation(f"r{n}", SYSTEM if n % 2 else PLAIN) for n in range(40)]
    (found,) = findings(tokenizer, choose_template(tokenizer), rows)
    assert found.blocking and found.rows == 20 and found.row_ids[:2] == ["r1", "r3"] and len(found.row_ids) == 10
    assert "통행료가" in found.example and "first user message" in found.text


def test_what_a_template_does_to_the_words_of_a_few_rows_is_found_on_them(tokenizer: PreTrainedTokenizerBase) -> None:
    other = [said("user", "하이패스 단말기는?"), said("assistant", "매장에서 바꿉니다.")]
    long = [said("user", "통행료가 얼마예요? " * 30), said("assistant", "1,200원입니다.")]
    for template in (
        CHATML.replace("message['content']", "message['content'] | replace('매장', '창구')"),
        CHATML.replace("message['content']", "message['content'][:100]"),
    ):
        tokenizer.chat_template = template
        rows = [PLAIN[:2], PLAIN[:2], other, long]
        (found,) = findings(
            tokenizer, choose_template(tokenizer), [Conversation(f"r{n}", row) for n, row in enumerate(rows)]
        )
        assert (found.name, found.rows) == ("content_rewritten", 1), template
        assert found.row_ids == ["r2" if "매장" in template else "r3"]


def test_what_a_tool_answered_may_be_written_as_json(tokenizer: PreTrainedTokenizerBase) -> None:
    quoted = [*CALLED[:2], said("tool", '{"fee": "1200"}\n', tool_call_id="call_0001"), CALLED[3]]
    assert names(tokenizer, LLAMA, CALLED, quoted, tools=TOOLS) == names(tokenizer, LLAMA, CALLED, tools=TOOLS)


def test_a_token_that_ends_answers_and_stands_in_them_is_named(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = CHATML
    (period,) = tokenizer(".", add_special_tokens=False)["input_ids"]
    template, end = choose_template(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>")
    rows = [Conversation("r0", PLAIN), Conversation("r1", [PLAIN[0], said("assistant", "모릅니다")])]
    assert findings(tokenizer, template, rows, {end}) == []
    (found,) = findings(tokenizer, template, rows, {end, period})
    assert found.blocking and found.row_ids == ["r0"] and found.text.endswith(f": '.' ({period})")


def test_an_end_token_that_would_stand_in_every_answer_is_named(tiny_base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    tokenizer.add_tokens([AddedToken("<|eot|>", special=False, normalized=False)])
    assert names(tokenizer, CHATML.replace("<|im_end|>", "<|eot|>"), PLAIN) == ["stop_shows"]
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    assert names(tokenizer, CHATML.replace("<|im_end|>", "<|eot|>"), PLAIN) == []


def test_what_a_thinking_template_asks_for_is_trained_behind_what_its_server_writes(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    qwen3 = shipped.qwen3_chat_template
    assert names(tokenizer, qwen3, PLAIN, SYSTEM) == [], "an empty thought before the last answer alone"
    template = choose_template(tokenizer)
    row = encode(tokenizer, template, [PLAIN], 1000)[0]
    learnt = tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])
    assert learnt == "1,200원입니다.<|im_end|><think>\n\n</think>\n\n네.<|im_end|>"
    assert keeps_prefixes(tokenizer, template, PLAIN) and keeps_prefixes(tokenizer, template, CALLED, TOOLS)
    earlier = [REASONED[0], {**REASONED[1], "weight": 0}]
    talk = [*earlier, said("user", "더하기 둘?"), said("assistant", "7", reasoning_content="5+2는 7이다.")]
    assert names(tokenizer, qwen3, talk) == [], "as the advice says"
    assert keeps_prefixes(tokenizer, template, talk)
    row = encode(tokenizer, template, [talk], 1000)[0]
    learnt = tokenizer.decode([i for i, trained in zip(row.ids, row.trained, strict=True) if trained])
    assert learnt == "<think>\n5+2는 7이다.\n</think>\n\n7<|im_end|>" and "2+3은" not in tokenizer.decode(row.ids)


@pytest.mark.parametrize("algorithm", ["dpo", "kto"])
def test_preferences_and_ratings_are_looked_at_as_conversations_are(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, algorithm: str
) -> None:
    tokenizer.chat_template = NO_SYSTEM
    tokenizer.save_pretrained(tmp_path / "base")
    good, bad = [said("assistant", "1,200원입니다.")], [said("assistant", "몰라요.")]
    answers = {
        "dpo": [{"chosen": good, "rejected": bad}] * 2,
        "kto": [{"completion": good, "label": True}, {"completion": bad, "label": False}],
    }[algorithm]
    rows = [{"row_id": f"r{n}", "prompt": SYSTEM[:2], "tools": None, **one} for n, one in enumerate(answers)]
    frame = pl.DataFrame(rows, schema=schema.columns_of("kto" if algorithm == "kto" else "rlhf_pair"))
    rlhf = {"algorithm": algorithm, "ppo_steps": None, "max_new_tokens": None}
    spec = job_spec("RLHF", "llama", "hf:x", "lora", rlhf=rlhf) | {"dataset_ref": "pairs@v1"}
    (tmp_path / "plan").mkdir()
    checked = TrainJobSpec.model_validate(spec)
    reporter = Reporter({})
    facts = plan_pairs(checked, {"train": frame}, tmp_path / "base", tmp_path / "plan", reporter)
    found = {finding["name"]: finding for finding in facts["findings"]}
    assert found["system_prompt_dropped"]["blocking"] and found["system_prompt_dropped"]["row_ids"]


def renormalised(tokenizer: PreTrainedTokenizerBase, normalizer: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer with another normalizer in its tokenizer.json."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = json.loads(tokenizer.backend_tokenizer.to_str())
    core["normalizer"] = normalizer
    changed = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(core)))
    changed.add_special_tokens({"eos_token": tokenizer.eos_token, "pad_token": tokenizer.pad_token})
    changed.chat_template = CHATML
    return changed


def replaced(pattern: dict[str, str], by: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": by}


CODE = [said("user", "함수를 보여 줘"), said("assistant", "def f():\n    return 1")]


@pytest.mark.parametrize(
    ("normalizer", "messages", "names", "blocks"),
    [
        ({"type": "NFC"}, CODE, [], False),
        ({"type": "NFKC"}, [said("user", "１２번"), said("assistant", "네.")], [], False),
        (replaced({"String": "\n"}, " "), CODE, ["tokens_lose_lines"], True),
        # What the header ends with: its template seems to write a turn otherwise once it goes on.
        (replaced({"String": "\n"}, " "), PLAIN, ["tokens_lose_lines"], True),
        (replaced({"Regex": " +"}, " "), CODE, ["tokens_lose_spaces"], False),
        (replaced({"Regex": "[0-9]"}, "0"), CODE, ["tokens_lose_letters"], True),
        (
            {"type": "NFD"},
            [*PLAIN, said("user", "통행료가 얼마예요? " * 20), said("assistant", "네.")],
            ["tokens_are_bytes"],
            False,
        ),
    ],
)
def test_what_a_tokenizer_loses_of_the_texts_is_named_as_its_own(
    tiny_base: Path, normalizer: dict[str, Any], messages: list[dict[str, Any]], names: list[str], blocks: bool
) -> None:
    tokenizer = renormalised(AutoTokenizer.from_pretrained(tiny_base), normalizer)
    found = findings(tokenizer, choose_template(tokenizer), [Conversation("row", messages)])
    assert [one.name for one in found] == names
    assert any(one.blocking for one in found) is blocks and all(one.row_ids == ["row"] for one in found)
