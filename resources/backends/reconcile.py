"""Brings model servers to what is wanted of them, a look at a time; killed at any line, the next look goes on."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends.completions import complete
from resources.backends.local import LocalServers
from resources.backends.protocol import RETRIEVER, Health, Runner, ServedFilesChanged, ServerError
from resources.catalog import Backend, Catalog, Endpoint, Lease, LeaseLost, NotFound
from resources.catalog.backends import Wanted
from resources.content import ContentChanged
from resources.server_guard import verify_model

SILENT_SECONDS = 30.0
"""A server that does not answer its health page for so long is taken for dead: before, it may only be busy."""
SETTLED_SECONDS = 600.0
"""A server that was healthy for so long has no restarts behind it."""
KILL_SECONDS = 5.0
"""How long what was killed may still be there before that is a fault."""
LONGEST_PAUSE = timedelta(minutes=5)
LOOK_AGAIN = timedelta(minutes=1)
"""Files that were changed are looked at again so much later: somebody may have restored them."""
NOT_STARTED = "a model server is not started again"
GAVE_UP = "a model server keeps ending"

Drained = Callable[[Endpoint | None, str], bool]
"""Whether no request is in flight on a backend, and none will be sent to it, as far as the gateway tells."""


@dataclass(frozen=True)
class Reconciler:
    """Acts for whoever holds the lease. `runner` gives what runs a backend; `exclusively` holds an endpoint's lock and
    yields False where somebody deploys it."""

    catalog: Catalog
    policy: ServingPolicy
    runner: Callable[[Backend], Runner]
    exclusively: Callable[[str], AbstractContextManager[bool]]
    drained: Drained = lambda endpoint, id: True

    def names(self) -> list[str]:
        """The endpoints to be looked at, with those whose servers outlived them."""
        owners = {backend.endpoint for backend in self.catalog.backends()}
        return sorted(owners.union(self.catalog.endpoint_names()))

    def step(self, name: str, lease: Lease | None, *, hurry: bool = False) -> list[str]:
        """Look at the servers of one endpoint once; what was done and what failed, a sentence each.

        A server that is wanted is started; one that died, says that it cannot serve, or is silent for long is started
        again, after a pause that grows unless `hurry`, and no more once `max_restarts` in a row did not help. One that
        is not wanted is drained, asked to end, killed, and forgotten once it is gone. What no endpoint routes to, and
        nobody deploys, is not wanted. Raises LeaseLost when another reconciler acts by now.
        """
        done: list[str] = []
        endpoint = self._endpoint(name)
        with self.exclusively(name) as ours:
            if ours:
                endpoint = self._endpoint(name)
                done += self._tidy(name, endpoint)
        for backend in self.catalog.backends(name):
            try:
                done += self._look_at(backend, endpoint, lease, hurry)
            except LeaseLost:
                raise
            except (ServerError, NotFound, OSError) as error:
                done += self._note_fault(backend, str(error), lease)
        if endpoint is not None and endpoint.state == "deleting":
            done += self._forget(name)
        return done

    def is_settled(self, name: str) -> bool:
        """Whether every server of an endpoint is as it is wanted, or stays otherwise until somebody wants it anew."""
        return all(
            backend.state in ("healthy", "unhealthy", "failed")
            if backend.wanted == "running"
            else bool(backend.message) and backend.state == "stopping"
            for backend in self.catalog.backends(name)
        )

    def _forget(self, name: str) -> list[str]:
        """Forget an endpoint whose servers are gone, unless whoever deletes it is about to."""
        with self.exclusively(name) as ours:
            if ours and not self.catalog.backends(name) and self.catalog.remove_endpoint(name, actor="reconciler"):
                return [f"removed endpoint {name}"]
        return []

    def _endpoint(self, name: str) -> Endpoint | None:
        try:
            return self.catalog.endpoint(name)
        except NotFound:
            return None

    def _tidy(self, name: str, endpoint: Endpoint | None) -> list[str]:
        """What is left to do where nobody deploys: we hold the lock that whoever deploys would hold."""
        done: list[str] = []
        if endpoint is not None and endpoint.state == "deploying":
            done += self._note_cut_off(endpoint)
        routed = set() if endpoint is None or endpoint.state == "deleting" else routed_to(endpoint)
        now = datetime.now(UTC)
        unused = [
            backend.id
            for backend in self.catalog.backends(name)
            if backend.id not in routed and not (backend.warm_until is not None and backend.warm_until > now)
        ]
        self.catalog.unwant_backends(unused, "reconciler")
        return done

    def _note_cut_off(self, endpoint: Endpoint) -> list[str]:
        message = "its last deployment was cut off"
        state = "pending" if endpoint.revision > endpoint.observed_revision else "live"
        changed = self.catalog.update_endpoint(
            endpoint.name,
            expected_revision=endpoint.revision,
            expected_state="deploying",
            state=state,
            message=f"{message}; another run is asked for" if state == "pending" else message,
        )
        return [f"{endpoint.name}: {message}"] if changed else []

    def _look_at(self, backend: Backend, endpoint: Endpoint | None, lease: Lease | None, hurry: bool) -> list[str]:
        if backend.wanted == "gone":
            return self.end(backend, endpoint, lease)
        if backend.state == "failed":
            return []
        if backend.state in ("wanted", "stopped"):
            self._admit(backend, lease)
            self._start(backend, lease)
            return [] if backend.healthy_at is None else [_started(backend, "gone")]
        health = self.runner(backend).observe(backend, timeout=10.0)
        if health == "ok":
            return self._confirm(backend, lease)
        if backend.kind == "url":
            return self._note_silence(backend, health, lease)
        if health == "silent" and not self._silent_for_long(backend, hurry):
            return self._note_silence(backend, health, lease) if backend.state == "healthy" else []
        return self._start_again(backend, health, lease, hurry)

    def _silent_for_long(self, backend: Backend, hurry: bool) -> bool:
        """Whether a silence is none of a server that loads its model, or is only busy."""
        if backend.state == "starting":
            return _age(backend) > self.policy.start_timeout_seconds
        return backend.state == "unhealthy" and (hurry or _age(backend) > SILENT_SECONDS)

    def _note_silence(self, backend: Backend, health: Health, lease: Lease | None) -> list[str]:
        message = f"{backend.id} of {backend.endpoint} does not answer its health page"
        if health == "failing":
            message = f"{backend.id} of {backend.endpoint} says that it cannot serve"
        if backend.state == "unhealthy" and backend.message == message:
            return []
        if backend.state == "starting" and backend.healthy_at is None:
            if _age(backend) <= self.policy.start_timeout_seconds:
                return []
            self._observe(backend, lease, state="failed", message=message)
            return [message]
        self._observe(backend, lease, state="unhealthy", message=message)
        return [message]

    def _confirm(self, backend: Backend, lease: Lease | None) -> list[str]:
        """Note a server that is up as healthy, once it has answered a completion itself."""
        if backend.state == "healthy":
            if backend.restarts and _age(backend) > SETTLED_SECONDS:
                self._observe(backend, lease, restarts=0, retry_at=None)
            return []
        runner = self.runner(backend)
        tail = log_tail(runner, backend)
        if isinstance(runner, LocalServers) and runner.owns_its_port(backend) is False:
            if runner.process(backend) is None:
                # It ended after it had answered: the next look finds it gone.
                return []
            raise ServerError(
                f"{backend.url} is answered by another process than the model server {backend.id}: an old server was "
                f"left running there. End it, and deploy again{tail}"
            )
        if backend.engine != RETRIEVER:
            complete(backend, [{"role": "user", "content": QUESTION}], timeout=60.0, log=tail)
        now = datetime.now(UTC)
        self._observe(backend, lease, state="healthy", message="", healthy_at=backend.healthy_at or now)
        return []

    def _admit(self, backend: Backend, lease: Lease | None) -> None:
        """Raise ServedFilesChanged unless a model's files are what was registered; its endpoint says so then.

        Asked at every start, the one after a crash too: the folder may have been written over since.
        """
        try:
            if backend.kind != "url":
                verify_model(backend)
        except ContentChanged as error:
            if backend.healthy_at is not None:
                self._hold(backend.endpoint, f"{NOT_STARTED}: {error}")
                self._observe(backend, lease, retry_at=datetime.now(UTC) + LOOK_AGAIN)
            raise ServedFilesChanged(str(error)) from error

    def _start(self, backend: Backend, lease: Lease | None) -> None:
        """Start a server that was admitted."""
        held = self._is_held(backend.endpoint)
        if lease is not None:
            # Looking at the files of a large model takes minutes.
            lease.check()
        runner = self.runner(backend)
        # Until it is noted what runs it is still to be started: by adopting it, where it runs by then.
        running = runner.start(backend, lambda starting: self._note(replace(starting, state="wanted"), lease))
        try:
            self._note(running, lease)
        except BaseException:
            # It is another's to say what runs: without a record this would be an orphan.
            runner.stop(running, kill=True)
            raise
        if held and backend.healthy_at is not None:
            self._let_go(backend.endpoint)

    def _start_again(self, backend: Backend, health: Health, lease: Lease | None, hurry: bool) -> list[str]:
        runner, now = self.runner(backend), datetime.now(UTC)
        tail = log_tail(runner, backend)
        if backend.healthy_at is None:
            # It never answered: whoever wants it decides, and nothing tries for ever meanwhile.
            seconds = self.policy.start_timeout_seconds
            what = "ended while it started" if health != "silent" else f"is not up after {seconds:.0f} s"
            message = f"the model server {backend.id} {what}{tail}"
            runner.stop(backend, kill=True)
            self._observe(backend, lease, state="failed", message=message)
            return [f"{backend.endpoint}: {message}"]
        if backend.retry_at is not None and backend.retry_at > now and not hurry:
            return []
        self._admit(backend, lease)
        restarts = backend.restarts + 1
        if restarts > self.policy.max_restarts:
            message = f"{GAVE_UP}: {backend.id} was started again {backend.restarts} times and was {health} again{tail}"
            runner.stop(backend, kill=True)
            self._observe(backend, lease, state="failed", message=message, url="", pid=None, pid_started=None)
            self._hold(backend.endpoint, f"{message}\nSay what it shall serve once more (llmops deploy) to try again")
            return [f"{backend.endpoint}: {message}"]
        pause = min(LONGEST_PAUSE, timedelta(seconds=5 * 2 ** (restarts - 1)))
        # Before it is started: a start that takes this process with it counts too.
        self._observe(backend, lease, restarts=restarts, retry_at=now + pause)
        runner.stop(backend, kill=True)
        self._start(replace(backend, url=""), lease)
        return [_started(backend, health)]

    def end(self, backend: Backend, endpoint: Endpoint | None, lease: Lease | None) -> list[str]:
        """One look at a server that is to go: drained, then asked to end, then killed; forgotten once it is gone."""
        runner, state, age = self.runner(backend), backend.state, _age(backend)
        if state not in ("draining", "stopping"):
            self._observe(backend, lease, "gone", state="draining")
            state, age = "draining", 0.0
        if state == "draining":
            if age < self.policy.drain_seconds and not self.drained(endpoint, backend.id):
                return []
            self._observe(backend, lease, "gone", state="stopping")
            age = 0.0
        kill = age > self.policy.stop_timeout_seconds
        left = runner.stop(backend, kill=kill)
        if not left:
            if self.catalog.remove_backend(backend.id, "reconciler", lease, expected_wanted="gone"):
                return [f"stopped {backend.id}, which {backend.endpoint} does not route to"]
            return []
        if age > self.policy.stop_timeout_seconds + KILL_SECONDS:
            message = f"a model server does not end, even when killed: {', '.join(left)} is still there"
            if backend.message != message:
                self._observe(backend, lease, "gone", message=message)
                return [f"{backend.id}: {message}"]
        return []

    def _note_fault(self, backend: Backend, message: str, lease: Lease | None) -> list[str]:
        """Note what kept a server from being as it is wanted; said once, as long as it stays the same."""
        state = "failed" if backend.healthy_at is None else "unhealthy"
        if backend.wanted == "gone":
            state = "stopping"
        self._observe(backend, lease, state=state, message=message)
        return [f"{backend.endpoint}: {message}"] if (backend.state, backend.message) != (state, message) else []

    def _note(self, backend: Backend, lease: Lease | None) -> None:
        names = ("url", "pid", "pid_started", "state", "log_path")
        self._observe(backend, lease, message="", **{name: getattr(backend, name) for name in names})

    def _observe(self, backend: Backend, lease: Lease | None, wanted: Wanted | None = None, **values: object) -> None:
        self.catalog.observe_backend(backend.id, lease, expected_wanted=wanted, **values)

    def _is_held(self, name: str) -> bool:
        endpoint = self._endpoint(name)
        return endpoint is not None and endpoint.message.startswith(NOT_STARTED)

    def _hold(self, name: str, message: str) -> None:
        """Have an endpoint say why a server of it stays down."""
        endpoint = self._endpoint(name)
        if endpoint is not None and endpoint.state in ("live", "failed") and endpoint.message != message:
            known = {"expected_revision": endpoint.revision, "expected_state": endpoint.state}
            self.catalog.update_endpoint(name, state="failed", message=message, **known)

    def _let_go(self, name: str) -> None:
        endpoint = self._endpoint(name)
        if endpoint is not None and endpoint.state == "failed":
            known = {"expected_revision": endpoint.revision, "expected_state": "failed"}
            self.catalog.update_endpoint(name, state="live", message="", **known)


QUESTION = "안녕하세요"


def routed_to(endpoint: Endpoint) -> set[str]:
    """The ids of the backends that an endpoint's users, or copies of their requests, are sent to."""
    return {id for route in endpoint.routes for id in backends_of(route)}


def replicas_of(route: dict[str, object]) -> list[str]:
    """The model servers of a route: all that share its users, of which there is one where it does not say."""
    several = route.get("backend_ids")
    return [str(id) for id in several] if isinstance(several, list) else [str(route["backend_id"])]


def backends_of(route: dict[str, object]) -> list[str]:
    """The backends of a route: its model servers, and what finds passages for them, needed as long as they are."""
    ids = replicas_of(route)
    return [*ids, str(route["retriever"])] if route.get("retriever") else ids


def log_tail(runner: Runner, backend: Backend) -> str:
    """The end of a server's log as the end of a message; empty where there is none."""
    try:
        tail = runner.logs(backend)
    except ServerError:
        return ""
    return f"; its log {backend.log_path or ''} ends with:\n{tail}".replace("log  ends", "log ends") if tail else ""


def _started(backend: Backend, health: str) -> str:
    return f"started {backend.id} of {backend.endpoint} again: it was {health}"


def _age(backend: Backend) -> float:
    """Seconds since a backend has its state; 0 where nobody noted it."""
    return (datetime.now(UTC) - backend.changed_at).total_seconds() if backend.changed_at else 0.0
