"""An adapter's file holds every trained parameter as it was in memory, or the training says which it does not hold."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from images.train.saved_weights import NotSaved, check_adapter_saved

FILE = "adapter_model.safetensors"


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    """A model with an adapter and trained embeddings, changed by training, and the folder that it was saved to."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    base = LlamaForCausalLM(LlamaConfig(vocab_size=40, tie_word_embeddings=request.param, **shape))
    saved = ["embed_tokens"] if request.param else ["embed_tokens", "lm_head"]
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], modules_to_save=saved,
                        ensure_weight_tying=request.param)  # fmt: skip
    model = get_peft_model(base, config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(tmp_path)
    return model, tmp_path


def test_what_peft_saves_is_what_was_trained(trained: tuple[Any, Path]) -> None:
    check_adapter_saved(*trained)


def test_trained_embeddings_that_are_the_bases_again_in_the_file_are_found(trained: tuple[Any, Path]) -> None:
    model, folder = trained
    tensors = load_file(folder / FILE)
    (name,) = [name for name in tensors if "embed_tokens" in name]
    tensors[name] = model.base_model.model.model.embed_tokens.original_module.weight.detach().clone()
    save_file(tensors, folder / FILE)
    with pytest.raises(NotSaved, match=r"1 have other values than those that were trained .*embed_tokens"):
        check_adapter_saved(model, folder)


def test_trained_modules_that_are_not_in_the_file_are_found(trained: tuple[Any, Path]) -> None:
    model, folder = trained
    tensors = {name: tensor for name, tensor in load_file(folder / FILE).items() if "down_proj" not in name}
    save_file(tensors, folder / FILE)
    with pytest.raises(NotSaved, match=r"4 trained tensors are not in it .*down_proj"):
        check_adapter_saved(model, folder)
