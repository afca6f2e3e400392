"""The throughput benchmark: it ends after the tokens that it was told, and counts no padding."""

import json

import pytest

from benchmarks import throughput


def test_a_contender_ends_after_its_tokens_and_only_real_ones_count(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--tokens", "4500", "--rows", "60", "--repeats", "1", "--engines", "/nowhere"]
    assert throughput.main([*small, "--only", "ours, packing", "--json"]) == 0
    output = capsys.readouterr()
    assert "without axolotl" in output.err
    (line,) = json.loads(output.out[output.out.index("[\n") :])
    whole = throughput.PACKED_LENGTH * throughput.PACKED_BATCH
    assert line["name"] == "ours, packing" and 4500 <= line["tokens"] <= 4500 + whole
    # Rows are packed side by side, and there is nothing to pad.
    assert line["padding"] == 0 and line["steps"] == pytest.approx(line["tokens"] / whole, abs=1)
    assert 0 < line["trained_tokens"] < line["tokens"]
    assert line["tokens_per_cpu_second"] > 0 and 0 < line["held_out_loss"] < 9


def test_the_table_says_what_is_asked_of_ours() -> None:
    run = {"seconds": 10.0, "timed_tokens": 1000, "tokens": 1200, "trained_tokens": 600, "padding": 300, "steps": 9}
    slow = {**run, "cpu_seconds": 10.0, "held_out_loss": 5.0, "peak_memory_bytes": 2**30}
    fast = {**slow, "cpu_seconds": 4.0, "held_out_loss": 5.01}
    lines = throughput.summary({"TRL defaults": [slow, slow], "ours": [fast, {**fast, "cpu_seconds": 2.0}]})
    assert lines[1]["times"] == pytest.approx((2.5 + 5.0) / 2)
    assert lines[1]["padding"] == pytest.approx(0.2)
    shown = throughput.table(lines)
    assert "ours: 3.75 times TRL defaults (at least 2.5)" in shown
    assert "ours: held-out loss +0.010 to the lowest of the others (at most +0.05)" in shown
