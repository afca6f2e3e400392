"""Tokens (JWT, RFC 7519): whose each is, by its signature, its issuer, its audience, its time and its claims."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt

from images.gateway.access.jwks import Jwks
from images.gateway.access.refused import unknown_caller
from images.gateway.call import Identity
from images.gateway.errors import ApiError
from llmops_assets.specs.access import AccessPolicy, claim

log = logging.getLogger("gateway.access")

MOST_TOKEN_BYTES = 8 * 1024
LEAST_SECRET_BYTES = 32
"""RFC 7518, 3.2: a secret for HS256 has at least as many bits as its hash."""
_REMEMBERED = 10_000
_MOST_NAME = 200


@dataclass(frozen=True)
class Verified:
    """What a token that was looked at once is good for, and until when (seconds since 1970)."""

    identity: Identity
    until: float
    generation: int


class Tokens:
    """Takes tokens that are signed with `secret` (HS256) or with a key of `jwks` (RS256, ES256).

    The algorithm is that of the key that is configured; a header can choose among these alone. A token that was good is
    remembered until its end, or until the keys change.
    """

    def __init__(
        self,
        policy: AccessPolicy,
        *,
        issuer: str,
        audience: str,
        secret: bytes | None = None,
        jwks: Jwks | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if secret is not None and len(secret) < LEAST_SECRET_BYTES:
            raise ValueError(f"the secret of tokens has {len(secret)} bytes; {LEAST_SECRET_BYTES} is the least")
        self.policy = policy
        self.issuer = issuer
        self.audience = audience
        self.secret = secret
        self.jwks = jwks
        self.clock = clock
        self._verified: OrderedDict[str, Verified] = OrderedDict()

    def remembered(self, token: str) -> Identity | None:
        """Whose token it is, where that was found out before and holds still."""
        known = self._verified.get(token)
        generation = self.jwks.generation if self.jwks else 0
        holds = known is not None and known.generation == generation and self.clock() < known.until
        return known.identity if holds else None

    async def identity(self, token: str) -> Identity:
        """Whose token it is; ApiError 401 with the reason, 503 while the issuer's keys cannot be read."""
        if (known := self.remembered(token)) is not None:
            return known
        claims = await self._claims(token)
        identity = self._identity(claims)
        generation = self.jwks.generation if self.jwks else 0
        until = float(claims["exp"]) + self.policy.claims.leeway_seconds
        self._verified[token] = Verified(identity, until, generation)
        if len(self._verified) > _REMEMBERED:
            self._verified.popitem(last=False)
        return identity

    async def _claims(self, token: str) -> dict[str, Any]:
        if len(token) > MOST_TOKEN_BYTES:
            raise _refused(f"the token has more than {MOST_TOKEN_BYTES} bytes")
        try:
            header = jwt.get_unverified_header(token)
        except Exception as error:
            # Whatever a stranger sends is theirs to mend; the library may stumble over it anywhere.
            raise _refused("the token is not formed as one") from error
        if "crit" in header or "b64" in header:
            raise _refused("the token's header asks for extensions (crit, b64) that are not taken")
        algorithm = header.get("alg")
        key = await self._key(algorithm, header.get("kid"))
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self.issuer,
                audience=self.audience,
                leeway=self.policy.claims.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise _refused("the token has expired", code="token_expired") from error
        except jwt.InvalidAudienceError as error:
            raise _refused(f"the token is not for this audience ({self.audience})") from error
        except jwt.InvalidIssuerError as error:
            raise _refused("the token is of another issuer") from error
        except jwt.ImmatureSignatureError as error:
            raise _refused("the token is not valid yet: is the clock right?") from error
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"the token says nothing of {error.claim}") from error
        except Exception as error:
            raise _refused("the token's signature or its claims are not right") from error

    async def _key(self, algorithm: object, kid: object) -> Any:
        if algorithm == "HS256" and self.secret is not None:
            return self.secret
        if algorithm not in ("RS256", "ES256") or self.jwks is None:
            raise _refused(f"tokens with alg {str(algorithm)[:20]!r} are not taken here")
        if kid is not None and not (isinstance(kid, str) and len(kid) <= _MOST_NAME):
            raise _refused("the token's kid is no name of a key")
        found = await self.jwks.key(kid)
        if found is None and self.jwks.fault is not None:
            raise ApiError(
                503, "the keys that tokens are signed with cannot be read now", code="keys_unavailable", retry_after=5
            )
        if found is None or found.algorithm != algorithm:
            raise _refused("the token is signed with a key that its issuer does not have")
        return found.key

    def _identity(self, claims: dict[str, Any]) -> Identity:
        names = self.policy.claims
        subject, team = claims["sub"], claim(claims, names.team)
        if not isinstance(subject, str) or not 0 < len(subject) <= _MOST_NAME:
            raise _refused(f"the token's sub should be a text of at most {_MOST_NAME} characters")
        endpoints = claim(claims, names.endpoints)
        if isinstance(endpoints, str):
            endpoints = endpoints.split()
        if endpoints is not None and not (
            isinstance(endpoints, list) and all(isinstance(name, str) for name in endpoints)
        ):
            # Taken for nothing it would open every endpoint.
            raise _refused(f"the token's {names.endpoints} should be a list of names")
        return Identity(
            subject=subject,
            owner=subject,
            team=team if isinstance(team, str) and len(team) <= _MOST_NAME else None,
            roles=self.policy.roles_of(claims),
            endpoints=None if endpoints is None else frozenset(endpoints),
            monthly_tokens=self.policy.limits.monthly_tokens,
        )


def _refused(message: str, code: str = "invalid_token") -> ApiError:
    return unknown_caller(message, code=code)
