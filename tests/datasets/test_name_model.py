"""A token classifier of the user's finds names beside ours or instead of ours: masked, renamed, checked and scanned."""

import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.ask.names import Token, spans
from llmops_assets.datasets.reading.scan import scan
from llmops_assets.privacy import pii
from llmops_assets.privacy.name_model import NameModelError, labels_of, name_model, tags_of, without_particles
from llmops_assets.specs.dataset_rules import NameModelRules
from llmops_assets.specs.policy import load_policy
from resources.name_reader import NameReaderError

LABELS = ["O", "B-PS", "I-PS", "B-LC", "I-LC"]
FIRST, SECOND = "뿅똭쀼쫑", "퓨뱌뾰쬬"
"""Syllables of invented names, which no dictionary has."""
FRAMES = [
    "담당 {}에게 물어보세요",
    "어제 {}가 다녀갔다",
    "{}라고 합니다",
    "문의는 {} 앞으로",
    "요금은 얼마인가요",
    "길이 막혀요",
]


def invented(rng: random.Random) -> str:
    return "".join(rng.choice(letters) for letters in (FIRST, SECOND, SECOND))


def sentences(count: int, seed: int) -> list[tuple[str, list[int]]]:
    rng, found = random.Random(seed), []
    for _ in range(count):
        frame, name = rng.choice(FRAMES), invented(rng)
        text, at = frame.format(name), frame.find("{}")
        labels = [0] * len(text)
        if at >= 0:
            labels[at : at + 3] = [1, 2, 2]
        found.append((text, labels))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny token classifier that has learned invented names, character by character."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForTokenClassification, PreTrainedTokenizerFast

    torch.manual_seed(0)
    rows = sentences(400, seed=0)
    letters = ["[PAD]", "[UNK]", *sorted({char for text, _ in rows for char in text} | set(FIRST + SECOND))]
    inner = Tokenizer(models.WordLevel({c: n for n, c in enumerate(letters)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=len(letters), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=48, id2label=dict(enumerate(LABELS)),
        label2id={label: n for n, label in enumerate(LABELS)},
    )  # fmt: skip
    model = BertForTokenClassification(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    longest = max(len(text) for text, _ in rows)
    inputs = tokenizer([text for text, _ in rows], padding="max_length", max_length=longest, return_tensors="pt")
    wanted = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    for _ in range(30):
        model(**inputs, labels=wanted).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    where = tmp_path_factory.mktemp("names")
    tokenizer.save_pretrained(where)
    model.eval().save_pretrained(where)
    return where


def rules(folder: Path, mode: str = "mask", **how):
    policy = load_policy()
    own = {"mode": mode, "names": NameModelRules(model=str(folder), **how)}
    datasets = policy.datasets.model_copy(update={"pii": policy.datasets.pii.model_copy(update=own)})
    return policy.model_copy(update={"datasets": datasets})


def test_it_finds_what_it_was_trained_on_and_leaves_particles(folder):
    find = name_model(NameModelRules(model=str(folder), instead=True))
    unknown = sentences(40, seed=9)
    found = find([text for text, _ in unknown])
    for (text, labels), names in zip(unknown, found, strict=True):
        wanted = [text[labels.index(1) : labels.index(1) + 3]] if 1 in labels else []
        assert [text[s.start : s.end] for s in names] == wanted
    assert find([]) == []
    assert find(["", "   "]) == [[], []]


def test_a_long_text_is_read_in_windows_to_its_end(folder):
    find = name_model(NameModelRules(model=str(folder), instead=True))
    names = [invented(random.Random(seed)) for seed in range(40)]
    text = " ".join(f"담당 {name}에게 물어보세요" for name in names)
    assert len(text) > 10 * 48
    assert [text[s.start : s.end] for s in find([text])[0]] == names


def test_beside_ours_and_instead_of_ours(folder):
    text = "김민수 고객님, 담당 뿅퓨뱌에게 물어보세요"
    beside, instead = (pii.detector(rules(folder, instead=how).datasets.pii, "desk") for how in (False, True))
    assert pii.mask_texts(pl.Series([text]), beside).to_list() == ["[이름] 고객님, 담당 [이름]에게 물어보세요"]
    assert pii.mask_texts(pl.Series([text]), instead).to_list() == ["김민수 고객님, 담당 [이름]에게 물어보세요"]


def test_the_way_of_a_file(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMOPS_PSEUDONYM_KEY", "0123456789abcdef0123456789abcdef")
    file = tmp_path / "chats.jsonl"
    asked = ["담당 뿅퓨뱌에게 물어보세요", "어제 똭뾰쬬가 다녀갔다", "요금은 얼마인가요"]
    lines = [{"question": text, "answer": f"{n}번 창구로 오세요", "category": "a"} for n, text in enumerate(asked)]
    file.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines), encoding="utf-8")
    result = scan(file, rules(folder), out=tmp_path / "out")
    assert result.summary()["pii"] == {"PERSON": 2}
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").rglob("*.jsonl"))
    assert "담당 [이름]에게" in written and "뿅퓨뱌" not in written

    how = pii.detector(rules(folder, "pseudonymise").datasets.pii, "desk@v1")
    texts = pl.Series(["담당 뿅퓨뱌에게 물어보세요", "어제 뿅퓨뱌가 다녀갔다"])
    renamed = pii.mask_texts(texts, how).to_list()
    first, second = (text.split("[이름-")[1][:6] for text in renamed)
    assert first == second
    assert pii.find(pl.Series(renamed), how).height == 0


def test_what_it_finds_belongs_to_the_identity_of_the_detector(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"initializer_range": 0.03}))
    found = [
        pii.detector(how, "desk").identity
        for how in (
            load_policy().datasets.pii,
            rules(folder).datasets.pii,
            rules(folder, instead=True).datasets.pii,
            rules(other).datasets.pii,
        )
    ]
    assert len(set(found)) == 4
    assert pii.detector(rules(folder).datasets.pii, "desk").identity == found[1]


