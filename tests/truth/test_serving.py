"""Faults of what is served, which no user may meet."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import deployment_spec
from benchmarks.installation import Installation
from tests.truth.conftest import Finished, fault
from tests.truth.faults import with_json, with_template
from tests.truth.table import Row


def served(one: Installation) -> list[str]:
    return [route["model_ref"] for route in one.w.catalog.endpoint("desk").routes]


@pytest.mark.parametrize(
    "change",
    [
        fault("template-of-the-server-differs", with_template("{{ messages }}")),
        fault("config-changed", with_json("config.json", rope_theta=10.0)),
    ],
)
def test_a_folder_that_was_changed_after_its_evaluation_is_not_deployed(
    one: Installation, row: Row, change: Callable[[Path], None]
) -> None:
    change(Path(one.w.tracking.model("tiny-desk@1").path))
    row.assert_stopped(one.deploy(deployment_spec()))


@pytest.mark.parametrize(
    "changes",
    [
        fault("no-such-version", {"model_ref": "tiny-desk@7"}),
        fault("another-job-type", {"job_type": "RLHF"}),
    ],
)
def test_a_deployment_of_something_else_leaves_the_users_where_they_are(
    shared: Installation, finished: Finished, row: Row, changes: dict[str, Any]
) -> None:
    row.assert_stopped(shared.deploy(deployment_spec() | changes))
    assert served(shared) == [finished.chain.model_ref]
