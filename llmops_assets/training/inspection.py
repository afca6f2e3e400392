"""Looks at a model folder before anything is made of it: is it whole, of its family, and can its tokenizer be used."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from llmops_assets.training import folder_settings, token_order, weight_files
from llmops_assets.training.folder_settings import read_json
from llmops_assets.training.weight_files import Tensor, WeightFiles, _few

_TEXT = "안녕하세요. 통행료 환불은 어떻게 하나요? Hello, 2026년 1,200원입니다."
_TRIES = 4
"""Times that the text is cut once more."""
_HEADS = ("cls.", "lm_head.", "classifier.", "score.", "qa_outputs.", "generator_", "discriminator_")
"""What an encoder's checkpoint may have beside the body that is used."""


class ModelFault(ValueError):
    """A model folder that cannot be used as it is; the message lists every reason, each with what to do."""


def require_whole(folder: Path, name: str = "") -> None:
    """Raise ModelFault with everything that is wrong with the model in `folder`."""
    if found := faults(folder):
        raise ModelFault(f"{name or folder} cannot be used as it is: {'; '.join(found)}")


def faults(folder: Path) -> list[str]:
    """Everything that is wrong with the model in `folder`, a sentence each; none of a model that is whole."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [f"its config.json cannot be read ({error})"]
    found = _own_code(folder, config) + folder_settings.with_adapter(folder)
    weights = weight_files.read(folder)
    if not weights.tensors and not weights.faults:
        return [*found, "it has no *.safetensors weights: only safetensors are read, convert other formats first"]
    found += weights.faults
    if weights.faults or found:
        # What follows reads the files.
        return found
    found += weight_files.not_finite_faults(weights.tensors)
    if "quantization_config" not in config:
        found += _dtypes(weights) + _architecture(folder, config) + _tied(config, weights)
    found += folder_settings.faults(folder, config, weights)
    return found + _token_ids(folder, config, weights) + _tokenizer(folder, config, weights)


def _own_code(folder: Path, config: dict[str, Any]) -> list[str]:
    asked = [("config.json", config), ("tokenizer_config.json", read_json(folder / "tokenizer_config.json"))]
    return [
        f"{name} names code of its own (auto_map), which is not run: without it this would be another model. Choose "
        "one whose architecture the libraries bring"
        for name, settings in asked
        if settings.get("auto_map")
    ]


def _dtypes(weights: WeightFiles) -> list[str]:
    other = {tensor.dtype for tensor in weights.tensors.values()} - {*weight_files.FLOATS, "I64", "BOOL"}
    if not other:
        return []
    return [
        f"weights are stored as {', '.join(sorted(other))}, and config.json has no quantization_config that says how "
        "to read them: choose the unquantised model"
    ]


def kind_of(config: dict[str, Any]) -> str:
    """What a config.json makes of a model: `decoder`, `reward` or `encoder`."""
    named = config.get("architectures") or [""]
    name = named if isinstance(named, str) else str(named[0])
    return "decoder" if name.endswith("ForCausalLM") else "reward" if "SequenceClassification" in name else "encoder"


def _architecture(folder: Path, config: dict[str, Any]) -> list[str]:
    """What the architecture of config.json and the weights have not in common, by loading no weight at all."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.utils import logging

    kind = kind_of(config)
    auto = {"decoder": AutoModelForCausalLM, "reward": AutoModelForSequenceClassification}.get(kind, AutoModel)
    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    try:
        _model, info = auto.from_pretrained(
            folder,
            device_map={"": "meta"},
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
        )
    except Exception as error:  # noqa: BLE001  of whatever kind it is, the library cannot make the model
        return [f"the model cannot be made of its config.json: {_first_line(error)}"]
    finally:
        logging.set_verbosity(before)
    missing = [n for n in info["missing_keys"] if not (kind == "encoder" and "pooler" in n)]
    unexpected = [n for n in info["unexpected_keys"] if not (kind == "encoder" and n.startswith(_HEADS))]
    shapes = [str(one[0] if isinstance(one, tuple) else one) for one in info["mismatched_keys"]]
    named = ", ".join(map(str, config.get("architectures") or ["nothing"]))
    advice = "config.json is of another model than the weights, or one of them was edited or cut: copy the folder again"
    return [
        f"{what} {_few(list(names))}, by config.json ({named}): {advice}"
        for what, names in (
            ("its weights lack", missing),
            ("its weights have, and nothing would use,", unexpected),
            ("of another shape than it should be is", shapes),
        )
        if names
    ]


