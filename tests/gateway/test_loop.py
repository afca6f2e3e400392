"""The loop once: what users correct through the gateway becomes data, and a training on it is asked for."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.retrainings import request_due, set_rule
from llmops_assets.operations.reviews import review, review_queue
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.serving.report import questions
from llmops_assets.specs.retraining import RetrainingRule
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from sensors import intents
from tests.gateway.desk import Desk, Script, running_gateway
from tests.operations.test_reviews import materialise, question
from tests.serving.conftest import Upstream, until
from tests.training.conftest import sft_spec

USERS = 24
SPEC = TrainJobSpec.model_validate({**sft_spec("hf:/models/x"), "dataset_ref": "desk@v1"})


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    found = Wiring(Settings(home=tmp_path, _env_file=None))
    prepare_home(found.settings)
    found.catalog.open()
    return found


@pytest.fixture
def loop(wiring: Wiring, tmp_path: Path) -> Iterator[Desk]:
    script = Script()
    upstream = Upstream(script.app())
    try:
        with running_gateway(tmp_path, wiring.catalog) as gateway:
            yield Desk(wiring.catalog, script, upstream, gateway)
    finally:
        upstream.stop()


def rate(url: str, **body: object) -> None:
    data = json.dumps(body, ensure_ascii=False).encode()
    request = urllib.request.Request(f"{url}/v1/feedback", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.status == 201


def test_corrections_become_data_and_a_training_of_them_is_asked_for(
    loop: Desk, wiring: Wiring, monkeypatch: pytest.MonkeyPatch
):
    loop.serve("desk")
    loop.script.pieces = [["모릅니다."]]
    client = loop.client()
    for number in range(USERS):
        turn = [{"role": "user", "content": question(number)}]
        answer = client.chat.completions.with_raw_response.create(model="desk", messages=turn, user=f"user-{number}")
        given = {"rating": 1, "correction": f"{number + 3}일 안에 계좌로 돌려 드립니다.", "user": f"user-{number}"}
        rate(loop.gateway.url, request_id=answer.headers["x-request-id"], **given)
    until(lambda: len(review_queue(wiring, "desk").items) == USERS)
    # All of them came within a minute, but nobody knows yet what is usual here.
    assert review_queue(wiring, "desk").brigades == []
    wiring.catalog.add_recipe(SPEC.recipe_key(), SPEC.recipe())
    reviewed = {"rows": 10, "dataset": "desk-reviewed"}
    values = {"name": "desk", "recipe": SPEC.recipe_key(), "datasets": "desk-*", "endpoint": "desk"}
    set_rule(wiring, "kim", RetrainingRule.model_validate({**values, "on_reviewed": reviewed}))
    assert not request_due(wiring)[0].is_due
    for item in review_queue(wiring, "desk").items:
        review(wiring, "kim", item.request_id, "accept")
    (asked,) = request_due(wiring)
    assert asked.is_due and f"{USERS} answers of endpoint desk were reviewed" in asked.reason
    materialise(wiring, asked.dataset, monkeypatch)
    splits = wiring.records.load(SplitsRecord, asked.dataset)
    rows = [row for name in splits.manifests for row in wiring.store.read(splits.manifests[name]).iter_rows(named=True)]
    learned = {row["messages"][0]["content"]: row["messages"][-1]["content"] for row in rows}
    assert learned == {question(n): f"{n + 3}일 안에 계좌로 돌려 드립니다." for n in range(USERS)}
    assert set(questions(wiring.store.read(splits.manifests["train"]), splits.type)) < set(learned)
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"catalog": wiring.catalog, "records": wiring.records}
        tick = intents.make(1)(dg.build_sensor_context(instance=instance, resources=resources))
    assert isinstance(tick, dg.SensorResult)
    (event,) = tick.asset_events
    assert event.partition == f"{asked.dataset}|{SPEC.recipe_key()}"
    assert str(event.metadata["reason"].value).startswith(f"{USERS} answers of endpoint desk were reviewed")
