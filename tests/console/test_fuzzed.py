"""Whatever is sent, the interface answers with a problem, and never with a fault of its own."""

import logging
from collections.abc import Callable

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import content_type_conformance

from images.console.app import create_app
from tests.console.test_documents import DATASET, MODEL, V1

KNOWN = {"dataset_id": "customer-support-dataset@v1.0", "model_id": "example-base-model@1.0"}


@pytest.fixture
def interface(api, state):
    """The description of the interface, over a home in which there is something to find."""
    api.post(f"{V1}/catalog/datasets", json=DATASET)
    api.post(f"{V1}/catalog/models", json=MODEL)
    return schemathesis.openapi.from_asgi(f"{V1}/openapi.json", create_app(state))


def test_no_request_is_a_fault_of_the_platform(interface, state, caplog):
    _, key = state.wiring.catalog.api_keys.create("test", owner="kim", role="admin")
    # What is asked of the gateway, and a log that is followed, have tests of their own.
    # And a heartbeat that is away is a 503, for who watches from outside.
    asked = interface.exclude(path_regex="/serve/|/training/jobs/.*/logs|/alerts/heartbeat")
    operations = [found.ok() for found in asked.get_all_operations()]
    assert len(operations) > 40

    def asking(operation: APIOperation) -> Callable[[], None]:
        @settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            for name, value in KNOWN.items():
                # Half of them are of things that are there.
                if name in case.path_parameters and len(str(case.path_parameters[name])) % 2:
                    case.path_parameters[name] = value
            response = case.call(headers={"Authorization": f"Bearer {key}"})
            assert response.status_code < 500, (operation.label, case.body, response.text)
            case.validate_response(response, checks=[content_type_conformance])

        return ask

    with caplog.at_level(logging.ERROR, logger="console"):
        for operation in operations:
            asking(operation)()
    assert [record.getMessage() for record in caplog.records if record.name == "console"] == []
