"""An OpenID provider that users log in at: code flow with PKCE, state and nonce (OpenID Connect Core, RFC 7636)."""

import threading
import time
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, KeySetSerialization

SIGNED_BY = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What an identity may be signed with: keys of the provider's own, never a secret that we have, and never nothing."""
_SECONDS = 5.0
_LARGEST = 1_000_000
_LEEWAY_SECONDS = 60
_LOOK_AGAIN_SECONDS = 10.0
_FRESH_SECONDS = 3600.0


class ProviderAway(Exception):
    """The provider does not answer, or not as a provider does."""


class LoginRefused(Exception):
    """What came back from the provider proves nobody's identity."""


class Provider:
    """One provider, as the console is known there.

    `redirect_uri` is where it sends users back to. What it says of itself is read at the first login and kept for an
    hour; its keys are read again when a token names one that is not known, at most once in ten seconds.
    """

    def __init__(
        self, issuer: str, client_id: str, secret: str | None, redirect_uri: str, *, scopes: str, user_claim: str
    ) -> None:
        check_address(issuer)
        self.issuer, self.client_id, self.redirect_uri = issuer, client_id, redirect_uri
        self.scopes, self.user_claim = scopes, user_claim
        self._secret = secret
        self._lock = threading.Lock()
        self._found: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, KeySet] | None = None

    def address(self, state: str, nonce: str, verifier: str) -> str:
        """Where to send a browser; raises ProviderAway."""
        endpoint = self._said("authorization_endpoint")
        with self._client() as client:
            url, _ = client.create_authorization_url(endpoint, state=state, code_verifier=verifier, nonce=nonce)
        return url

    def claims(self, answer: Mapping[str, str], nonce: str, verifier: str) -> dict[str, Any]:
        """What the provider says of the user who came back with `answer`; raises LoginRefused or ProviderAway."""
        if "error" in answer:
            words = answer.get("error_description") or answer["error"]
            raise LoginRefused(f"the provider refused: {words[:200]}")
        # RFC 9207: an answer of another provider is not taken to this one.
        if answer.get("iss", self.issuer) != self.issuer:
            raise LoginRefused("the answer is from another provider")
        if not answer.get("code"):
            raise LoginRefused("the provider sent no code")
        token = self._token(answer["code"], verifier)
        found = self._identity(token, nonce)
        if (endpoint := self._document().get("userinfo_endpoint")) and token.get("access_token"):
            check_address(endpoint)
            more = self._get(endpoint, {"Authorization": f"Bearer {token['access_token']}"})
            if more.get("sub") != found["sub"]:
                raise LoginRefused("what the provider says of the user is of another one")
            found = {**more, **found}
        return found

    def _token(self, code: str, verifier: str) -> dict[str, Any]:
        endpoint = self._said("token_endpoint")
        check_address(endpoint)
        try:
            with self._client() as client:
                token = client.fetch_token(
                    endpoint, code=code, code_verifier=verifier, grant_type="authorization_code", timeout=_SECONDS
                )
        except OAuthError as error:
            raise LoginRefused(f"the provider does not take its code back: {str(error)[:200]}") from error
        except Exception as error:  # the client's transport has errors of its own
            raise ProviderAway(f"the provider {self.issuer} does not answer: {type(error).__name__}") from error
        if not isinstance(token.get("id_token"), str):
            raise LoginRefused("the provider sent no identity: is `openid` among LLMOPS_OIDC_SCOPES?")
        return dict(token)

    def _identity(self, token: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        try:
            decoded = self._decoded(token["id_token"])
            options = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self.client_id},
            }
            params = {"nonce": nonce, "client_id": self.client_id, "access_token": token.get("access_token")}
            identity = CodeIDToken(decoded.claims, decoded.header, options, params)
            identity.validate(now=int(time.time()), leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise LoginRefused(f"the provider's identity does not hold: {str(error)[:200]}") from error
        if not isinstance(identity.get("sub"), str) or not identity["sub"]:
            raise LoginRefused("the provider's identity names nobody")
        return dict(identity)

    def _decoded(self, text: str) -> jwt.Token:
        try:
            return jwt.decode(text, self._key_set(), algorithms=list(SIGNED_BY))
        except (JoseError, ValueError):
            # Keys change: one that is not known yet may be there by now.
            return jwt.decode(text, self._key_set(again=True), algorithms=list(SIGNED_BY))

    def _key_set(self, again: bool = False) -> KeySet:
        with self._lock:
            known = self._keys
        age = None if known is None else time.monotonic() - known[0]
        if known is not None and age is not None and age < (_LOOK_AGAIN_SECONDS if again else _FRESH_SECONDS):
            return known[1]
        endpoint = self._said("jwks_uri")
        check_address(endpoint)
        try:
            keys = KeySet.import_key_set(cast(KeySetSerialization, self._get(endpoint)))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderAway(f"the keys of the provider {self.issuer} cannot be read") from error
        with self._lock:
            self._keys = (time.monotonic(), keys)
        return keys

    def _said(self, name: str) -> str:
        value = self._document().get(name)
        if not isinstance(value, str):
            raise ProviderAway(f"the provider {self.issuer} says no {name}")
        return value

    def _document(self) -> dict[str, Any]:
        with self._lock:
            known = self._found
        if known is not None and time.monotonic() - known[0] < _FRESH_SECONDS:
            return known[1]
        found = self._get(f"{self.issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            issuer = str(found.get("issuer"))[:200]
            raise ProviderAway(f"the provider calls itself {issuer!r}, and LLMOPS_OIDC_ISSUER is {self.issuer!r}")
        with self._lock:
            self._found = (time.monotonic(), found)
        return found

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        try:
            # No redirect is followed: what was named is what is asked.
            with httpx.stream("GET", url, headers=dict(headers or {}), timeout=_SECONDS, follow_redirects=False) as got:
                body = bytearray()
                for part in got.iter_bytes():
                    body += part
                    if len(body) > _LARGEST:
                        raise ProviderAway(f"the provider {self.issuer} answers without end")
                if got.status_code != 200:
                    raise ProviderAway(f"the provider {self.issuer} answers {got.status_code} at {urlsplit(url).path}")
            value = httpx.Response(200, content=bytes(body)).json()
        except (httpx.HTTPError, ValueError) as error:
            raise ProviderAway(f"the provider {self.issuer} does not answer: {type(error).__name__}") from error
        if not isinstance(value, dict):
            raise ProviderAway(f"the provider {self.issuer} does not answer as a provider does")
        return value

    def _client(self) -> OAuth2Client:
        return OAuth2Client(
            self.client_id,
            self._secret,
            scope=self.scopes,
            redirect_uri=self.redirect_uri,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if self._secret else "none",
        )


def check_address(url: str) -> None:
    """Raise ValueError for an address that would send tokens through the net in the clear."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    try:
        is_own = parts.hostname == "localhost" or ip_address(parts.hostname or "").is_loopback
    except ValueError:
        is_own = False
    if parts.scheme != "http" or not is_own:
        raise ValueError(f"LLMOPS_OIDC_ISSUER: {url!r} should begin with https:// (http is for loopback alone)")
