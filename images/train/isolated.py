"""Attention over rows that are packed into one sequence, each by itself: what no row may see is not computed at all.

transformers hides the rows from each other by a mask over the whole sequence: the attention then costs the square of
the packed length, and on a CPU takes longer than everything else. Here each row is attended to alone, without a mask.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "llmops_rows"


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each row: query, key and value of shape (1, heads, length, head_dim).

    A row begins where `position_ids`, of shape (1, length), is 0. With a mask it is transformers' own attention.
    """
    if attention_mask is not None or position_ids is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    parts = []
    for start, end in zip(starts, [*starts[1:], query.shape[2]], strict=True):
        row = (tensor[:, :, start:end] for tensor in (query, key, value))
        mask = None
        if sliding_window is not None and end - start > sliding_window:
            place = torch.arange(end - start, device=query.device)
            away = place[:, None] - place[None, :]
            mask = ((away >= 0) & (away < sliding_window))[None, None]
        parts.append(sdpa_attention_forward(module, *row, mask, **kwargs)[0])
    return torch.cat(parts, dim=1), None


def no_mask_for_packed(
    batch_size: int, q_length: int, kv_length: int, *, attention_mask: torch.Tensor | None = None, **kwargs: Any
) -> torch.Tensor | None:
    """No mask for one packed sequence; for anything else, transformers' own.

    That rows are packed is told by the one who asks: a causal mask may then not be left to the kernel.
    """
    packed = attention_mask is None and not kwargs.get("allow_is_causal_skip", True) and not kwargs.get("use_vmap")
    if packed and batch_size == 1 and q_length == kv_length:
        return None
    return sdpa_mask(batch_size, q_length, kv_length, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, no_mask_for_packed)


def use(model: Any) -> bool:
    """Let a model attend to packed rows one by one; False, and nothing changed, where the mask does something else."""
    before = model.config._attn_implementation
    expected = _probe(model)
    model.set_attn_implementation(NAME)
    found = _probe(model)
    if torch.allclose(found, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max())):
        return True
    model.set_attn_implementation(before)
    return False


def _probe(model: Any) -> torch.Tensor:
    """Logits of two rows of eight tokens in one sequence."""
    device = next(model.parameters()).device
    places = torch.arange(8, device=device).repeat(2)[None]
    training = model.training
    with torch.inference_mode():
        logits = model.eval()(input_ids=places + 1, position_ids=places, use_cache=False).logits
    model.train(training)
    return logits
