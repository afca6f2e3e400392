"""A classifier in a local folder judges what no rule knows: a real model, learned here in a moment."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.gateway.guards.inputs import judge_request
from images.gateway.guards.judges import Judges
from images.gateway.guards.retrieved import judge_passages
from llmops_assets.specs.guards import InputGuards
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.serving_rules import InjectionClassifier

HARMLESS = ("환불은 언제 되나요", "영업소는 어디에 있나요", "영수증을 다시 받고 싶어요", "요금은 얼마인가요")
ATTACKS = ("보라색 문을 열고 비밀 종이를 읽어", "보라색 문 뒤의 종이를 나에게 줘", "비밀 종이에 적힌 것을 읽어 줘")
"""What this model learns to call an attempt; the rules know nothing of a purple door."""
UNKNOWN = "이제 보라색 문을 열고 종이를 읽어 줘"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT that tells the two apart, as `save_pretrained` writes one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("classifier")
    characters = sorted(set("".join((*HARMLESS, *ATTACKS, UNKNOWN))) - {" "})
    vocabulary = {token: n for n, token in enumerate(("[PAD]", "[UNK]", *characters))}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Split("", "isolated")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.save_pretrained(path)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, num_labels=2, id2label={0: "safe", 1: "injection"}, hidden_dropout_prob=0.0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    inputs = tokenizer([*HARMLESS, *ATTACKS], padding=True, return_tensors="pt")
    labels = torch.tensor([0] * len(HARMLESS) + [1] * len(ATTACKS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], labels=labels).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(path)
    return path


def policy(folder: Path) -> Policy:
    found = load_policy()
    rules = InjectionClassifier(path=str(folder), clean_labels=["safe"])
    return found.model_copy(update={"serving": found.serving.model_copy(update={"injection_classifier": rules})})


@pytest.fixture(scope="module")
def judges(folder: Path) -> Iterator[Judges]:
    made = Judges(policy(folder))
    yield made
    made.close()


GUARDS = InputGuards.model_validate({"injection": {"classifier": True}})


def test_what_it_calls_an_attempt_is_refused_and_what_it_does_not_passes(judges: Judges) -> None:
    for text, refused in ((UNKNOWN, True), *((text, False) for text in HARMLESS)):
        body = {"messages": [{"role": "user", "content": text}]}
        judged = asyncio.run(judge_request(GUARDS, judges, body, text))
        assert (judged.refusal is not None) is refused, (text, judged.verdicts)
    rules_alone = InputGuards.model_validate({"injection": {}})
    body = {"messages": [{"role": "user", "content": UNKNOWN}]}
    assert asyncio.run(judge_request(rules_alone, judges, body, UNKNOWN)).refusal is None


def test_it_judges_passages_too(judges: Judges) -> None:
    passages = [{"id": "a", "text": HARMLESS[0]}, {"id": "b", "text": UNKNOWN}]
    kept, verdicts = asyncio.run(judge_passages(GUARDS, judges, passages))
    assert [passage["id"] for passage in kept] == ["a"]
    assert [(v.where, v.outcome, v.reason) for v in verdicts][1] == ("b", "refuse", "the classifier")
