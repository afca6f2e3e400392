"""A small OpenID provider on loopback, on Authlib's own server side, that logs in whom a test names."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector, current_token
from authlib.oauth2.rfc6749 import grants
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, jsonify, request
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

CLIENT, SECRET = "llmops-console", "a-secret-of-the-console"


class Client:
    client_id = CLIENT
    id_token_signed_response_alg = "RS256"

    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, uri: str) -> bool:
        return uri == self.redirect_uri

    def check_client_secret(self, secret: str) -> bool:
        return secret == SECRET

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, kind: str) -> bool:
        return kind == "code"

    def check_grant_type(self, kind: str) -> bool:
        return kind == "authorization_code"


class Code(dict):
    def get_redirect_uri(self) -> str:
        return self["redirect_uri"]

    def get_scope(self) -> str:
        return self["scope"]

    def get_nonce(self) -> str | None:
        return self["nonce"]

    def get_auth_time(self) -> int:
        return self["at"]

    get_acr = get_amr = lambda self: None
    code_challenge = property(lambda self: self["code_challenge"])
    code_challenge_method = property(lambda self: self["code_challenge_method"])


class User(dict):
    def get_user_id(self) -> str:
        return self["sub"]


class Idp:
    """What a test may set: `user` (claims of who logs in), `spoil` (changes the claims that are signed)."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, auto_kid=True)
        self.user: dict[str, Any] = {"sub": "u-1", "preferred_username": "kim", "roles": ["data-scientist"]}
        self.spoil: dict[str, Any] = {}
        self.signing_key: RSAKey | None = None
        self.url = ""
        self.codes: dict[str, Code] = {}
        self.seen: list[dict[str, str]] = []

    def app(self, redirect_uri: str) -> Flask:
        app = Flask("provider")
        idp, client, tokens = self, Client(redirect_uri), {}

        class CodeGrant(grants.AuthorizationCodeGrant):
            TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

            def save_authorization_code(self, code: str, request: Any) -> None:
                data = request.payload.data
                idp.codes[code] = Code(
                    redirect_uri=request.payload.redirect_uri,
                    scope=request.payload.scope,
                    nonce=data.get("nonce"),
                    at=int(time.time()),
                    code_challenge=data.get("code_challenge"),
                    code_challenge_method=data.get("code_challenge_method"),
                    user=User(idp.user),
                )

            def query_authorization_code(self, code: str, client: Any) -> Code | None:
                return idp.codes.get(code)

            def delete_authorization_code(self, authorization_code: Code) -> None:
                idp.codes = {k: v for k, v in idp.codes.items() if v is not authorization_code}

            def authenticate_user(self, authorization_code: Code) -> User:
                return authorization_code["user"]

        class Identity(OpenIDCode):
            def exists_nonce(self, nonce: str, request: Any) -> bool:
                return any(code["nonce"] == nonce for code in idp.codes.values())

            def get_client_claims(self, client: Any) -> dict[str, Any]:
                return {"iss": idp.url, "aud": [CLIENT]}

            def resolve_client_private_key(self, client: Any) -> RSAKey:
                return idp.signing_key or idp.key

            def get_encode_header(self, client: Any) -> dict[str, str]:
                return {"alg": "RS256", "kid": (idp.signing_key or idp.key).kid}

            def generate_user_info(self, user: User, scope: str) -> UserInfo:
                return UserInfo(**{"sub": user["sub"], **idp.spoil})

        def save(token: dict[str, Any], request: Any) -> None:
            tokens[token["access_token"]] = request.user

        server = AuthorizationServer(app, query_client=lambda _id: client, save_token=save)
        server.register_grant(CodeGrant, [CodeChallenge(required=True), Identity(require_nonce=True)])
        protect = ResourceProtector()

        class Bearer(BearerTokenValidator):
            def authenticate_token(self, token_string: str) -> Any:
                user = tokens.get(token_string)
                return None if user is None else _Token(user)

        protect.register_token_validator(Bearer())

        @app.get("/.well-known/openid-configuration")
        def configuration() -> Any:
            return jsonify(
                issuer=idp.url,
                authorization_endpoint=f"{idp.url}/authorize",
                token_endpoint=f"{idp.url}/token",
                userinfo_endpoint=f"{idp.url}/userinfo",
                jwks_uri=f"{idp.url}/keys",
            )

        @app.get("/keys")
        def keys() -> Any:
            return jsonify(KeySet([idp.key]).as_dict(private=False))

        @app.get("/authorize")
        def authorize() -> Any:
            idp.seen.append(request.args.to_dict())
            grant = server.get_consent_grant(end_user=User(idp.user))
            return server.create_authorization_response(grant_user=User(idp.user), grant=grant)

        @app.post("/token")
        def token() -> Any:
            return server.create_token_response()

        @app.get("/userinfo")
        @protect("profile")
        def userinfo() -> Any:
            return jsonify(current_token.user)

        return app


class _Token:
    def __init__(self, user: User) -> None:
        self.user = user

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False

    def get_scope(self) -> str:
        return "openid profile email"


@contextmanager
def provider(redirect_uri: str) -> Iterator[Idp]:
    """A provider that sends users back to `redirect_uri`, while the block runs."""
    idp = Idp()
    server = make_server("127.0.0.1", 0, idp.app(redirect_uri), threaded=True)
    idp.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield idp
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
