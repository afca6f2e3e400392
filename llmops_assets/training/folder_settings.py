"""Settings of a model folder that say two things at once, or what its weights are not: each library takes another."""

import json
from pathlib import Path
from typing import Any

from llmops_assets.training import weight_files
from llmops_assets.training.weight_files import WeightFiles

_MOST_DROPOUT = 0.5
"""From here on a model mostly sees noise while it is trained: those that are used have a tenth, or none."""


def faults(folder: Path, config: dict[str, Any], weights: WeightFiles) -> list[str]:
    """What is wrong with how the files of a model in `folder` are set, a sentence each."""
    return [
        *_twice(config),
        *_templates(folder),
        *_quantised_in_words(config, weights),
        *_dropout(config),
        *_of_another_kind(config),
    ]


def with_adapter(folder: Path) -> list[str]:
    """An adapter beside the weights: the libraries put it on them, or load the base that it names, without a word."""
    if not (folder / "adapter_config.json").is_file():
        return []
    return [
        "it holds an adapter too (adapter_config.json): some libraries would load that with it, or the base that it "
        "names, and others would not. Merge it, or take adapter_config.json and adapter_model.safetensors out"
    ]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _twice(config: dict[str, Any]) -> list[str]:
    """Settings that a config has under two names, an older one and today's, with different values.

    Which of the two counts depends on the library and its release: one trains what the other does not serve.
    """
    found = []
    rope = config.get("rope_parameters")
    inner = rope if isinstance(rope, dict) else {}
    pairs = [("rope_theta", config.get("rope_theta"), "rope_parameters.rope_theta", inner.get("rope_theta"))]
    older = config.get("rope_scaling")
    if isinstance(older, dict) and inner:
        kinds = older.get("rope_type", older.get("type")), inner.get("rope_type", inner.get("type"))
        pairs.append(("rope_scaling.rope_type", kinds[0], "rope_parameters.rope_type", kinds[1]))
        pairs.append(("rope_scaling.factor", older.get("factor"), "rope_parameters.factor", inner.get("factor")))
    for name, one, other_name, other in pairs:
        if one is not None and other is not None and one != other:
            found.append(
                f"config.json has {name} {one!r} and {other_name} {other!r}: they are one setting, and each library "
                "takes the one that it knows. Leave the one that the model was trained with"
            )
    return found


def _templates(folder: Path) -> list[str]:
    """Chat templates of a folder that differ, or none of which is the one for every conversation."""
    by_place: dict[str, str] = {}
    names: set[str] = set()
    for place in ("tokenizer_config.json", "chat_template.json"):
        given = read_json(folder / place).get("chat_template")
        if isinstance(given, list):
            named = {one.get("name"): one.get("template") for one in given if isinstance(one, dict)}
            names |= {str(name) for name in named}
            given = named.get("default")
        if isinstance(given, str) and given.strip():
            by_place[place] = given
    file = folder / "chat_template.jinja"
    if file.is_file():
        by_place[file.name] = file.read_text(encoding="utf-8")
    names |= {path.stem for path in (folder / "additional_chat_templates").glob("*.jinja")}
    found = []
    if len({template.strip() for template in by_place.values()}) > 1:
        found.append(
            f"{' and '.join(by_place)} have different chat templates: some libraries and servers take the one, some "
            "the other. Remove the one that the model was not trained with"
        )
    if names and not by_place:
        found.append(
            f"its chat templates are called {', '.join(sorted(names))}, and none default: a conversation would get "
            "another model's. Call the one for every conversation default"
        )
    return found


def _quantised_in_words(config: dict[str, Any], weights: WeightFiles) -> list[str]:
    """A quantization_config over weights that are not quantised: each library makes another model of them."""
    settings = config.get("quantization_config")
    kinds = {tensor.dtype for tensor in weights.tensors.values()}
    if not isinstance(settings, dict) or not kinds or not kinds <= set(weight_files.FLOATS):
        return []
    if "sparsity_config" in settings:
        # Of some that are sparse and not quantised it is what says so.
        return []
    return [
        f"config.json has a quantization_config ({settings.get('quant_method') or 'of no method'}), and no weight is "
        f"quantised (all are {', '.join(sorted(kinds))}): some libraries would round them as they load, others would "
        "not. Take quantization_config out; a training in four bits is asked for by method: qlora"
    ]


def _dropout(config: dict[str, Any]) -> list[str]:
    """A share of what a model computes that is thrown away while it is trained, and is larger than anybody means."""
    high = {
        name: value
        for name, value in config.items()
        if name.endswith(("dropout", "dropout_prob", "pdrop"))
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and value >= _MOST_DROPOUT
    }
    return [
        f"config.json has {name} {value:g}: so much of what the model computes would be thrown away in training, and "
        "nothing of it when it is served. Write 0"
        for name, value in high.items()
    ]


def _of_another_kind(config: dict[str, Any]) -> list[str]:
    """Settings of a kind of model that this one is not: its layers pass them over, and what generates does not."""
    from transformers import CONFIG_MAPPING

    found = []
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        return found
    known = CONFIG_MAPPING[kind]()
    window, positions = config.get("sliding_window"), config.get("max_position_embeddings")
    short = isinstance(window, int) and isinstance(positions, int) and window < positions
    if short and not hasattr(known, "sliding_window"):
        found.append(
            f"config.json has sliding_window {window}, which {kind} does not have: it would be trained with all that "
            "came before, and answer from the last tokens alone. Take sliding_window out"
        )
    if config.get("is_encoder_decoder") and not known.is_encoder_decoder:
        found.append(f"config.json has is_encoder_decoder, and {kind} is a decoder alone. Write false")
    return found
