"""Rows that share a packed sequence do not see each other: each is trained as it would be alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from images.train import isolated, sft
from tests.training.conftest import Desk, run_here, sft_spec, typed


@pytest.fixture(scope="module")
def packed(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trainer of a packed fine-tuning, with its weights as they begin."""
    folder = tmp_path_factory.mktemp("packed")
    jobs = desk.jobs(sft_spec("hf:base", packing=True, batch_size=1, max_seq_len=256), folder, tiny_base)
    run_here(jobs["plan"], folder)
    torch.set_num_threads(1)
    job = typed(jobs["train"])
    return sft.build(job.spec, job).trainer


@pytest.fixture(scope="module")
def batch(packed: Any) -> dict[str, torch.Tensor]:
    return next(iter(packed.get_train_dataloader()))


def segments(batch: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Where each row of the packed sequence begins and ends."""
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return list(zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True))


def logits(packed: Any, ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return packed.model.eval()(input_ids=ids, **more).logits[0]


def test_a_packed_row_gets_the_logits_that_it_gets_alone(packed: Any, batch: dict[str, torch.Tensor]):
    found = segments(batch)
    assert len(found) > 2
    together = logits(packed, batch["input_ids"], position_ids=batch["position_ids"])
    for start, end in found:
        alone = logits(packed, batch["input_ids"][:, start:end])
        torch.testing.assert_close(together[start:end], alone, atol=1e-5, rtol=1e-5)


def test_rows_are_attended_to_one_by_one(packed: Any) -> None:
    assert packed.model.config._attn_implementation == isolated.NAME
    assert isolated.NAME not in packed.model.config.to_json_string()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3", "gemma3_text"])
def test_every_family_sees_of_a_packed_row_what_it_sees_alone(family: str) -> None:
    torch.manual_seed(0)
    more = {"layer_types": ["sliding_attention", "full_attention"]} if family == "gemma3_text" else {}
    config = AutoConfig.for_model(
        family,
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        # Shorter than the rows, so that it cuts them.
        sliding_window=6,
        **more,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    ids = torch.randint(3, 64, (1, 30))
    ends = [(0, 9), (9, 10), (10, 30)]
    places = torch.cat([torch.arange(end - start) for start, end in ends])[None]
    with torch.inference_mode():
        alone = torch.cat([model(input_ids=ids[:, a:b]).logits for a, b in ends], dim=1)
        padded = model(input_ids=ids, attention_mask=torch.tensor([[0] * 4 + [1] * 26])).logits[:, 4:]
        assert isolated.use(model)
        together = model(input_ids=ids, position_ids=places, use_cache=False).logits
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        # What is not packed is attended to as before.
        again = model(input_ids=ids, attention_mask=torch.tensor([[0] * 4 + [1] * 26])).logits[:, 4:]
        torch.testing.assert_close(again, padded, atol=1e-5, rtol=1e-5)


def test_attention_that_is_not_the_same_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = AutoConfig.for_model("llama", vocab_size=64, **shape)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    before = model.config._attn_implementation

    def leaking(*args: Any, position_ids: Any = None, **kwargs: Any) -> Any:
        return isolated.sdpa_attention_forward(*args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, isolated.NAME, leaking)
    assert not isolated.use(model) and model.config._attn_implementation == before


def test_without_its_positions_it_would_see_its_neighbours(packed: Any, batch: dict[str, torch.Tensor]):
    start, end = segments(batch)[1]
    leaking = logits(packed, batch["input_ids"])
    alone = logits(packed, batch["input_ids"][:, start:end])
    assert (leaking[start:end] - alone).abs().max() > 1e-3


def test_the_loss_of_a_packed_sequence_is_that_of_its_rows(packed: Any, batch: dict[str, torch.Tensor]):
    model = packed.model.eval()
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
        together = float(packed.compute_loss(model, inputs))
        total, count = 0.0, 0
        for start, end in segments(batch):
            labels = batch["labels"][:, start:end]
            # The first token of a row follows another row: nobody is trained to guess it.
            assert labels[0, 0] == -100
            scores = model(input_ids=batch["input_ids"][:, start:end]).logits[0, :-1]
            target = labels[0, 1:]
            total += float(torch.nn.functional.cross_entropy(scores, target, ignore_index=-100, reduction="sum"))
            count += int((target != -100).sum())
    assert together == pytest.approx(total / count, rel=1e-4)
