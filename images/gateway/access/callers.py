"""Everything that one gateway knows of its callers: who they are, what they may call, and how much."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from datetime import UTC, datetime
from functools import lru_cache

from images.gateway.access.addresses import Addresses
from images.gateway.access.decisions import Decisions
from images.gateway.access.key_table import KeyTable
from images.gateway.access.last_keys import LastKeys
from images.gateway.access.mode import access_of, check_somebody_may_call
from images.gateway.access.refused import unknown_caller
from images.gateway.call import Call, Identity
from images.gateway.errors import ApiError
from images.gateway.limits.limiter import Limiter
from images.gateway.limits.shared import SharedCounter
from llmops_assets.specs.access import CALL, AccessPolicy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.catalog.api_keys import PREFIX
from resources.traffic.shipper import AWAY

log = logging.getLogger("gateway.access")

_LEDGER_SECONDS = 5.0
_FIRST_LOOK_SECONDS = 10.0


class Callers:
    """The access and the limits of one gateway's process."""

    def __init__(self, settings: Settings, policy: AccessPolicy) -> None:
        self.policy = policy
        self.access = access_of(settings, policy)
        self.keys = KeyTable()
        self.decisions = Decisions(settings.cerbos_url) if settings.cerbos_url else None
        self.addresses = Addresses(self.access.trusted)
        store = settings.gateway_store_url
        self.limiter = Limiter(
            None if store is None else SharedCounter(store), on_failure=settings.gateway_store_failure
        )
        # The policy is the same as long as the process runs.
        self._may_call = lru_cache(1024)(lambda roles: policy.allows(roles, CALL))
        self._renewing: asyncio.Task[None] | None = None
        self._used: dict[str, int] = {}
        self._used_of = ""
        self._ledger_read_at = -_LEDGER_SECONDS

    @property
    def faults(self) -> dict[str, str]:
        """What is wrong while the gateway answers all the same, by what it is about."""
        tokens, found = self.access.tokens, {}
        if self.limiter.fault is not None:
            found["limits"] = self.limiter.fault
        if self.decisions is not None and self.decisions.fault is not None:
            found["access"] = self.decisions.fault
        if tokens is not None and tokens.jwks is not None and tokens.jwks.fault is not None:
            # Where they are is no business of who asks for health; the log says it.
            found["jwks"] = "the keys of tokens cannot be read: those read last are kept"
        return found

    async def open(self, catalog: Catalog, last: LastKeys | None = None) -> None:
        """Before the first request; AccessMisconfigured where access is on and nobody has a way in.

        `last` has the keys of before, for a start while the catalog is away.
        """
        if self.access.is_on:
            if last is not None:
                self.keys.restore(last)
            looking = asyncio.ensure_future(asyncio.to_thread(self.refresh, catalog))
            try:
                await asyncio.wait_for(asyncio.shield(looking), _FIRST_LOOK_SECONDS)
            except TimeoutError:
                log.error("the catalog does not answer: the API keys of before are taken")
            if self.keys.made is not None:
                check_somebody_may_call(self.access, self.keys.made)
        decided = ("on" if is_on else "off" for is_on in (self.access.is_on, self.access.limits_on))
        log.info("access is %s, limits are %s", *decided)
        await self.limiter.open()
        tokens = self.access.tokens
        if self.access.is_on and tokens is not None and tokens.jwks is not None:
            await tokens.jwks.refresh()
            self._renewing = asyncio.create_task(tokens.jwks.renew())

    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        await self.limiter.close()
        if self.decisions is not None:
            await self.decisions.close()

    def refresh(self, catalog: Catalog) -> None:
        """Read the keys that changed, and now and then what was used of budgets. Never raises: the last ones stay."""
        if not self.access.is_on:
            return
        try:
            self.keys.refresh(catalog)
            now = time.monotonic()
            if now - self._ledger_read_at >= _LEDGER_SECONDS and (
                self.keys.has_budgets or self.policy.limits.monthly_tokens
            ):
                month = this_month()
                self._used, self._used_of = catalog.usage.tokens_of_month(month), month
                self._ledger_read_at = now
        except AWAY as error:
            log.debug("keys and usage stay as they were: %s", error)
        except Exception:  # whatever it is, answering goes on; but it is nothing that passes by itself
            log.exception("keys and usage stay as they were")

    def used(self, name: str, month: str) -> int:
        """Tokens that the ledger knows of, of a caller in a month."""
        return self._used.get(name, 0) if month == self._used_of else 0

    async def identify(self, call: Call) -> Identity:
        """Whose credential a request carries; ApiError 401 without a right one."""
        scheme, _, credential = (call.header(b"authorization") or "").partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise unknown_caller(
                "an API key or a token is asked for: `Authorization: Bearer …`", code="missing_api_key", is_missing=True
            )
        if credential.startswith(PREFIX):
            return self.keys.identity(credential)
        if self.access.tokens is not None and credential.count(".") >= 2:
            return await self.access.tokens.identity(credential)
        raise unknown_caller(f"that is no API key of this gateway: ours begin with {PREFIX}")

    def remembered(self, call: Call) -> Identity | None:
        """Whose credential a request carries, where it is a token that was looked at before and holds still."""
        header = call.header(b"authorization")
        if self.access.tokens is None or header is None or not header.startswith("Bearer "):
            return None
        return self.access.tokens.remembered(header[7:])

    def address_of(self, call: Call) -> str:
        """The address that a request is counted by."""
        client = call.scope.get("client")
        forwarded: list[str] = []
        if self.access.trusted:
            forwarded = [v.decode("latin-1") for k, v in call.scope["headers"] if k == b"x-forwarded-for"]
        return self.addresses.client(client[0] if client else None, forwarded)

    def has_role(self, caller: Identity) -> bool | Awaitable[bool]:
        """Whether one of the caller's roles may call endpoints, by the policy's table, or by Cerbos where one is named.

        Cerbos's answer is to be awaited: ApiError 503 where it is away.
        """
        if self.decisions is None:
            return self._may_call(caller.roles)
        return self.decisions.may_call(caller)

    def may_call(self, call: Call, endpoint: str) -> bool:
        """Whether a caller may ask an endpoint's model: by a role, and by the endpoints that the credential names."""
        if not self.access.is_on:
            return True
        named = call.caller.endpoints
        return (named is None or endpoint in named) and call.has_role

    def check_may_rate(self, call: Call) -> None:
        """Raise ApiError 403 where a caller may call no endpoint, and so has no answer to rate."""
        if self.access.is_on and not call.is_probe and not call.has_role:
            roles = ", ".join(sorted(call.caller.roles)) or "none"
            raise ApiError(
                403, f"answers may not be rated with the roles of this credential ({roles})", code="role_forbidden"
            )

    def check_may_call(self, call: Call, endpoint: str) -> None:
        """Raise ApiError 403, saying which of the two is missing."""
        caller = call.caller
        if call.is_probe or self.may_call(call, endpoint):
            return
        if caller.endpoints is not None and endpoint not in caller.endpoints:
            raise ApiError(
                403, f"this credential is not for endpoint {endpoint!r}", code="endpoint_forbidden", param="model"
            )
        roles = ", ".join(sorted(caller.roles)) or "none"
        raise ApiError(
            403,
            f"endpoint {endpoint!r} may not be called with the roles of this credential ({roles})",
            code="role_forbidden",
            param="model",
        )


def this_month() -> str:
    """The month (UTC) that budgets are counted by, `YYYY-MM`."""
    return datetime.now(UTC).strftime("%Y-%m")
