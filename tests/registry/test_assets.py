"""A model's way through the registry's assets: version, card, parity with a real server, comparison, compression."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from huggingface_hub import ModelCard

from llmops_assets.evaluation import assets as evaluation_assets
from llmops_assets.evaluation import checks as evaluation_checks
from llmops_assets.partitions import trainings
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import ParityRecord, QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.registry import checks
from llmops_assets.registry.assets import quantized_model, registered_model
from llmops_assets.registry.dossier.collect import collect
from llmops_assets.registry.dossier.content import words
from llmops_assets.registry.dossier.page import page
from llmops_assets.registry.dossier.sources import Sources
from llmops_assets.registry.transition import Registry, transition
from resources.model_server import ModelServers
from resources.run_log import RunLog
from tests.cli.test_commands import home, llmops  # noqa: F401  fixture
from tests.evaluation.test_assets import GOOD, House, house  # noqa: F401  fixture
from tests.registry.test_compression import engines  # noqa: F401  fixture


def run(house: House, asset: str, *, raises: bool = True, **config: list[str]):  # noqa: F811
    defs = dg.Definitions(
        assets=[
            dg.AssetSpec("merged_model", partitions_def=trainings),
            evaluation_assets.evaluation,
            registered_model,
            quantized_model,
        ],
        asset_checks=[evaluation_checks.accuracy_gate, checks.served_as_evaluated, checks.little_lost],
        resources=house.resources,
        jobs=[dg.define_asset_job("one", selection=dg.AssetSelection.assets(asset))],
    )
    return defs.resolve_job_def("one").execute_in_process(
        instance=house.instance,
        partition_key=house.cells[GOOD],
        run_config={"ops": {asset: {"config": config}}} if config else {},
        raise_on_error=raises,
    )


def verdicts(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict:
    [event] = result.asset_materializations_for_node(asset)
    return {key: value.value for key, value in event.metadata.items()}


def sources(house: House) -> Sources:  # noqa: F811
    given = house.resources
    return Sources(house.records, given["catalog"], house.tracking, RunLog(house.root), given["policy"])


@pytest.fixture(scope="module")
def registered(house: House, engines) -> Iterator[dg.ExecuteInProcessResult]:  # noqa: F811
    """The registered model of the good cell, with its probe server behind it."""
    policy = house.resources["policy"].serving.model_copy(update={"stop_timeout_seconds": 8.0})
    servers = ModelServers(house.resources["catalog"], house.root / "servers", policy=policy, threads=1)
    house.resources |= {"servers": servers, "engines": engines}
    plan = house.records.load(PlanRecord, house.cells[GOOD])
    folder = Path(plan.model_dir) / "plan"
    folder.mkdir(parents=True, exist_ok=True)
    ids = [[1, *(5 + (n * k) % 200 for k in range(1, 40)), 2] for n in range(12)]
    pl.DataFrame({"row_id": [str(n) for n in range(12)], "ids": ids}).write_parquet(folder / "train.parquet")
    run(house, "evaluation")
    yield run(house, "registered_model")
    assert servers.suspend() == []


def test_a_version_is_registered_with_its_parity_lineage_and_a_card_that_the_hub_reads(house: House, registered):  # noqa: F811
    found = verdicts(registered)["served_as_evaluated"]
    assert found.passed, found.description
    assert found.description == "8 of 8 prompts and answers are those of the evaluation"
    assert house.records.load(ParityRecord, house.cells[GOOD]).items == 8
    model = house.records.load(RegisteredModelRecord, house.cells[GOOD])
    file = collect(model.ref, sources(house), {}, datetime.now(UTC))
    facts = {fact.name: words(fact, "en") for section in file.sections for fact in section.facts}
    assert facts["weights"] == model.content_hash and "PRETRAIN" not in facts["identity"]
    assert facts["gate"] == house.tracking.version(model.ref).tags["gate"] and facts["first_version"]
    assert len(page(file, "ko")) > 5000 and "intended_purpose" in file.open_gaps
    tags = house.tracking.version(model.ref).tags
    assert tags["code"].startswith("0.") and "train:" in tags["manifests"] and tags["image"].startswith("none")
    assert tags["staged_by"] == "the gate of the policy" and tags["state"] == "approved"
    card = ModelCard.load(model.card)
    assert card.data.license == "cc-by-4.0"
    assert card.data.eval_results[0].metric_value == 1.0
    for section in ("## Data", "## Intended use", "## Training", "## Limits", "## Licence", "Watermarked: no"):
        assert section in card.text
    actions = [line["action"] for line in house.resources["catalog"].audit_of(model.ref)]
    # The probe server is on record too.
    assert actions.count("model.register") == 1


def test_a_second_version_is_compared_with_the_one_in_production(
    house: House,  # noqa: F811
    registered,
    home: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    registry = Registry(house.tracking, house.records, house.resources["catalog"], house.resources["policy"])
    model = house.records.load(RegisteredModelRecord, house.cells[GOOD])
    assert transition(registry, "promote", model.ref, "kim") == []
    assert "versus_production" not in metadata(run(house, "registered_model"), "registered_model")
    # Another cell, whose answers are half as good, stands in for the version before.
    cell, before = house.cells[GOOD], house.records.load(EvaluationRecord, house.cells[GOOD])
    worse = Path(before.answers).with_name("worse.jsonl")
    rows = [json.loads(line) for line in Path(before.answers).read_text().splitlines()]
    changed = [row if n % 2 else row | {"got": "모릅니다", "correct": False} for n, row in enumerate(rows)]
    worse.write_text("".join(json.dumps(row) + "\n" for row in changed))
    dataset = cell.partition("|")[0]
    other = f"{dataset}|tiny-desk-00000000"
    house.records.save(
        other, before.model_copy(update={"answers": str(worse), "recipe": "tiny-desk-00000000", "answers_sha256": ""})
    )
    plan = house.records.load(PlanRecord, cell)
    spec = plan.spec | {"hyperparams": plan.spec["hyperparams"] | {"lr": 0.5}}
    house.records.save(other, plan.model_copy(update={"spec": spec}))
    tags = dict(house.tracking.version(model.ref).tags) | {"recipe": "tiny-desk-00000000", "content_hash": "other"}
    number = house.tracking.register(model.name, model.path, None, tags)
    house.tracking.set_alias(model.name, "production", number)
    shown = metadata(run(house, "registered_model"), "registered_model")
    assert "hyperparams.lr | 0.5 |" in shown["versus_production"]
    assert "beyond chance" in shown["versus_production"] and "data:image/png" in shown["versus_production_plot"]

    (home / "home").mkdir()
    monkeypatch.setenv("LLMOPS_MLFLOW_TRACKING_URI", house.tracking.uri)
    # Records name files by their place below the home: what they name has to be there too.
    for folder in (entry for entry in house.records.root.parent.iterdir() if entry.is_dir()):
        (home / "home" / folder.name).symlink_to(folder)
    page = home / "compared.html"
    code, out, told = llmops("model", "compare", f"{model.name}@{number}", model.ref, "--json", "--html", page)
    assert code == 0, told
    compared = json.loads(out)
    [suite] = compared["suites"]
    assert (suite["items"], suite["only_first"], suite["only_second"]) == (205, 0, 103)
    assert suite["difference"]["low"] > 0.4 and suite["p"] < 1e-20
    assert len(compared["answers"]) == 103 and compared["parameters"][0]["setting"] == "hyperparams.lr"
    assert "<img" in page.read_text() and "http" not in page.read_text()
    assert llmops("model", "compare", f"{model.name}@{number}", model.ref)[0] == 0
    assert "## Limits" in llmops("model", "card", model.ref)[1]


def test_a_model_with_fewer_bits_is_measured_against_the_original_and_withheld_when_it_lost_too_much(
    house: House,  # noqa: F811
    registered,
):
    result = run(house, "quantized_model", raises=False, schemes=["int8"])
    record = house.records.load(QuantizedModelRecord, house.cells[GOOD])
    [one] = record.models
    assert one.scheme == "int8" and one.size_bytes < one.original_bytes
    assert one.difference_low <= one.difference <= one.difference_high <= 0
    assert sum(one.versus_original[k] for k in ("both", "neither", "only_original", "only_compressed")) == 205
    check = verdicts(result)["little_lost"]
    assert check.passed == one.passed and one.explanation in check.description
    # What this model of random weights loses is beyond the policy or not; the registry follows that.
    assert (one.model_ref is not None) == one.passed
    # With a policy that allows it, it is registered as a draft of its own.
    policy = house.resources["policy"]
    lenient = policy.registry.compression.model_copy(update={"max_drop": 1.0, "min_top1": 0.0})
    house.resources["policy"] = policy.model_copy(
        update={"registry": policy.registry.model_copy(update={"compression": lenient})}
    )
    again = run(house, "quantized_model", schemes=["int8"])
    house.resources["policy"] = policy
    assert verdicts(again)["little_lost"].passed
    [second] = house.records.load(QuantizedModelRecord, house.cells[GOOD]).models
    assert second.content_hash == one.content_hash, "what is there is not made again"
    version = house.tracking.version(second.model_ref)
    assert version.state == "draft" and version.tags["scheme"] == "int8"
    assert house.tracking.model(second.model_ref).scheme == "int8"
