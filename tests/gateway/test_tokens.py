"""Only a token that its issuer signed, for us, with the algorithm of its key, now, says who somebody is."""

import asyncio
import json
import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from images.gateway.access.jwks import Jwks, KeysUnusable, check_source, parse_keys
from images.gateway.access.tokens import Tokens
from images.gateway.call import Identity
from images.gateway.errors import ApiError
from llmops_assets.specs.access import AccessPolicy
from tests.gateway.tokens import AUDIENCE, ISSUER, SECRET, Issuer, Signer, by_hand, claims, encoded

RSA, ELLIPTIC, OTHER = Signer("rsa-1"), Signer("ec-1", "ES256"), Signer("rsa-1")
PUBLIC_PEM = RSA.private.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    server = Issuer(RSA, ELLIPTIC)
    yield server
    server.stop()


def tokens(issuer: Issuer | None = None, *, secret: bytes | None = SECRET, **changes) -> Tokens:
    jwks = None if issuer is None else Jwks(issuer.url)
    policy = AccessPolicy.model_validate(changes)
    return Tokens(policy, issuer=ISSUER, audience=AUDIENCE, secret=secret, jwks=jwks)


def taken(found: Tokens, token: str) -> Identity:
    return asyncio.run(found.identity(token))


def refused(found: Tokens, token: str) -> ApiError:
    with pytest.raises(ApiError) as error:
        taken(found, token)
    return error.value


def test_a_token_says_who_it_is_of(issuer):
    shared = jwt.encode(claims(team="desk", endpoints=["a", "b"]), SECRET, algorithm="HS256")
    for token in (shared, RSA.token(team="desk", endpoints=["a", "b"]), ELLIPTIC.token(team="desk", endpoints="a b")):
        found = taken(tokens(issuer), token)
        assert found.name == "sub:lee" and found.owner == "lee" and found.team == "desk"
        assert found.roles == {"viewer"} and found.endpoints == {"a", "b"}
    assert taken(tokens(issuer), RSA.token()).endpoints is None


NOW = int(time.time())
PAYLOAD = claims()
BAD = {
    "none": by_hand({"alg": "none"}, PAYLOAD),
    "None, in other letters": by_hand({"alg": "nOnE", "typ": "JWT"}, PAYLOAD),
    "empty alg": by_hand({"alg": ""}, PAYLOAD),
    "no alg": by_hand({"typ": "JWT"}, PAYLOAD),
    "alg is a list": by_hand({"alg": ["HS256"]}, PAYLOAD),
    "HS256 over the public key": by_hand({"alg": "HS256", "kid": "rsa-1"}, PAYLOAD, PUBLIC_PEM),
    "HS256 over the published modulus": by_hand({"alg": "HS256", "kid": "rsa-1"}, PAYLOAD, RSA.public["n"].encode()),
    "HS256 over nothing": by_hand({"alg": "HS256"}, PAYLOAD, b""),
    "HS512": jwt.encode(PAYLOAD, SECRET * 2, algorithm="HS512"),
    "RS256 of another": OTHER.token(),
    "ES256 under the kid of an RSA key": ELLIPTIC.token(kid="rsa-1"),
    "unknown kid": RSA.token(kid="../../../etc/passwd"),
    "kid with SQL": RSA.token(kid="x' OR '1'='1"),
    "kid is a number": by_hand({"alg": "RS256", "kid": 1}, PAYLOAD, SECRET),
    "kid is an object": by_hand({"alg": "RS256", "kid": {"rsa-1": 1}}, PAYLOAD, SECRET),
    "no kid among several keys": RSA.token(kid=None),
    "key in the header": jwt.encode(PAYLOAD, OTHER.private, algorithm="RS256", headers={"jwk": OTHER.public}),
    "address of a key in the header": jwt.encode(
        PAYLOAD, OTHER.private, algorithm="RS256", headers={"jku": "http://127.0.0.1:1/jwks", "kid": "mine"}
    ),
    "crit": jwt.encode(PAYLOAD, SECRET, algorithm="HS256", headers={"crit": ["exp"], "exp": NOW + 9}),
    "b64": by_hand({"alg": "HS256", "b64": False}, PAYLOAD, SECRET),
    "expired": RSA.token(exp=NOW - 60),
    "expires never": RSA.token(exp=None),
    "expires at a text": jwt.encode(claims() | {"exp": "tomorrow"}, SECRET, algorithm="HS256"),
    "expires at infinity": by_hand({"alg": "HS256"}, b'{"sub":"lee","iss":"x","aud":"y","exp":Infinity}', SECRET),
    "expires at a list": by_hand({"alg": "HS256"}, claims(exp=[NOW + 60]), SECRET),
    "not yet": RSA.token(nbf=NOW + 600),
    "issued in the future": RSA.token(iat=NOW + 600),
    "wrong audience": RSA.token(aud="other"),
    "no audience": RSA.token(aud=None),
    "wrong issuer": RSA.token(iss="https://login.kim.example.evil"),
    "no issuer": RSA.token(iss=None),
    "no subject": RSA.token(sub=None),
    "empty subject": RSA.token(sub=""),
    "a subject without end": RSA.token(sub="a" * 201),
    "subject is a list": by_hand({"alg": "HS256"}, claims(sub=["lee"]), SECRET),
    "endpoints are a number": RSA.token(endpoints=5),
    "endpoints are objects": RSA.token(endpoints=[{"desk": 1}]),
    "too long": RSA.token(padding="a" * 8192),
    "payload is a list": by_hand({"alg": "HS256"}, [1], SECRET),
    "payload is no JSON": by_hand({"alg": "HS256"}, b"\xff\xfe", SECRET),
    "header is no JSON": "e30x.e30.e30",
    "header nested without end": f"{encoded(b'[' * 3000).decode()}.e30.e30",
    "no parts": "token",
    "five parts": "a.b.c.d.e",
    "empty": "",
    "only points": "..",
    "no text": "\udcff.é.x",
}


