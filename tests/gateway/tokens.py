"""Keys and tokens of an issuer of the tests' own, and the server that publishes its public keys."""

import base64
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

ISSUER = "https://login.kim.example"
AUDIENCE = "llmops"
SECRET = b"a secret of thirty-two bytes, or more"


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None leaves one out."""
    now = int(time.time())
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "lee", "exp": now + 300, "iat": now, "roles": ["viewer"]} | changes
    return {name: value for name, value in found.items() if value is not None}


def encoded(part: Any) -> bytes:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def by_hand(header: dict[str, Any], payload: Any, secret: bytes | None = None) -> str:
    """A token that no library would make: any header, and an HMAC of any secret or no signature."""
    signed = encoded(header) + b"." + encoded(payload)
    signature = b"" if secret is None else encoded(hmac.new(secret, signed, hashlib.sha256).digest())
    return (signed + b"." + signature).decode()


class Signer:
    """A key pair of an issuer: what it signs with, and what it publishes of it."""

    def __init__(self, kid: str, algorithm: str = "RS256") -> None:
        self.kid, self.algorithm = kid, algorithm
        if algorithm == "RS256":
            self.private: Any = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        else:
            self.private = ec.generate_private_key(ec.SECP256R1())
            public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        self.public: dict[str, Any] = {**public, "kid": kid, "use": "sig", "alg": algorithm}

    def token(self, *, kid: str | None = "", **changes: Any) -> str:
        headers = {} if kid is None else {"kid": kid or self.kid}
        return jwt.encode(claims(**changes), self.private, algorithm=self.algorithm, headers=headers)


class Issuer:
    """An HTTP server that publishes `keys`; `asked` counts how often it was asked for them."""

    def __init__(self, *signers: Signer) -> None:
        self.keys = [signer.public for signer in signers]
        self.asked = 0
        self.answer: tuple[int, bytes] | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                status, body = issuer.answer or (200, json.dumps({"keys": issuer.keys}).encode())
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", body.decode())
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/jwks.json"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
