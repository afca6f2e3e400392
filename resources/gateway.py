"""Changes what the gateway serves, and waits until it does."""

import json
import time
import urllib.error
import urllib.request
from typing import Any, Literal

from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog, Endpoint
from resources.model_server import Answer, answer_of


class GatewayError(RuntimeError):
    """The gateway runs but does not follow."""


class GatewayAdmin:
    """The gateway at `url` over `catalog`. It may not be running: then there is no traffic, and nothing to wait for.

    Its routes and what is in flight stand at `admin_url`, for who has the `token`. `follow_seconds` is how long it may
    take to serve what the catalog says; it looks twice a second.
    """

    def __init__(
        self, catalog: Catalog, url: str, *, admin_url: str, token: str | None, follow_seconds: float = 15.0
    ) -> None:
        self.catalog = catalog
        self.url = url.rstrip("/")
        self.admin_url = admin_url.rstrip("/")
        self.follow_seconds = follow_seconds
        self._token = token

    @classmethod
    def of(cls, catalog: Catalog, settings: Settings) -> "GatewayAdmin":
        """The gateway of an installation."""
        return cls(catalog, settings.gateway_url, admin_url=settings.gateway_admin_url, token=settings.admin_token)

    def set_routes(
        self,
        endpoint: str,
        routes: list[dict[str, Any]],
        *,
        actor: str = "deployment",
        prompt: ResolvedPrompt | Literal["as it is"] | None = "as it is",
    ) -> int:
        """Replace an endpoint's routes (backend_id, model_ref, weight) and return the phase that this opens.

        Returns once a running gateway serves that phase; GatewayError when it does not in time. With a `prompt` (None:
        none) that is another one from the same moment on.
        """
        phase = self.catalog.set_routes(endpoint, routes, actor, prompt=prompt)
        self.wait_for(endpoint, phase)
        return phase

    def wait_for(self, endpoint: str, phase: int) -> None:
        """Wait until a running gateway serves `phase` of `endpoint` or a later one."""
        until = time.monotonic() + self.follow_seconds
        while (state := self.state()) is not None:
            served = state["endpoints"].get(endpoint, {}).get("phase", -1)
            if served >= phase:
                return
            if fault := state.get("faults", {}).get(endpoint):
                raise GatewayError(
                    f"the gateway at {self.url} cannot read the routes of endpoint {endpoint!r}: {fault}"
                )
            if time.monotonic() > until:
                raise GatewayError(
                    f"the gateway at {self.url} does not serve phase {phase} of endpoint {endpoint!r} after "
                    f"{self.follow_seconds:g} s. Does it belong to another installation (LLMOPS_HOME, "
                    "LLMOPS_GATEWAY_PORT)? Its log tells whether it can read the catalog"
                )
            time.sleep(0.05)

    def drain(self, backend_ids: list[str], seconds: float) -> int:
        """Wait up to `seconds` until no request is in flight on the backends; how many still are."""
        until = time.monotonic() + seconds
        while (state := self.state()) is not None:
            left = sum(state["in_flight"].get(id, 0) for id in backend_ids)
            if not left or time.monotonic() > until:
                return left
            time.sleep(0.1)
        return 0

    def is_drained(self, endpoint: Endpoint | None, backend_id: str) -> bool:
        """Whether no request is in flight on a backend and none will come, as routes of now are what is served.

        Of a gateway that does not run, or says nothing, there is nothing to wait for.
        """
        try:
            state = self.state()
        except GatewayError:
            return True
        if state is None:
            return True
        served = state["endpoints"].get(endpoint.name, {}).get("phase", -1) if endpoint is not None else None
        follows = endpoint is None or served is None or served >= endpoint.phase
        return follows and not state["in_flight"].get(backend_id, 0)

    def probe(self, endpoint: str, messages: list[dict[str, str]], *, seconds: float = 60.0) -> str | None:
        """What an endpoint answers through the gateway, as `ask` has it; its text alone."""
        answer = self.ask(endpoint, messages, seconds=seconds)
        return None if answer is None else str(answer.text)

    def ask(
        self,
        endpoint: str,
        messages: list[dict[str, Any]],
        *,
        max_tokens: int = 16,
        token_ids: bool = False,
        tools: list[dict[str, Any]] | None = None,
        seconds: float = 60.0,
    ) -> Answer | None:
        """A completion of the endpoint through the gateway, or None when the gateway does not run.

        It is a probe: the gateway does not log it, so it is no exposure of an experiment. Raises GatewayError when
        there is no answer.
        """
        if self.state() is None:
            return None
        body: dict[str, Any] = {"model": endpoint, "messages": messages, "max_tokens": max_tokens, "user": "probe"}
        if token_ids:
            body["return_token_ids"] = True
        if tools:
            body["tools"] = tools
        request = urllib.request.Request(
            f"{self.url}/v1/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "x-llmops-probe": self._token or ""},
        )
        begun = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=seconds) as response:
                return answer_of(json.load(response), time.monotonic() - begun)
        except urllib.error.HTTPError as error:
            reply = error.read(1000).decode("utf-8", "replace")
            raise GatewayError(f"through the gateway endpoint {endpoint!r} answers {error.code}: {reply}") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise GatewayError(f"through the gateway endpoint {endpoint!r} does not answer: {error!r}") from error

    def state(self) -> dict[str, Any] | None:
        """What the gateway says of itself, or None when nothing listens at its address."""
        request = urllib.request.Request(
            f"{self.admin_url}/admin/routes", headers={"Authorization": f"Bearer {self._token or ''}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code in (401, 403):
                raise GatewayError(
                    f"the gateway at {self.admin_url} has another administrative token: does it belong to another "
                    "installation (LLMOPS_HOME, LLMOPS_GATEWAY_ADMIN_TOKEN)?"
                ) from error
            raise GatewayError(
                f"what listens at {self.admin_url} is no gateway of this platform ({error.code})"
            ) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ConnectionRefusedError):
                return None
            raise GatewayError(f"the gateway at {self.admin_url} does not answer: {error.reason}") from error
        except (OSError, ValueError) as error:
            raise GatewayError(f"the gateway at {self.admin_url} does not answer: {error}") from error