@pytest.mark.parametrize("token", BAD.values(), ids=BAD.keys())
def test_any_other_token_is_refused_with_a_challenge(issuer, token):
    error = refused(tokens(issuer), token)
    assert error.status == 401, error.message
    assert error.body()["error"]["type"] == "authentication_error" and error.code in ("invalid_token", "token_expired")
    assert error.headers()["WWW-Authenticate"].startswith('Bearer realm="llmops", error="invalid_token"')
    error.headers()["WWW-Authenticate"].encode("ascii")
    assert SECRET.decode() not in error.message


def test_a_flipped_bit_anywhere_is_a_forgery(issuer):
    found, token = tokens(issuer), RSA.token()
    head, payload, signature = token.split(".")
    forged = encoded(claims(roles=["admin"])).decode()
    for changed in (
        f"{head}.{forged}.{signature}",
        f"{head}.{payload}.{signature[:-8]}{'AAAAAAAA' if not signature.endswith('AAAAAAAA') else 'BBBBBBBB'}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
    ):
        assert refused(found, changed).status == 401
    assert taken(found, token).roles == {"viewer"}


def test_clocks_may_differ_by_the_leeway_and_no_more():
    found = tokens(claims={"leeway_seconds": 20})
    assert taken(found, jwt.encode(claims(exp=int(time.time()) - 10), SECRET, algorithm="HS256")).subject == "lee"
    error = refused(found, jwt.encode(claims(exp=int(time.time()) - 30), SECRET, algorithm="HS256"))
    assert error.code == "token_expired"


def test_a_remembered_token_still_expires():
    clock = [time.time()]
    found = Tokens(AccessPolicy(), issuer=ISSUER, audience=AUDIENCE, secret=SECRET, clock=lambda: clock[0])
    token = jwt.encode(claims(exp=int(time.time()) - 20), SECRET, algorithm="HS256")
    assert taken(found, token) is taken(found, token)
    clock[0] += 3600
    assert refused(found, jwt.encode(claims(exp=int(time.time()) - 3600), SECRET, algorithm="HS256")).status == 401
    assert found._verified[token].until < clock[0]


def test_algorithms_are_those_that_are_configured(issuer):
    assert refused(tokens(issuer, secret=None), jwt.encode(claims(), SECRET, algorithm="HS256")).status == 401
    assert refused(tokens(None), RSA.token()).status == 401


def test_a_secret_that_can_be_guessed_is_refused():
    with pytest.raises(ValueError, match="has 9 bytes; 32 is the least"):
        tokens(secret=b"too short")


# rotation


