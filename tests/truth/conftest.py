"""One finished chain for all tests of this folder, and a copy of it for each fault."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import Chain
from benchmarks.installation import Installation, copied, opened
from benchmarks.mutation_points import Timeline, build
from resources.files import locked
from tests.truth.table import Row, rows


@dataclass(frozen=True)
class Finished:
    """A home whose chain is finished, closed: it is copied and never changed."""

    root: Path
    chain: Chain


@pytest.fixture(scope="session")
def timeline(tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    """The chain as it stood before each of its steps; the last home is the finished one."""
    base = tmp_path_factory.getbasetemp()
    # Workers of one session have folders of their own beside each other: the first one builds for all.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "timeline"
    folder.mkdir(exist_ok=True)
    with locked(folder / ".lock"):
        kept = folder / "tuned.txt"
        if not kept.exists():
            kept.write_text(build(folder).tuned, encoding="utf-8")
    return Timeline(folder, kept.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def finished(timeline: Timeline) -> Finished:
    root = timeline.home("restart")
    plan = json.loads((root / "records" / "training_plan" / f"{timeline.tuned.replace('|', '/')}.json").read_text())
    return Finished(root, Chain(plan["spec"]["base_model_ref"], timeline.tuned, "tiny-desk@1", {}, {}))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Iterator[Callable[[], Installation]]:
    """Opens a copy of the finished installation, to be spoilt."""
    with ExitStack() as stack:

        def make() -> Installation:
            root = copied(finished.root, tmp_path / "home")
            return stack.enter_context(opened(root))

        yield make


@pytest.fixture(scope="module")
def shared(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A copy for the faults of a file that spoil nothing but their own rows, models and recipes."""
    with opened(copied(finished.root, tmp_path_factory.mktemp("shared") / "home")) as one:
        yield one


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """The line of the table that the test is about: that of its marker `fault`, or of its parameter."""
    marker = request.node.get_closest_marker("fault")
    return rows()[marker.args[0]]


def fault(key: str, *values: Any) -> Any:
    """The parameters of a case that is a fault of its own."""
    return pytest.param(*values, marks=pytest.mark.fault(key), id=key)


@pytest.fixture
def one(copy: Callable[[], Installation]) -> Installation:
    return copy()
