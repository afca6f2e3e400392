"""One finished chain for all tests of this folder, and a copy of it for each fault."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from benchmarks.chain import POLICY, Chain, build
from benchmarks.installation import Installation, copied, opened
from resources.files import locked


@dataclass(frozen=True)
class Finished:
    """A home whose chain is finished, closed: it is copied and never changed."""

    root: Path
    chain: Chain


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    base = tmp_path_factory.getbasetemp()
    # Workers of one session have folders of their own beside each other: the first one builds for all.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-chain"
    folder.mkdir(exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / "chain.json").exists():
            with opened(folder / "home", POLICY) as one:
                chain = build(one)
            (folder / "chain.json").write_text(json.dumps(asdict(chain)))
    return Finished(folder / "home", Chain(**json.loads((folder / "chain.json").read_text())))


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Iterator[Callable[[], Installation]]:
    """Opens a copy of the finished installation, to be spoilt."""
    with ExitStack() as stack:

        def make() -> Installation:
            root = copied(finished.root, tmp_path / "home")
            return stack.enter_context(opened(root))

        yield make


@pytest.fixture
def one(copy: Callable[[], Installation]) -> Installation:
    return copy()