def test_a_new_key_of_the_issuer_is_taken_and_an_old_one_no_more(issuer):
    new = Signer("rsa-2")

    async def run() -> None:
        jwks = Jwks(issuer.url, cool_down=0.0)
        found = Tokens(AccessPolicy(), issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
        old_token = RSA.token()
        assert (await found.identity(old_token)).subject == "lee"
        issuer.keys = [new.public]
        assert (await found.identity(new.token())).subject == "lee"
        # It was remembered, and its key is withdrawn.
        with pytest.raises(ApiError) as error:
            await found.identity(old_token)
        assert error.value.status == 401

    asyncio.run(run())


def test_unknown_keys_are_looked_for_once_however_many_tokens_name_one(issuer):
    async def run() -> None:
        jwks = Jwks(issuer.url, cool_down=60.0)
        found = Tokens(AccessPolicy(), issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
        assert (await found.identity(RSA.token())).subject == "lee"
        asked = [found.identity(RSA.token(kid=f"kid-{n}")) for n in range(50)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert {answer.status for answer in answers} == {401}

    asyncio.run(run())
    assert issuer.asked == 1


def test_a_key_that_came_within_the_cool_down_is_found_after_it(issuer):
    clock = [0.0]
    new = Signer("rsa-2")

    async def run() -> None:
        jwks = Jwks(issuer.url, cool_down=10.0, clock=lambda: clock[0])
        assert await jwks.key("rsa-1") is not None
        issuer.keys.append(new.public)
        clock[0] = 5.0
        assert await jwks.key("rsa-2") is None
        clock[0] = 11.0
        assert await jwks.key("rsa-2") is not None

    asyncio.run(run())
    assert issuer.asked == 2


@pytest.mark.parametrize(
    "answer",
    [(500, b"no"), (200, b"<html>"), (200, b'{"keys": []}'), (200, b"[" * 5000), (200, b" " * 300_000), (302, b"/")],
    ids=["error", "page", "empty", "nested", "large", "redirect"],
)
def test_while_the_keys_cannot_be_read_the_last_ones_stay(issuer, answer):
    async def run() -> None:
        jwks = Jwks(issuer.url, cool_down=0.0)
        found = Tokens(AccessPolicy(), issuer=ISSUER, audience=AUDIENCE, jwks=jwks)
        assert (await found.identity(RSA.token())).subject == "lee"
        issuer.answer = answer
        await jwks.refresh()
        assert issuer.url in jwks.fault
        assert (await found.identity(RSA.token(sub="kim"))).subject == "kim"
        with pytest.raises(ApiError) as error:
            await found.identity(RSA.token(kid="unknown"))
        assert (error.value.status, error.value.code) == (503, "keys_unavailable")
        issuer.answer = None
        await jwks.refresh()
        assert jwks.fault is None

    asyncio.run(run())


def test_an_issuer_that_is_away_at_the_start_makes_nobody_wait_for_ever():
    async def run() -> None:
        found = Tokens(AccessPolicy(), issuer=ISSUER, audience=AUDIENCE, jwks=Jwks("http://127.0.0.1:9/jwks"))
        async with asyncio.timeout(10):
            with pytest.raises(ApiError) as error:
                await found.identity(RSA.token())
        assert error.value.status == 503

    asyncio.run(run())


def test_keys_in_a_file_are_read_again_when_it_changed(tmp_path):
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [RSA.public]}))

    async def run() -> None:
        jwks = Jwks(str(file), cool_down=0.0)
        assert await jwks.key("rsa-1") is not None
        assert await jwks.key(None) is not None
        file.write_text(json.dumps({"keys": [ELLIPTIC.public]}))
        assert await jwks.key("ec-1") is not None
        assert await jwks.key("rsa-1") is None

    asyncio.run(run())


# what is published


def small() -> dict:
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "small"}


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kty": "oct", "k": "c2VjcmV0", "kid": "x"}, "private or shared"),
        ({**RSA.public, "d": "AQAB"}, "private or shared"),
        (small(), "1024 bits"),
        ({**RSA.public, "use": "enc"}, "not for signatures"),
        ({**RSA.public, "key_ops": ["encrypt"]}, "not for signatures"),
        ({**RSA.public, "alg": "HS256"}, "RS256 and ES256 are taken"),
        ({**RSA.public, "alg": "RS1"}, "RS256 and ES256 are taken"),
        ({**ELLIPTIC.public, "crv": "P-384"}, "P-256"),
        ({"kty": "RSA", "kid": "x", "n": "!", "e": 5}, "key 0 (x)"),
        ("text", "no object"),
        ({**RSA.public, "kid": 5}, "no text"),
    ],
)
def test_a_key_that_must_not_be_used_is_left_out_with_its_reason(entry, words):
    with pytest.raises(KeysUnusable) as error:
        parse_keys(json.dumps({"keys": [entry]}).encode())
    assert words in str(error.value)
    keys, faults = parse_keys(json.dumps({"keys": [entry, ELLIPTIC.public]}).encode())
    assert keys.keys() == {"ec-1"} and len(faults) == 1


@pytest.mark.parametrize(
    "source", ["http://login.kim.example/jwks", "ftp://x/jwks", "https:///jwks", "http://169.254.169.254/latest"]
)
def test_keys_are_read_from_nowhere_that_another_could_answer_for(source):
    with pytest.raises(KeysUnusable):
        check_source(source)


def test_keys_may_come_from_https_loopback_or_a_file():
    for source in ("https://login.kim.example/jwks", "http://127.0.0.1:8/jwks", "http://localhost/x", "/etc/jwks.json"):
        check_source(source)
