"""What is found of a model folder before anything is made of it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llmops_assets.specs.policy import load_policy
from llmops_assets.training import inspection, weight_files
from llmops_assets.training.base import BaseModelError, inspect_base
from resources import content

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of a whole model, to be spoilt."""
    shutil.copytree(tiny_base, tmp_path / "model")
    (tmp_path / "model" / "complete.json").unlink()
    return tmp_path / "model"


def edit(folder: Path, file: str, **values: object) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change(folder: Path, how: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    how(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def lengthened(folder: Path) -> None:
    with open(folder / WEIGHTS, "ab") as file:
        file.write(b"0" * 64)


def garbled(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"x" * 500)


def nan(folder: Path) -> None:
    change(folder, lambda tensors: tensors["model.norm.weight"].__setitem__(0, np.nan))


def infinite(folder: Path) -> None:
    change(folder, lambda tensors: tensors["model.embed_tokens.weight"].__setitem__((3, 3), np.inf))


def enormous(folder: Path) -> None:
    change(folder, lambda tensors: tensors["model.embed_tokens.weight"].__setitem__((3, 3), 1e30))


def cut_at_random(folder: Path) -> None:
    file = folder / "tokenizer.json"
    core = json.loads(file.read_text(encoding="utf-8"))
    core["model"]["dropout"] = 0.5
    file.write_text(json.dumps(core), encoding="utf-8")


def short_of_a_layer(folder: Path) -> None:
    change(folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if ".layers.1." in name])


def with_biases(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.layers.0.self_attn.q_proj.bias": np.zeros(32, dtype=np.float32)}))


def of_another_shape(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.layers.0.mlp.up_proj.weight": np.ones((32, 32), dtype=np.float32)}))


def as_integers(folder: Path) -> None:
    change(folder, lambda t: t.update({"model.norm.weight": np.ones(32, dtype=np.int8)}))


def second_shard(folder: Path) -> None:
    shutil.copy(folder / WEIGHTS, folder / "model-00002.safetensors")


def index_without_shard(folder: Path) -> None:
    names = load_file(folder / WEIGHTS)
    placed = dict.fromkeys(names, WEIGHTS) | {"lm_head.weight": "model-00002-of-00002.safetensors"}
    (folder / weight_files.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": placed}))


def untied_head(folder: Path) -> None:
    def untie(tensors: dict[str, np.ndarray]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1

    change(folder, untie)
    edit(folder, "config.json", tie_word_embeddings=True)


def tokens_without_rows(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(load_file(folder / WEIGHTS)["model.embed_tokens.weight"])
    tokenizer.add_tokens([f"<tool {n}>" for n in range(rows - len(tokenizer) + 1)])
    tokenizer.save_pretrained(folder)


def without_korean(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "hello": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(folder)


def with_named_templates(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    edit(folder, "tokenizer_config.json", chat_template=[{"name": "tool_use", "template": "{{ messages }}"}])


@pytest.mark.parametrize(
    "name",
    ["the same template in both places", "a template for tools beside the default", "a dropout as BERT has it"],
)
def test_settings_that_many_models_have_are_no_fault(folder: Path, name: str) -> None:
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if name.startswith("the same"):
        edit(folder, "tokenizer_config.json", chat_template=f"{template}\n")
    elif name.startswith("a template"):
        (folder / "additional_chat_templates").mkdir()
        (folder / "additional_chat_templates" / "tool_use.jinja").write_text(f"tools:{template}", encoding="utf-8")
    else:
        edit(folder, "config.json", attention_dropout=0.1)
    assert inspection.faults(folder) == []


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut, f"{WEIGHTS} is not whole: it has .* it was cut"),
        (lengthened, f"{WEIGHTS} is not whole: it has .* something was added"),
        (garbled, "no safetensors file"),
        (nan, "1 values of model.norm.weight are no numbers"),
        (infinite, "1 values of model.embed_tokens.weight are no numbers"),
        (enormous, r"1 values of model.embed_tokens.weight are no numbers \(NaN or infinite, or beyond 1e\+09\)"),
        (cut_at_random, "cuts the same text otherwise each time: tokenizer.json has a dropout"),
        (
            lambda f: edit(
                f, "config.json", rope_theta=5e5, rope_parameters={"rope_theta": 1e4, "rope_type": "default"}
            ),
            "config.json has rope_theta 500000.0 and rope_parameters.rope_theta 10000.0: they are one setting",
        ),
        (
            lambda f: edit(f, "config.json", quantization_config={"quant_method": "fp8"}),
            r"has a quantization_config \(fp8\), and no weight is quantised \(all are F32\)",
        ),
        (lambda f: edit(f, "config.json", attention_dropout=0.9), "config.json has attention_dropout 0.9"),
        (
            lambda f: edit(f, "tokenizer_config.json", chat_template="{{ messages }}"),
            "tokenizer_config.json and chat_template.jinja have different chat templates",
        ),
        (lambda f: edit(f, "config.json", sliding_window=8), "sliding_window 8, which llama does not have"),
        (lambda f: edit(f, "config.json", is_encoder_decoder=True), "is_encoder_decoder, and llama is a decoder alone"),
        (lambda f: edit(f, "generation_config.json", eos_token_id=[2, 20]), "eos_token_id 20 of .* is the text '.'"),
        (lambda f: (f / "adapter_config.json").write_text("{}"), "it holds an adapter too"),
        (with_named_templates, "its chat templates are called tool_use, and none default"),
        (short_of_a_layer, "its weights lack model.layers.1"),
        (with_biases, "nothing would use, model.layers.0.self_attn.q_proj.bias"),
        (of_another_shape, "of another shape than it should be is model.layers.0.mlp.up_proj.weight"),
        (as_integers, "weights are stored as I8"),
        (second_shard, r"tensor .* stands in model-00002.safetensors and in model.safetensors"),
        (index_without_shard, "model-00002-of-00002.safetensors is missing"),
        (untied_head, "lm_head.weight of its own"),
        (tokens_without_rows, "tokens were added without resizing"),
        (without_korean, "does not give a text back"),
        (lambda f: edit(f, "config.json", num_hidden_layers=1), "nothing would use, model.layers.1"),
        (lambda f: edit(f, "config.json", eos_token_id=99999), "eos_token_id 99999 of config.json is none of the"),
        (lambda f: edit(f, "generation_config.json", eos_token_id=[0, 99999]), "99999 of generation_config.json"),
        (lambda f: (f / "generation_config.json").write_text("{"), "generation_config.json cannot be read"),
        (lambda f: edit(f, "config.json", auto_map={"AutoModel": "m.Model"}), "config.json names code of its own"),
        (lambda f: edit(f, "tokenizer_config.json", auto_map={"AutoTokenizer": "t.T"}), "tokenizer_config.json names"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "its tokenizer cannot be loaded"),
        (lambda f: (f / WEIGHTS).rename(f / "pytorch_model.bin"), "only safetensors are read"),
    ],
)
def test_a_model_that_is_not_whole_is_refused_when_it_is_registered(
    folder: Path, spoil: Callable[[Path], object], told: str
) -> None:
    assert inspection.faults(folder) == []
    spoil(folder)
    with pytest.raises(BaseModelError, match=told):
        inspect_base(f"hf:{folder}", "llama", load_policy())


def test_weights_of_another_family_under_its_config_are_found_out(folder: Path) -> None:
    edit(folder, "config.json", model_type="qwen3", architectures=["Qwen3ForCausalLM"], head_dim=8)
    with pytest.raises(BaseModelError, match=r"its weights lack .*[qk]_norm.weight.*Qwen3ForCausalLM"):
        inspect_base(f"hf:{folder}", "qwen", load_policy())


@pytest.mark.parametrize(
    ("dtype", "bits", "count"),
    [
        ("BF16", [0x3F80, 0x7F80, 0xFF81, 0x4E6D, 0xCE6F], 3),
        ("F8_E4M3", [0x7F, 0xFF, 0x7E, 0x00], 2),
        ("F8_E5M2", [0x7C, 0xFD, 0x7B, 0x00], 2),
        ("F16", [0x7C00, 0x7E00, 0x3C00, 0x7BFF], 2),
        ("I8", [0x7F, 0xFF, 0x7E, 0x00], 0),
    ],
)
def test_what_is_no_number_is_counted_in_every_type(tmp_path: Path, dtype: str, bits: list[int], count: int) -> None:
    size = 1 if dtype.startswith(("F8", "I8")) else 2
    data = b"".join(value.to_bytes(size, "little") for value in bits)
    entry = {"w": {"dtype": dtype, "shape": [len(bits)], "data_offsets": [0, len(data)]}}
    head = json.dumps(entry).encode()
    file = tmp_path / WEIGHTS
    file.write_bytes(len(head).to_bytes(8, "little") + head + data)
    assert weight_files.not_finite(weight_files.read(tmp_path).tensors["w"]) == count


def test_every_file_that_could_be_loaded_is_part_of_the_content(folder: Path, tmp_path: Path) -> None:
    was, files = content.content_hash(folder), content.listing(folder)
    for name in ("README.md", "LICENSE", ".gitattributes"):
        (folder / name).write_text("nothing loads this")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x").write_text("x")
    assert content.content_hash(folder) == was and content.difference(folder, was) is None
    (tmp_path / "elsewhere").mkdir()
    for spoil, told in (
        (lambda: (folder / "modeling_x.py").write_text("x"), "modeling_x.py (added) is not"),
        (lambda: (folder / "onnx").symlink_to(tmp_path / "elsewhere"), "onnx (added) is not"),
        (lambda: (folder / "model.bin").symlink_to("nowhere"), "model.bin (added) is not"),
        (lambda: (folder / "generation_config.json").unlink(), "generation_config.json (missing) is not"),
        (lambda: (folder / "tokenizer_config.json").write_text("{}"), "tokenizer_config.json is not"),
    ):
        kept = tmp_path / "kept"
        shutil.copytree(folder, kept, symlinks=True)
        spoil()
        assert content.difference(folder, was, files) == told
        shutil.rmtree(folder)
        kept.rename(folder)
    # As long as before and with the times of before, and yet another.
    weights = folder / WEIGHTS
    before, data = weights.stat(), bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    import os

    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content.difference(folder, was, files) == f"{WEIGHTS} is not"


def test_what_an_earlier_release_hashed_is_still_recognised(folder: Path) -> None:
    old = content.old_content_hash(content.listing(folder))
    assert old != content.content_hash(folder)
    assert content.difference(folder, old) is None
    (folder / "chat_template.jinja").write_text("other")
    assert content.difference(folder, old) is not None
