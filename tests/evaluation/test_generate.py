"""The worker's greedy generation and perplexity, on a real (tiny, random) model."""

import json
import math
from pathlib import Path

import pytest

from images.ask import generate, perplexity
from llmops_assets.records.jobs import GenerateJob, PerplexityJob
from tests.evaluation.conftest import make_tiny_model, read_jsonl, write_jsonl

PROMPTS = [
    {"id": f"p{n}", "messages": [{"role": "user", "content": text}]}
    for n, text in enumerate(
        [
            "통행료가 얼마예요?",
            "a",
            "하이패스 카드를 잃어버렸는데 어떻게 해야 하나요? 자세히 알려 주세요.",
            "환불",
            "refund?",
        ]
        * 5
    )
]


def answer(model: Path, folder: Path, **job: object) -> tuple[dict, list[dict]]:
    prompts = write_jsonl(folder / "prompts.jsonl", job.pop("prompts", PROMPTS))
    output = folder / "answers.jsonl"
    files = {"model_dir": str(model), "prompts_file": str(prompts), "output_file": str(output)}
    result = generate.run(GenerateJob.model_validate({**files, "max_new_tokens": 24, **job}))
    return result, read_jsonl(output)


def test_batch_size_and_order_do_not_change_the_answers(tiny_model: Path, tmp_path: Path) -> None:
    _, alone = answer(tiny_model, tmp_path, batch_size=1)
    assert len({row["text"] for row in alone}) >= 4, "the model must answer differently for this test to mean anything"
    for batch_size in (2, 7, 64):
        result, batched = answer(tiny_model, tmp_path, batch_size=batch_size)
        assert batched == alone
        assert result["items"] == 25 and result["settings"]["decoding"] == "greedy"
    _, turned = answer(tiny_model, tmp_path, batch_size=7, prompts=PROMPTS[::-1])
    assert turned[::-1] == alone


def test_the_most_padded_are_asked_alone_and_a_model_that_minds_its_neighbours_is_found(
    tiny_model: Path, tmp_path: Path
) -> None:
    result, _ = answer(tiny_model, tmp_path, batch_size=25, asks_alone=True)
    asked = {PROMPTS[int(one["id"][1:])]["messages"][0]["content"] for one in result["alone"]}
    assert asked == {"a"} and all(one["gap"] < 1e-3 for one in result["alone"])
    assert answer(tiny_model, tmp_path, batch_size=1, asks_alone=True)[0]["alone"] == []
    assert answer(tiny_model, tmp_path, batch_size=25)[0]["alone"] == []
    minding = make_tiny_model(tmp_path / "minding")
    config = json.loads((minding / "config.json").read_text())
    half = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"]) // 2
    config["rope_parameters"] = {
        "rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 60,
        "short_factor": [1.0] * half, "long_factor": [8.0] * half,
    }  # fmt: skip
    (minding / "config.json").write_text(json.dumps(config))
    result, _ = answer(minding, tmp_path, batch_size=25, asks_alone=True)
    assert max(one["gap"] for one in result["alone"]) > 0.05


def test_an_answer_is_what_the_model_says_token_by_token(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    model, tokenizer, _ = generate.load_model(str(tiny_model), "fp32")
    _, answers = answer(tiny_model, tmp_path)
    ids = tokenizer(
        f"<|im_start|>user\n{PROMPTS[0]['messages'][0]['content']}<|im_end|>\n<|im_start|>assistant\n",
        add_special_tokens=False,
    )["input_ids"]
    said = []
    for _ in range(24):
        with torch.inference_mode():
            said.append(model(torch.tensor([ids + said])).logits[0, -1].argmax().item())
        if said[-1] == tokenizer.eos_token_id:
            break
    assert answers[0]["token_ids"] == said
    assert answers[0]["prompt_tokens"] == len(ids)
    assert answers[0]["tokens"] == len(said)


def test_sampling_settings_of_the_folder_are_set_aside(tiny_model: Path, tmp_path: Path) -> None:
    _, plain = answer(tiny_model, tmp_path)
    sampled = make_tiny_model(tmp_path / "sampled")
    config = json.loads((sampled / "generation_config.json").read_text())
    config |= {"do_sample": True, "temperature": 3.0, "repetition_penalty": 5.0, "max_new_tokens": 2}
    (sampled / "generation_config.json").write_text(json.dumps(config))
    assert answer(sampled, tmp_path)[1] == plain


def test_the_context_cuts_no_neighbour_and_a_full_one_is_named(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "short", context=96)
    overhead = 6 + len("user") + len("assistant") - 1
    near, full = "x" * (96 - overhead - 6), "x" * 200
    prompts = [
        {"id": str(n), "messages": [{"role": "user", "content": t}]} for n, t in enumerate(["short", near, full])
    ]
    _, together = answer(model, tmp_path, prompts=prompts, batch_size=3)
    _, alone = answer(model, tmp_path, prompts=prompts[:1], batch_size=1)
    assert together[0] == alone[0]
    assert together[1]["prompt_tokens"] + together[1]["tokens"] <= 96
    assert together[2]["finish_reason"] == "prompt_too_long" and together[2]["text"] == ""


def test_what_follows_a_stop_token_is_padding() -> None:
    assert generate.cut_at_stop([5, 6, 2, 0, 0], [2]) == ([5, 6, 2], "stop")
    assert generate.cut_at_stop([5, 6], [2, 3]) == ([5, 6], "length")


def test_a_base_without_a_chat_template_is_refused_with_a_reason(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "raw", chat=False)
    with pytest.raises(ValueError, match="no chat template"):
        answer(model, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        answer(tmp_path, tmp_path)


def test_windows_score_every_token_once() -> None:
    for length in range(1, 40):
        for size in range(2, 20):
            ids = list(range(length))
            pieces = perplexity.windows(ids, size)
            scored = [token for window, count in pieces for token in window[len(window) - count :]]
            assert scored == ids[1:]
            assert all(len(window) <= size and 0 < count < len(window) for window, count in pieces)


def test_perplexity_is_the_likelihood_of_the_whole_document(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    texts = ["영업소에서 통행권을 받으세요.", "short", "", "하이패스 차로는 파란색 선을 따라 가시면 됩니다. " * 4]
    source = write_jsonl(tmp_path / "texts.jsonl", [{"id": str(n), "text": t} for n, t in enumerate(texts)])
    job = {"model_dir": str(tiny_model), "texts_file": str(source), "output_file": str(tmp_path / "nll.jsonl")}
    result = perplexity.run(PerplexityJob.model_validate(job))
    rows = read_jsonl(tmp_path / "nll.jsonl")
    model, tokenizer, _ = generate.load_model(str(tiny_model), "fp32")
    for row, text in zip(rows, texts, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        whole = torch.tensor([[tokenizer.eos_token_id, *ids]])
        with torch.inference_mode():
            log_p = model(whole).logits[0].log_softmax(-1)
        expected = -sum(log_p[at, token].item() for at, token in enumerate(ids))
        assert row["nll"] == pytest.approx(expected, rel=1e-4)
        assert row["tokens"] == len(ids) and row["bytes"] == len(text.encode())
    assert result["nll"] == pytest.approx(sum(row["nll"] for row in rows))
    short = perplexity.run(PerplexityJob.model_validate(job | {"max_length": 32}))
    assert short["tokens"] == result["tokens"]
    assert math.isfinite(short["nll"]) and short["nll"] != pytest.approx(result["nll"], rel=1e-6)
