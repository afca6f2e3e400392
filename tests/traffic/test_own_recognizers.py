"""What the policy calls personal data is masked wherever a request is kept: log, shipper, day, review, erasure."""

import json
import urllib.request
from pathlib import Path

import pytest
import yaml

from images.gateway import ship
from images.gateway.app import create_app
from llmops_assets.datasets.reading.scan import scan
from llmops_assets.erasure.plan import Platform
from llmops_assets.operations.reviews import review
from llmops_assets.privacy.masker import Masker
from llmops_assets.specs.dataset_rules import Pii
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.traffic import days
from llmops_assets.wiring import Wiring
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.encryption import NO_KEYS
from resources.traffic.spool import Spool
from tests.datasets.test_own_privacy import OWN
from tests.serving.gateway_house import Connection, House, Request, completion
from tests.serving.test_spool import exposure as entry
from tests.traffic.test_traffic import DAY, Home, rating, row

NUMBER = "EX-20413"
TEXT = f"제 사번은 {NUMBER}입니다"
MASKED = "제 사번은 [사번]입니다"


def own(**more: object) -> Policy:
    """A policy with recognizers of the house's own."""
    policy = load_policy()
    pii = Pii.model_validate(policy.datasets.pii.model_dump() | {"recognizers": OWN, **more})
    return policy.model_copy(update={"datasets": policy.datasets.model_copy(update={"pii": pii})})


async def echo(request: Request, answer: Connection) -> None:
    await answer.whole(completion(f"{request.said}: 맞습니다"))


def post(url: str, body: dict) -> dict:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_the_gateway_masks_by_the_policy_that_it_is_given_without_being_told(tmp_path: Path):
    assert isinstance(create_app(Catalog(f"sqlite:///{tmp_path / 'c.db'}")).gateway.mask, Masker)
    # Pseudonyms are for datasets, by a key that a gateway need not have.
    home = House(tmp_path, mask=None, policy=own(mode="pseudonymise"))
    try:
        home.endpoint("desk", [home.server(echo)])
        chat = {"model": "desk", "messages": [{"role": "user", "content": TEXT}], "user": NUMBER}
        said = post(f"{home.url}/v1/chat/completions", chat)
        assert NUMBER in said["choices"][0]["message"]["content"], "only what is kept is masked"
        request = home.logged("desk", 1)[0]
        comment = {"request_id": request["request_id"], "rating": 1, "comment": TEXT, "correction": TEXT}
        post(f"{home.url}/v1/feedback", comment | {"scores": {NUMBER: 0.5}})
        kept = home.catalog.feedback(endpoint="desk").row(0, named=True)
    finally:
        home.close()
    assert (request["query"], request["response"]) == (MASKED, f"{MASKED}: 맞습니다")
    assert request["user"].startswith("id-")
    assert (kept["comment"], kept["correction"]) == (MASKED, MASKED)
    assert NUMBER not in str(kept) and NUMBER not in str(request)


def test_what_ships_a_spool_masks_by_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump(own().model_dump(mode="json"), allow_unicode=True), encoding="utf-8")
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    monkeypatch.setenv("LLMOPS_POLICY_FILE", str(policy))
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    catalog = Catalog(settings.catalog)
    catalog.open()
    root = settings.root / "gateway-spool"
    monkeypatch.setattr(ship.spool, "spool_root", lambda _: root)
    spool = Spool(root, NO_KEYS)
    spool.append(entry(1, TEXT, error=f"the server knows no {NUMBER}", status=502))
    spool.flush()
    spool.close()
    with pytest.raises(SystemExit) as ended:
        ship.main(["--once"])
    assert ended.value.code == 0
    shipped = catalog.exposures(endpoint="desk").row(0, named=True)
    assert (shipped["query"], shipped["error"]) == (MASKED, "the server knows no [사번]")


def test_an_erasure_ships_what_is_spooled_masked_by_the_policy(tmp_path: Path):
    catalog, root = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}"), tmp_path / "spool"
    catalog.open()
    spool = Spool(root, NO_KEYS)
    spool.append(entry(1, TEXT))
    spool.close()
    Platform(catalog, Artifacts(tmp_path / "artifacts"), None, None, None, own(), spool=root).ship_log()
    assert catalog.exposures(endpoint="desk")["query"].to_list() == [MASKED]


def test_a_day_is_masked_by_a_rule_that_came_later_and_its_check_knows_the_rule(tmp_path: Path):
    home = Home(tmp_path, NO_KEYS)
    home.catalog.add_traffic([row(1, query=TEXT), row(2)], [rating(2, 1, correction=TEXT)])
    record, evaluated = home.run(policy=own())
    frame = days.read(home.artifacts, "desk", DAY)
    assert record.masked_again == 2 and frame["query"][0] == MASKED and frame["correction"][1] == MASKED
    assert evaluated["nothing_personal_in_traffic"].passed
    # Of a table that was written without the rule the check says so.
    home.run()
    assert TEXT in days.read(home.artifacts, "desk", DAY)["query"].to_list()
    failed = home.check(policy=own())
    assert not failed.passed and failed.metadata["personal data"].value.records[0].data["found"] == "STAFF_ID"


def test_what_a_reviewer_writes_is_masked_by_the_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    wiring = Wiring(Settings(_env_file=None))
    wiring.__dict__["policy"] = own()
    wiring.catalog.open()
    wiring.catalog.add_traffic([row(1)], [rating(1, 1)])
    item = review(wiring, "kim", "req-1", "fix", text=TEXT, reason=f"asked {NUMBER}")
    assert item.decision.text == MASKED and item.reviews[0].reason == "asked [사번]"


def test_a_refused_row_of_a_scan_is_shown_masked_by_the_policy(tmp_path: Path):
    rows = [{"question": f"{n}번 질문은 무엇인가요?", "answer": f"{n}번 답은 이것입니다."} for n in range(5)]
    lines = [json.dumps(one, ensure_ascii=False) for one in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, json.dumps({"question": TEXT}, ensure_ascii=False)]))
    scan(str(tmp_path / "rows.jsonl"), own(names=False), out=tmp_path / "out")
    quarantine = (tmp_path / "out" / "quarantine.jsonl").read_text()
    assert "[사번]" in quarantine and NUMBER not in quarantine


def test_placeholders_of_the_policy_stand_in_what_is_kept():
    mask = Masker.of(own(placeholders={"EMAIL_ADDRESS": "<mail>"}))
    assert mask(f"kim@example.com, {NUMBER}") == "<mail>, [사번]"
