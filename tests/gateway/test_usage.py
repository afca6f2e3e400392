"""What each key used is in the ledger, to the token, also of streams that broke off and of clients that left."""

import json

import httpx
import pytest

from resources.catalog import Catalog
from tests.gateway.model import ask
from tests.serving.conftest import until


def ledger(catalog: Catalog, key: str) -> dict:
    """The sums of one key, zeros where there are none yet."""
    sums = ("requests", "failed", "prompt_tokens", "completion_tokens", "estimated_tokens")
    found = [row for row in catalog.usage.by(["key"]) if row["key"] == key]
    return {name: found[0][name] if found else 0 for name in sums}


def test_every_request_is_in_the_ledger_of_its_key(catalog, model, start_gateway):
    made = {
        name: catalog.api_keys.create("kim", owner="lee", role="viewer", team=name, requests_per_minute=500)
        for name in ("whole", "streamed", "broken", "left")
    }
    ids, secrets = {n: key.id for n, (key, _) in made.items()}, {n: secret for n, (_, secret) in made.items()}
    gateway = start_gateway(LLMOPS_GATEWAY_ACCESS="on")
    for endpoint in ("desk", "desk", "other"):
        assert ask(gateway.url, secrets["whole"], endpoint).status_code == 200
    assert ask(gateway.url, secrets["whole"], temperature="hot").status_code == 400
    # Counts are asked of the model server, whether or not the client asks for them.
    for more in ({}, {"stream_options": {"include_usage": True}}):
        assert ask(gateway.url, secrets["streamed"], stream=True, **more).status_code == 200
    model.breaks_off = True
    assert '"backend_failed"' in ask(gateway.url, secrets["broken"], stream=True).text
    model.breaks_off, model.is_held = False, True
    body = {"model": "desk", "messages": [{"role": "user", "content": "안녕" * 20}], "stream": True}
    headers = {"Authorization": f"Bearer {secrets['left']}"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=headers, timeout=1)
    model.is_held = False

    until(lambda: ledger(catalog, ids["left"])["requests"] == 1)
    until(lambda: ledger(catalog, ids["broken"])["requests"] == 1)
    expected = {"requests": 3, "failed": 0, "prompt_tokens": 15, "completion_tokens": 30, "estimated_tokens": 0}
    assert ledger(catalog, ids["whole"]) == expected
    expected = {"requests": 2, "failed": 0, "prompt_tokens": 10, "completion_tokens": 20, "estimated_tokens": 0}
    assert ledger(catalog, ids["streamed"]) == expected
    broken, left = ledger(catalog, ids["broken"]), ledger(catalog, ids["left"])
    assert (broken["failed"], broken["completion_tokens"]) == (1, 4)
    assert broken["estimated_tokens"] == broken["prompt_tokens"] + 4 > 4
    assert (left["failed"], left["completion_tokens"]) == (1, 0)
    assert left["estimated_tokens"] == left["prompt_tokens"] > broken["prompt_tokens"]
    by_model = {
        (r["team"], r["endpoint"], r["model_ref"]): r["requests"]
        for r in catalog.usage.by(["team", "endpoint", "model_ref"])
    }
    assert by_model["whole", "desk", "desk@1"] == 2 and by_model["whole", "other", "desk@1"] == 1
    assert catalog.api_keys.get(ids["whole"]).last_used_at is not None
    assert all(secret not in json.dumps(catalog.usage.by(["key"])) for secret in secrets.values())
