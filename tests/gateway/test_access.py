"""The gateway knows who calls, lets them call what is theirs, and does not start where nobody has a way in."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx
import jwt
import openai
import pytest
import time_machine

from images.gateway.access.addresses import UNKNOWN, Addresses, networks
from images.gateway.access.key_table import KeyTable
from images.gateway.access.last_keys import LastKeys
from images.gateway.access.mode import AccessMisconfigured, access_of, check_somebody_may_call
from images.gateway.errors import ApiError
from llmops_assets.specs.access import AccessPolicy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.catalog.api_keys import digest_of
from resources.encryption import NO_KEYS
from tests.gateway.model import ask
from tests.gateway.tokens import AUDIENCE, ISSUER, SECRET, Issuer, Signer, claims
from tests.serving.conftest import free_port, until

ON = {"LLMOPS_GATEWAY_ACCESS": "on"}
RSA = Signer("rsa-1")


def key_of(catalog: Catalog, **changes) -> str:
    return catalog.api_keys.create("kim", **{"owner": "lee", "role": "viewer", **changes})[1]


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer(RSA)
    yield server
    server.stop()


# on or off


def settings(**values) -> Settings:
    return Settings(_env_file=None, **values)


JWKS = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": "https://login.kim.example/jwks"}


@pytest.mark.parametrize(
    ("values", "is_on"),
    [
        ({}, False),
        ({"host": "127.0.0.3"}, False),
        ({"host": "localhost"}, False),
        ({"host": "::1"}, False),
        ({"gateway_access": "on"}, True),
        ({"gateway_host": "0.0.0.0"}, True),
        ({"host": "gateway.kim.example"}, True),
        ({"host": "0.0.0.0", "gateway_host": "127.0.0.1"}, False),
        (JWKS, True),
        ({**JWKS, "gateway_access": "off"}, False),
        ({"gateway_trusted_proxies": "10.0.0.0/8"}, True),
    ],
)
def test_access_is_off_on_loopback_alone(values, is_on):
    found = access_of(settings(**values), AccessPolicy())
    assert (found.is_on, found.limits_on) == (is_on, is_on)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"host": "0.0.0.0", "gateway_access": "off"}, "LLMOPS_GATEWAY_ACCESS is off"),
        ({"gateway_host": "::", "gateway_access": "off"}, "binds ::"),
        ({"gateway_workers": 2}, "LLMOPS_GATEWAY_STORE_URL"),
        ({"gateway_workers": 2, "gateway_store_url": "127.0.0.1:6379"}, "should begin with one of redis://"),
        ({"gateway_trusted_proxies": "10.0.0.0/8, all"}, "'all' is no network"),
        ({"gateway_trusted_proxies": "10.0.0.1/8"}, "10.0.0.1/8"),
        ({**JWKS, "jwt_audience": None}, "LLMOPS_JWT_AUDIENCE is not set"),
        ({"jwt_secret": SECRET.decode()}, "LLMOPS_JWT_ISSUER and LLMOPS_JWT_AUDIENCE"),
        ({"jwt_issuer": ISSUER}, "without keys"),
        ({**JWKS, "jwt_jwks": "http://login.kim.example/jwks"}, "should be https"),
        ({"jwt_secret": "short", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}, "has 5 bytes"),
        ({"jwt_secret_file": "/nowhere/secret", "jwt_issuer": ISSUER}, "cannot be read"),
    ],
)
def test_what_is_configured_wrongly_is_refused_at_the_start_with_what_to_set(values, words):
    with pytest.raises(AccessMisconfigured) as error:
        access_of(settings(**values), AccessPolicy())
    assert words in str(error.value) and "short" not in str(error.value)


def test_access_without_a_way_in_is_refused():
    on = access_of(settings(gateway_access="on"), AccessPolicy())
    with pytest.raises(AccessMisconfigured, match="llmops key create"):
        check_somebody_may_call(on, keys=0)
    check_somebody_may_call(on, keys=1)
    check_somebody_may_call(access_of(settings(), AccessPolicy()), keys=0)
    check_somebody_may_call(access_of(settings(**JWKS), AccessPolicy()), keys=0)


def test_a_gateway_that_others_reach_does_not_start_without_a_key(tmp_path):
    Catalog(f"sqlite:///{tmp_path / 'catalog.db'}").open()
    environment = os.environ | {
        "LLMOPS_HOME": str(tmp_path), "LLMOPS_GATEWAY_PORT": str(free_port()),
        "LLMOPS_GATEWAY_ADMIN_PORT": str(free_port()),
    }  # fmt: skip
    command = [sys.executable, "-m", "images.gateway", "--host", "0.0.0.0"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "llmops key create" in done.stderr


# addresses


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.2", ["1.1.1.1", "198.51.100.1, 10.0.0.3"], "198.51.100.1"),
        ("10.0.0.2", ["10.0.0.7, 10.0.0.3"], "10.0.0.7"),
        ("10.0.0.2", ["198.51.100.1, nonsense"], "10.0.0.2"),
        ("10.0.0.2", [""], "10.0.0.2"),
        ("10.0.0.2", ["198.51.100.1:5000"], "198.51.100.1"),
        ("10.0.0.2", ['"[2001:db8:1:2:3::4]:5000"'], "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.2", ["::ffff:198.51.100.1"], "198.51.100.1"),
        ("2001:db8:1:2:3::4", [], "2001:db8:1:2::/64"),
        ("fe80::1%eth0", [], "fe80::/64"),
        (None, ["198.51.100.1"], UNKNOWN),
        ("10.0.0.2", [",".join(["10.0.0.3"] * 5000)], "10.0.0.3"),
    ],
)
def test_only_what_a_trusted_proxy_says_of_the_client_counts(peer, forwarded, client):
    assert Addresses(networks("10.0.0.0/8")).client(peer, forwarded) == client


def test_without_proxies_the_header_means_nothing():
    assert Addresses().client("127.0.0.1", ["198.51.100.1"]) == "127.0.0.1"


# keys without the catalog


def test_a_gateway_that_starts_without_the_catalog_knows_the_keys_of_before_for_a_day(catalog, tmp_path):
    kept, other = key_of(catalog), key_of(catalog)
    catalog.api_keys.revoke("kim", other)
    last = LastKeys(tmp_path / "spool", NO_KEYS)
    first = KeyTable()
    first.restore(last)
    with pytest.raises(ApiError) as error:
        first.identity(kept)
    assert (error.value.status, error.value.code) == (503, "keys_unavailable")
    first.refresh(catalog)
    assert first.identity(kept).owner == "lee"
    content = (tmp_path / "spool" / "api-keys.json").read_bytes()
    assert digest_of(kept).encode() not in content and b"lee" not in content

    later = KeyTable()
    later.restore(LastKeys(tmp_path / "spool", NO_KEYS))
    assert later.identity(kept).owner == "lee" and later.made is None
    with pytest.raises(ApiError) as error:
        later.identity(other)
    assert error.value.status == 401
    # What the catalog says once it is back is what holds.
    catalog.api_keys.revoke("kim", kept)
    later.refresh(catalog)
    with pytest.raises(ApiError) as error:
        later.identity(kept)
    assert error.value.status == 401

    with time_machine.travel(time.time() + 25 * 3600, tick=False):
        assert LastKeys(tmp_path / "spool", NO_KEYS).restore() == []
    (tmp_path / "spool" / "api-keys.json").write_bytes(b"damaged")
    assert LastKeys(tmp_path / "spool", NO_KEYS).restore() == []


# keys at a running gateway


def test_a_key_opens_its_endpoints_and_is_refused_at_once_when_it_is_revoked(catalog, model, start_gateway):
    key, everything = key_of(catalog, endpoints=("desk",)), key_of(catalog)
    expired = catalog.api_keys.create("kim", owner="lee", role="viewer", expires_at=claims_time(-1))[1]
    gateway = start_gateway(**ON)
    assert ask(gateway.url, key).status_code == 200
    assert ask(gateway.url, everything, "other").status_code == 200
    refused = ask(gateway.url, key, "other")
    assert refused.status_code == 403 and "'other'" in refused.json()["error"]["message"]
    assert refused.json()["error"]["type"] == "permission_error"
    unknown = ask(gateway.url, key, "nobody-has-this")
    assert unknown.status_code == 404 and "other" not in unknown.json()["error"]["message"]
    listed = {name: models(gateway.url, name) for name in (key, everything)}
    assert listed == {key: ["desk"], everything: ["desk", "other"]}
    for wrong in (None, "unused", "sk-1234", key[:-1], key[:-1] + "g", key.upper(), expired, f"{key} x", "a.b.c"):
        answer = ask(gateway.url, wrong)
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"].startswith('Bearer realm="llmops"')
        assert answer.json()["error"]["type"] == "authentication_error"
    basic = ask(gateway.url, None, headers={"Authorization": f"Basic {key}"})
    assert basic.status_code == 401
    for path in ("/v1/models", "/v1/nowhere", "/admin/routes", "/metrics", "/health"):
        assert httpx.get(gateway.url + path).status_code == 401, path
    for path in ("/healthz", "/readyz"):
        assert httpx.get(gateway.url + path).status_code == 200, path
    catalog.api_keys.revoke("kim", key)
    revoked_at = time.monotonic()
    until(lambda: ask(gateway.url, key).status_code == 401)
    assert time.monotonic() - revoked_at < 5
    made_later = key_of(catalog)
    until(lambda: ask(gateway.url, made_later).status_code == 200)
    assert model.asked >= 3
    assert key.rsplit("-", 1)[1] not in gateway.log.read_text()


def claims_time(days: int):
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) + timedelta(days=days)


def models(url: str, credential: str) -> list[str]:
    found = httpx.get(f"{url}/v1/models", headers={"Authorization": f"bearer {credential}"}).json()
    return sorted(entry["id"] for entry in found["data"])


def test_tokens_and_roles_at_a_running_gateway(catalog, model, start_gateway, issuer):
    token_settings = {
        "LLMOPS_JWT_ISSUER": ISSUER, "LLMOPS_JWT_AUDIENCE": AUDIENCE, "LLMOPS_JWT_JWKS": issuer.url,
        "LLMOPS_JWT_SECRET": SECRET.decode(),
    }  # fmt: skip
    gateway = start_gateway(**token_settings)
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=RSA.token(), max_retries=0)
    messages = [{"role": "user", "content": "안녕"}]
    assert client.chat.completions.create(model="desk", messages=messages).choices[0].message.content == "yes"
    assert ask(gateway.url, jwt.encode(claims(endpoints=["other"]), SECRET, algorithm="HS256"), "other").is_success
    no_role = ask(gateway.url, RSA.token(roles=["guest"]))
    assert no_role.status_code == 403 and "(none)" in no_role.json()["error"]["message"]
    assert models(gateway.url, RSA.token(roles=[])) == []
    for bad in (RSA.token(exp=1), RSA.token(aud="x"), "e30.e30.", Signer("rsa-1").token()):
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key=bad).chat.completions.create(model="desk", messages=messages)
    fresh = Signer("rsa-2")
    issuer.keys.append(fresh.public)
    until(lambda: ask(gateway.url, fresh.token()).status_code == 200)


# limits at a running gateway


def test_a_hundred_requests_a_minute_and_a_rate_of_ones_own(catalog, model, start_gateway):
    usual, own, quick = (
        key_of(catalog),
        key_of(catalog, requests_per_minute=2),
        key_of(catalog, requests_per_minute=500),
    )
    gateway = start_gateway(**ON)
    first = ask(gateway.url, own)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert ask(gateway.url, own).headers["x-ratelimit-remaining-requests"] == "0"
    refused = ask(gateway.url, own)
    assert refused.status_code == 429 and refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 61
    assert refused.headers["x-ratelimit-reset-requests"].endswith("s")
    answers = together(130, lambda: models_status(gateway.url, usual))
    assert (answers.count(200), answers.count(429)) == (100, 30)
    # The address is used up for those without a rate of their own, strangers included, and for nobody else.
    assert ask(gateway.url, "sk-guess").status_code == 429
    assert ask(gateway.url, key_of(catalog)).status_code == 429
    assert together(20, lambda: models_status(gateway.url, quick)) == [200] * 20


def test_limits_are_on_where_they_are_asked_for(catalog, model, start_gateway):
    limited = start_gateway(LLMOPS_GATEWAY_LIMITS="on")
    assert together(120, lambda: models_status(limited.url, "unused")).count(429) == 20
    # Nobody is a proxy here: the header opens nothing.
    spoofed = httpx.get(f"{limited.url}/v1/models", headers={"X-Forwarded-For": "198.51.100.1"})
    assert spoofed.status_code == 429


def models_status(url: str, credential: str) -> int:
    return httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {credential}"}, timeout=30).status_code


def together(count: int, call) -> list:
    found: list = []
    threads = [threading.Thread(target=lambda: found.append(call())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_budget_ends_with_its_tokens_and_places_with_the_endpoint(catalog, model, start_gateway):
    frugal = key_of(catalog, monthly_tokens=100, requests_per_minute=500)
    gateway = start_gateway(**ON)
    spent = 0
    while (answer := ask(gateway.url, frugal, max_tokens=10)).status_code == 200:
        spent += answer.json()["usage"]["total_tokens"]
    assert 100 <= spent < 120
    assert answer.status_code == 429 and answer.json()["error"]["code"] == "insufficient_quota"
    assert answer.headers["x-should-retry"] == "false"
    streaming = key_of(catalog, monthly_tokens=100, requests_per_minute=500)
    until(lambda: ask(gateway.url, streaming, stream=True, max_tokens=10).status_code == 200)
    found = [ask(gateway.url, streaming, stream=True, max_tokens=10) for _ in range(9)]
    assert [answer.status_code for answer in found] == [200] * 6 + [429] * 3
    # Who asks many at once gets no more than one answer beyond the budget, whatever they ask for.
    many = key_of(catalog, monthly_tokens=100, requests_per_minute=500)
    until(lambda: models_status(gateway.url, many) == 200)
    model.is_held = True
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(ask(gateway.url, many, max_tokens=60).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(statuses) == 6)
    model.is_held = False
    for thread in threads:
        thread.join()
    assert statuses == [429] * 6 + [200] * 2

    # A gateway that starts anew knows from the ledger what was used.
    gateway.stop()
    anew = start_gateway(**ON)
    assert ask(anew.url, frugal, max_tokens=10).json()["error"]["code"] == "insufficient_quota"
    gateway = anew

    # One more than the endpoint has places is told to come again.
    key = key_of(catalog, requests_per_minute=500)
    until(lambda: models_status(gateway.url, key) == 200)
    model.is_held = True
    answers: list = []
    asking = threading.Thread(target=lambda: answers.extend(together(8, lambda: ask(gateway.url, key))))
    asking.start()
    until(lambda: gateway.routes()["endpoints"]["desk"]["in_flight"] == 8)
    busy = ask(gateway.url, key)
    assert busy.status_code == 429 and busy.json()["error"]["code"] == "busy" and busy.headers["retry-after"] == "1"
    model.is_held = False
    asking.join()
    assert [a.status_code for a in answers] == [200] * 8
    assert ask(gateway.url, key).status_code == 200