@pytest.mark.parametrize(
    ("labels", "wanted", "tags"),
    [
        (LABELS, None, ["O", "B", "I", "O", "O"]),
        (["O", "S-PER", "B-PER", "I-PER", "E-PER"], None, ["O", "S", "B", "I", "E"]),
        (["O", "U-PERSON", "L-PERSON"], None, ["O", "S", "E"]),
        (["PS-B", "PS-I", "O", "DT-B"], None, ["B", "I", "O", "O"]),
        (["O", "PER", "LOC"], None, ["O", "P", "O"]),
        (["O", "PS_NAME-B", "PS_NAME-I"], None, ["O", "B", "I"]),
        (["LABEL_0", "LABEL_1"], ["LABEL_1"], ["O", "P"]),
        (["O", "B-CV", "I-CV", "B-PS", "I-PS"], ["CV"], ["O", "B", "I", "O", "O"]),
    ],
)
def test_labels_of_persons_in_the_usual_forms(labels, wanted, tags):
    assert tags_of(labels, wanted) == tags


def test_a_model_without_persons_is_refused_with_the_labels_that_it_has():
    with pytest.raises(NameModelError, match=r"none of the labels O, B-LC is known for a person"):
        tags_of(["O", "B-LC"], None)
    with pytest.raises(NameModelError, match=r"no label XX .* there are O, B-PS"):
        tags_of(["O", "B-PS"], ["XX"])


def test_a_folder_that_cannot_be_used_says_why(folder, tmp_path):
    with pytest.raises(NameModelError, match=r"names\.model: .*config\.json is missing"):
        name_model(NameModelRules(model=str(tmp_path)))
    for change, reason in (
        ({"architectures": ["BertForMaskedLM"]}, "no model for token classification"),
        ({"auto_map": {"AutoModel": "own.py"}}, "code of its own"),
        ({"id2label": None}, "names no labels"),
    ):
        other = tmp_path / reason.replace(" ", "")
        shutil.copytree(folder, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(NameModelError, match=reason):
            labels_of(other)
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(NameModelError, match="pickled weights are not loaded"):
        name_model(NameModelRules(model=str(pickled)))
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes(b"none")
    with pytest.raises(NameModelError, match=r"datasets\.pii\.names\.model"):
        name_model(NameModelRules(model=str(broken)))


def test_a_worker_that_died_is_started_again(folder):
    find = name_model(NameModelRules(model=str(folder), instead=True))
    text = "담당 뿅퓨뱌에게 물어보세요"
    before = find([text])
    find._read._process.kill()
    find._read._process.wait()
    assert find([text]) == before
    with pytest.raises(NameReaderError):
        find(["\ud800"])
    assert find([text]) == before, "one text that it fails on ends nothing"


@pytest.mark.parametrize(
    ("text", "marked", "name"),
    [
        ("김민수는 왔다", "김민수는", "김민수"),
        ("마이클이 왔다", "마이클이", "마이클"),
        ("김나은 왔다", "김나은", "김나은"),
        ("박보나 왔다", "박보나", "박보나"),
        ("홍길동입니다", "홍길동입니다", "홍길동"),
        (" 김민수 씨", " 김민수 ", "김민수"),
        ("에밀리 왓슨과", "에밀리 왓슨과", "에밀리 왓슨"),
        ("김민수는", "김민수", "김민수"),
        ("John Smith", "John Smith", "John Smith"),
    ],
)
def test_a_particle_is_no_part_of_a_name(text, marked, name):
    start = text.index(marked)
    a, b = without_particles(text, start, start + len(marked))
    assert text[a:b] == name


def test_tags_of_tokens_make_spans():
    text = "가나다 라마 바"

    def made(tags: str, *, step: int = 1) -> list[str]:
        tokens = [Token(at, at + 1, tag, 0.9) for at, tag in enumerate(tags) if text[at] != " "]
        return [text[a:b] for a, b, _ in spans(text, tokens)]

    assert made("BIOOBIOB") == ["가나", "라마", "바"]
    assert made("BBIOSSOE") == ["가", "나다", "라", "마", "바"]
    assert made("OIEOIOOI") == ["나다", "라", "바"]
    assert made("PPPOPOOP") == ["가나다 라", "바"]
    assert made("OOOOOOOO") == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="김민수는이가 A홍\n", max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_trimming_stays_inside_any_span(text, one, other):
    start, end = sorted((min(one, len(text)), min(other, len(text))))
    a, b = without_particles(text, start, end)
    assert start <= a <= b <= end
