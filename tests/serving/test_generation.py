"""Rows about documents are asked of our own engine through our own gateway, and are no traffic of users."""

from pathlib import Path

from llmops_assets.documents import work
from llmops_assets.documents.assets import chat_model
from llmops_assets.documents.generate import generate
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.specs.settings import Settings
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.model_server import ModelServers
from tests.serving.conftest import backend, deployment_spec

TEXT = "# Refunds\n\nRefunds are paid within seven days of the request, to the account of the customer.\n"


def test_our_engine_is_spoken_to_as_it_can_be(
    models: dict[str, Path], servers: ModelServers, catalog: Catalog, start_gateway, tmp_path: Path
):
    runtime = {"max_input_tokens": 1900, "max_output_tokens": 64, "device": "cpu", "dtype": "float32"}
    running = servers.start(backend("desk-1", path=models["new"], runtime=runtime))
    servers.wait_healthy(running)
    catalog.want_endpoint(deployment_spec(runtime={"max_input_tokens": 1900, "max_output_tokens": 64}))
    catalog.set_routes("desk", [{"backend_id": "desk-1", "model_ref": "desk@1", "weight": 100.0}])
    catalog.update_endpoint("desk", state="live")
    gateway = start_gateway()
    spec = GenerationSpec.model_validate(
        {"endpoint": "endpoint:desk", "model": "desk", "max_tokens": 64, "attempts": 2, "timeout_seconds": 60}
    )
    port = int(gateway.url.rsplit(":", 1)[1])
    model = chat_model(spec, Settings(home=tmp_path, gateway_port=port, gateway_admin_token=gateway.token))
    read = work.read_all([("refunds.md", TEXT.encode())], spec)
    (result,) = generate(read.passages, spec, model, work.KeptAnswers(Artifacts(tmp_path / "kept")), print)
    # Random weights write no JSON: the engine answers, but with nothing that is a row.
    answered = ("no answer was JSON as asked (2 attempts)", "the model's answer was cut off", "answer is empty")
    assert result.failure is not None and any(told in result.failure for told in answered), result.failure
    # The engine cannot be held to a schema and says so; it was asked without one, and nobody else's requests count.
    assert model._forms == ["none"]
    assert catalog.exposures(endpoint="desk").height == 0
