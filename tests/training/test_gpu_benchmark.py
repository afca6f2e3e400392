"""The GPU benchmark: it says so where there is no GPU, and measures what it says, shown on the CPU at a tiny size."""

import json

import pytest

from benchmarks import gpu


def test_without_a_gpu_it_says_so_and_measures_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu.main([]) == gpu.NO_GPU == 5
    output = capsys.readouterr()
    assert "no GPU was found" in output.err and output.out == ""


def test_a_line_has_ours_the_estimate_and_plain_trl(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--steps", "4", "--rows", "24", "--words", "8", "--length", "96", "--batch", "2"]
    assert gpu.main(["--sizes", "tiny", "--device", "cpu", "--methods", "lora", *small, "--json"]) == 0
    out = capsys.readouterr().out
    (line,) = json.loads(out[out.index("[\n") :])
    assert "failed" not in line and "plain_failed" not in line
    for name in ("tokens_per_second", "peak_bytes", "seconds", "plain_tokens_per_second", "plain_peak_memory_bytes"):
        assert line[name] > 0, name
    # The estimate must not be below what is taken: it is what keeps a training off a device that is too small.
    assert 1.0 < line["estimate_of_peak"] < 2.5
    shown = gpu.table([line])
    assert shown.count("\n") == 2 and f"{line['tokens_per_second']:,.0f}" in shown
    assert "no room" in gpu.table([{**line, "tokens_per_second": None, "failed": "no room"}])