def _tied(config: dict[str, Any], weights: WeightFiles) -> list[str]:
    """A head of its own in the weights, which a config that ties it to the embeddings would silently leave out."""
    head = weights.tensors.get("lm_head.weight")
    embedding = next((t for name, t in weights.tensors.items() if name.endswith("embed_tokens.weight")), None)
    if not config.get("tie_word_embeddings") or head is None or embedding is None:
        return []
    if head.dtype == embedding.dtype and np.array_equal(weight_files.numbers(head), weight_files.numbers(embedding)):
        return []
    return ["it has an lm_head.weight of its own, but config.json ties the head to the embeddings: set "
            "tie_word_embeddings to false, or copy config.json again"]  # fmt: skip


def _token_ids(folder: Path, config: dict[str, Any], weights: WeightFiles) -> list[str]:
    rows = _embedding_rows(weights.tensors) or int(config.get("vocab_size") or 0)
    found = []
    for file in ("config.json", "generation_config.json"):
        path = folder / file
        settings = config if file == "config.json" else read_json(path)
        if path.is_file() and not settings:
            found.append(f"{file} cannot be read: copy it again")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            ids = settings.get(name)
            for one in ids if isinstance(ids, list) else [ids]:
                is_id = isinstance(one, int) and not isinstance(one, bool)
                # Llama names its missing padding token -1.
                if one is not None and not (is_id and (0 <= one < rows or (one == -1 and name == "pad_token_id"))):
                    found.append(f"{name} {one!r} of {file} is none of the {rows} tokens: correct it")
    return found


def _embedding_rows(tensors: dict[str, Tensor]) -> int | None:
    ends = ("embed_tokens.weight", "word_embeddings.weight")
    return next((t.shape[0] for name, t in tensors.items() if name.endswith(ends) and t.shape), None)


def _tokenizer(folder: Path, config: dict[str, Any], weights: WeightFiles) -> list[str]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        ids = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
        highest = max(tokenizer.get_vocab().values(), default=0)
        again = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    except Exception as error:  # noqa: BLE001  of whatever kind it is, there is no tokenizer to be used
        return [f"its tokenizer cannot be loaded: {_first_line(error)}"]
    found = []
    rows = _embedding_rows(weights.tensors)
    if rows is not None and highest >= rows:
        found.append(
            f"its tokenizer has tokens up to {highest}, and there are {rows} rows of embeddings: tokens were added "
            "without resizing the model, or the tokenizer is another model's. Copy the tokenizer again"
        )
    if any(tokenizer(_TEXT, add_special_tokens=False)["input_ids"] != ids for _ in range(_TRIES)):
        found.append(
            "its tokenizer cuts the same text otherwise each time: tokenizer.json has a dropout, which is for training "
            "tokenizers with. Set model.dropout to null in it"
        )
    found += token_order.faults(folder)
    if kind_of(config) == "decoder":
        found += _ends_in_text(folder, config, tokenizer)
    unknown = tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids
    lost = unknown or _plain(again) != _plain(_TEXT)
    if kind_of(config) != "encoder" and lost:
        found.append(
            f"its tokenizer does not give a text back: of {_TEXT!r} it makes {again!r}. It has no Korean, or is damaged"
        )
    return found


def _ends_in_text(folder: Path, config: dict[str, Any], tokenizer: Any) -> list[str]:
    """Tokens that end an answer by a file of the folder, and are a piece of ordinary text."""
    own = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    found = []
    for file, settings in (
        ("config.json", config),
        ("generation_config.json", read_json(folder / "generation_config.json")),
    ):
        ids = settings.get("eos_token_id")
        for one in ids if isinstance(ids, list) else [ids]:
            if isinstance(one, int) and one not in own and (text := tokenizer.decode([one])).strip():
                found.append(
                    f"eos_token_id {one} of {file} is the text {text!r}: every answer would end where it stands. "
                    "Write the id of the token that ends an answer"
                )
    return found


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).split())


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__} {lines[0] if lines else ''}".strip()[:300]
