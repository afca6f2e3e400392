"""The table and the tests are of one piece: every row has a test, every test a row."""

import ast
from pathlib import Path

from tests.truth.table import DOCUMENT, done_rightly, rows


def seeded(*markers: str) -> set[str]:
    """The keys of the faults that the tests of this folder seed (or of another of their markers), from their text."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                name = ast.unparse(node.func)
                if name in (markers or ("fault", "pytest.mark.fault")):
                    found.add(node.args[0].value)
    return found


def test_every_row_of_the_table_has_a_test_and_every_test_a_row() -> None:
    assert set(rows()) == seeded()


def test_every_line_of_what_is_done_rightly_has_a_test_and_every_such_test_a_line() -> None:
    assert done_rightly() == seeded("pytest.mark.right")


def test_no_line_of_the_table_is_left_unread() -> None:
    lines = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert len(lines) == len(rows()) + len(done_rightly())


def test_every_check_of_the_table_is_one_of_the_graph_or_an_asset_or_says_where_it_is_refused() -> None:
    from llmops_assets.definitions import defs

    graph = defs.resolve_asset_graph()
    known = {key.name for key in graph.asset_check_keys} | {key.to_user_string() for key in graph.get_all_asset_keys()}
    refusals = {"register_base", "register_dataset", "request_training", "spec", "policy", "want_endpoint", "promote"}
    assert {row.check for row in rows().values()} <= known | refusals
