"""What stands on Dagster's pages: links that open and say where they lead, and tables that fit beside each other."""

import dagster as dg

from llmops_assets.page import CELL, check_result, link
from llmops_assets.verdict import Verdict


def test_a_link_is_short_and_says_for_which_host_it_was_made():
    shown = link("open the report", "http://127.0.0.1:5000/#/experiments/1/runs/0/artifactPath/evaluation/report.html")
    assert isinstance(shown, dg.MarkdownMetadataValue)
    assert shown.value.endswith(") at 127.0.0.1:5000")
    # Dagster shows Markdown of up to 1,000 characters at once, and longer text behind a button.
    assert len(shown.value) < 1000


def test_a_check_shows_its_figures_and_the_rows_that_made_it_fail():
    rows = [{"question": "x" * 500, "kind": "answer", "n": 3}]
    result = check_result(Verdict(False, "no", {"asked": 8}), warn=True, rows={"differing": rows, "other": []})
    assert (result.passed, result.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert result.metadata["asked"].value == 8 and "other" not in result.metadata
    record = result.metadata["differing"].records[0].data
    assert len(record["question"]) == CELL and record["question"].endswith("…") and record["n"] == 3
