"""The model servers of an installation: wanted, waited for and asked by whoever deploys, kept by a reconciler."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends import completions, reconcile
from resources.backends.completions import Answer, answer_of
from resources.backends.local import LocalServers
from resources.backends.protocol import (
    RETRIEVER,
    EngineMissing,
    Health,
    Runner,
    ServedFilesChanged,
    ServerError,
    new_backend,
)
from resources.backends.reconcile import Drained, Reconciler, log_tail
from resources.backends.url import UrlServers
from resources.catalog import Backend, Busy, Catalog, Lease
from resources.content import ContentChanged
from resources.server_guard import is_same_server, verify_model

__all__ = [
    "Answer",
    "EngineMissing",
    "Health",
    "ModelServers",
    "ServedFilesChanged",
    "ServerError",
    "answer_of",
    "new_backend",
]

LEASE = "model servers"
"""The lease of whoever reconciles."""
_LOCK_SECONDS = 4 * 3600.0
"""As long as no rollout takes: it loads a model, waits for it, and drains another."""
_LOOK_SECONDS = 0.1


class ModelServers:
    """The model servers on record in a catalog: a backend each, run as its kind says.

    `state_dir` and what follows is for local ones, a process and a folder there each: `engines` holds the environments
    of engines that have their own (``<engines>/vllm``), `threads` caps the CPU threads of one server. Deadlines and the
    size of the key-value cache come from the policy. `runners` makes what runs the other kinds, by kind, when one is
    first asked for. `drained` tells whether the gateway is done with a backend. With `acts` off, nothing is started or
    stopped from here but probes: a reconciler that runs elsewhere does it.
    """

    def __init__(
        self,
        catalog: Catalog,
        state_dir: Path | str,
        *,
        policy: ServingPolicy,
        engines: Path | str = ".engines",
        host: str = "127.0.0.1",
        threads: int | None = None,
        python: str = sys.executable,
        runners: Mapping[str, Callable[[], Runner]] | None = None,
        drained: Drained = lambda endpoint, id: True,
        acts: bool = True,
        retrieval: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.catalog = catalog
        self.policy = policy
        self.acts = acts
        self._drained = drained
        self.local = LocalServers(
            Path(state_dir).absolute(),
            policy=policy,
            engines=Path(engines).absolute(),
            host=host,
            threads=threads,
            python=python,
            retrieval=retrieval,
            resolved=catalog.paths.resolved,
        )
        self._makers: dict[str, Callable[[], Runner]] = dict(runners or {})
        self._runners: dict[str, Runner] = {"local": self.local, "url": UrlServers()}

    @property
    def state_dir(self) -> Path:
        return self.local.state_dir

    @cached_property
    def lease(self) -> Lease:
        """The lease that we hold while we reconcile."""
        return Lease(self.catalog.database, LEASE)

    @property
    def reconciler(self) -> Reconciler:
        """What acts once the lease is ours."""
        return Reconciler(self.catalog, self.policy, self.runner, self._if_free, self._drained)

    def runner(self, backend: Backend) -> Runner:
        """What runs a backend; EngineMissing where this installation has nothing of its kind."""
        kind = backend.kind
        if kind not in self._runners:
            if kind not in self._makers:
                known = ", ".join(sorted({*self._runners, *self._makers}))
                raise EngineMissing(f"nothing here runs model servers of the kind {kind!r}: there are {known}")
            self._runners[kind] = self._makers[kind]()
        return self._runners[kind]

    @contextmanager
    def exclusively(self, endpoint: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock of an endpoint's servers, against every machine that shares the catalog.

        Yields False when `wait` is off and another process holds it; raises `Busy` when it is held for hours.
        """
        with ExitStack() as stack:
            try:
                held = self.catalog.database.lock(f"endpoint {endpoint}", timeout=_LOCK_SECONDS if wait else 0.0)
                stack.enter_context(held)
            except Busy:
                if wait:
                    raise
                yield False
                return
            yield True

    def _if_free(self, endpoint: str) -> AbstractContextManager[bool]:
        return self.exclusively(endpoint, wait=False)

    # what is wanted, and waiting for it

    def want(self, backend: Backend) -> None:
        """Say that a server shall run; whoever reconciles starts it. `wait_observed` tells when it answers."""
        known = self.catalog.find_backend(backend.id)
        self.catalog.want_backend(backend, anew=known is not None and not is_same_server(known, backend))

    def wait_observed(self, id: str) -> Answer:
        """Wait until a wanted server was observed to be healthy, and return a completion of it.

        Where no reconciler is at work this does its work meanwhile. Raises ServerError when the server ends, does not
        come up in time, or answers anything but a completion.
        """
        seconds = self.policy.start_timeout_seconds
        # Time for another's look, and for a lease whose holder was cut off.
        until = time.monotonic() + seconds + 2 * self.lease.seconds
        while True:
            backend = self.catalog.find_backend(id)
            if backend is None or backend.wanted == "gone":
                raise ServerError(f"the model server {id} is no longer wanted: somebody stopped it meanwhile")
            if backend.state == "healthy":
                if backend.engine == RETRIEVER:
                    return Answer("", 0, 0.0)
                return self.complete(backend, _question(), timeout=60.0)
            if backend.state == "failed":
                raise ServerError(backend.message)
            if time.monotonic() > until:
                who = self.lease.holder()
                at_work = f"the reconciler ({who}) is at work" if who else "no reconciler is at work"
                reason = f": {backend.message}" if backend.message else ""
                raise ServerError(
                    f"the model server {id} is {backend.state} after {seconds:.0f} s and {at_work}{reason}"
                    f"{log_tail(self.runner(backend), backend)}"
                )
            if not self.advance(backend.endpoint):
                time.sleep(_LOOK_SECONDS)

    def unwant(self, ids: list[str], warm_until: datetime | None = None) -> None:
        """Say that servers shall be gone, or stay until `warm_until` and then be gone; `wait_gone` tells when."""
        self.catalog.unwant_backends(ids, warm_until=warm_until)

    def wait_gone(self, ids: list[str]) -> list[str]:
        """Wait until unwanted servers are gone; of those that do not go, the reasons.

        They stay on record, and are ended as soon as they can be.
        """
        policy = self.policy
        until = time.monotonic() + policy.drain_seconds + policy.stop_timeout_seconds + 2 * self.lease.seconds
        while True:
            left = [backend for id in ids if (backend := self.catalog.find_backend(id)) is not None]
            stuck = [backend for backend in left if backend.message]
            if len(stuck) == len(left) or time.monotonic() > until:
                return [f"{one.id}: {one.message or f'it is still {one.state}'}" for one in left]
            advanced = [self.advance(name) for name in {backend.endpoint for backend in left}]
            if not any(advanced):
                time.sleep(_LOOK_SECONDS)

    def advance(self, endpoint: str) -> list[str]:
        """One look of a reconciler at an endpoint's servers, where no other is at work; what it did."""
        if not self.acts:
            return []
        with self.lease.held() as ours:
            return self.reconciler.step(endpoint, self.lease, hurry=True) if ours else []

    def reconcile(self, *, wait: bool = True) -> list[str]:
        """Bring all servers to what is wanted; what was done and what failed, a sentence each.

        With `wait` off nothing waits for a model to load: call again to see it healthy. Where another reconciler is at
        work, this only waits for it.
        """
        done: list[str] = []
        until = time.monotonic() + self.policy.start_timeout_seconds + 2 * self.lease.seconds
        while True:
            names = self.reconciler.names()
            for name in names:
                done += self.advance(name)
            if not wait or time.monotonic() > until or all(self.reconciler.is_settled(name) for name in names):
                return done
            time.sleep(_LOOK_SECONDS)

    def suspend(self) -> list[str]:
        """Stop all servers but keep them on record for `reconcile`; what could not be stopped, with its reason."""
        faults: list[str] = []
        until = time.monotonic() + 2 * self.lease.seconds
        while not self.lease.acquire():
            if time.monotonic() > until:
                return [f"another reconciler keeps the model servers running: {self.lease.holder()}"]
            time.sleep(_LOOK_SECONDS)
        try:
            # All are asked before the first is waited for.
            for backend in self.catalog.backends():
                if backend.kind != "url" and backend.state not in ("draining", "stopping"):
                    self.catalog.observe_backend(backend.id, state="stopped")
                faults += self._asked(backend)
            for backend in self.catalog.backends():
                try:
                    self._await_end(backend)
                    self.catalog.observe_backend(backend.id, url="", pid=None, pid_started=None)
                except ServerError as error:
                    faults.append(str(error))
        finally:
            self.lease.release()
        return faults

    def _asked(self, backend: Backend) -> list[str]:
        try:
            self.runner(backend).stop(backend)
        except ServerError as error:
            return [str(error)]
        return []

    # servers that are ours alone: probes

    def start(self, backend: Backend) -> Backend:
        """Put `backend` on record, start it from here and return at once; `wait_healthy` tells when it answers.

        Of `backend`, id, endpoint, model_ref, model_path, engine and runtime count; runtime may hold max_input_tokens,
        max_output_tokens, device (cpu) and dtype (auto). One that runs under this id already is kept.
        """
        runner = self.runner(backend)
        known = self.catalog.find_backend(backend.id)
        if known is not None and runner.observe(known) != "gone" and is_same_server(known, backend):
            return known
        try:
            verify_model(backend)
        except ContentChanged as error:
            raise ServedFilesChanged(str(error)) from error
        running = runner.start(replace(backend, url=known.url if known else ""), self._record)
        self._record(running)
        return running

    def _record(self, backend: Backend) -> None:
        values = {name: value for name, value in vars(backend).items() if name not in ("id", "created_at")}
        if not self.catalog.update_backend(backend.id, **values):
            self.catalog.add_backend(backend)

    @contextmanager
    def probe_server(
        self, id: str, model_ref: str, model_path: str, engine: str, runtime: dict[str, Any]
    ) -> Iterator[Backend]:
        """A server of a model that no endpoint routes to, healthy, for as long as the body takes.

        One at a time under an id; one that was cut off is ended by the next of its id, or by whoever reconciles.
        """
        with self.exclusively(id):
            self.stop(id)
            probe = new_backend(
                id, endpoint=id, model_ref=model_ref, model_path=model_path, engine=engine, runtime=runtime
            )
            try:
                running = self.start(probe)
                self.wait_healthy(running)
                yield running
            finally:
                self.stop(id)

    def wait_healthy(self, backend: Backend, deadline: float | None = None) -> Answer:
        """Wait until a server that was started from here has answered a completion; note it as healthy and return that.

        `deadline` is in seconds, the policy's start timeout by default. Raises ServerError when the process ends, does
        not come up in time, or answers anything but a completion.
        """
        seconds = self.policy.start_timeout_seconds if deadline is None else deadline
        until, pause = time.monotonic() + seconds, 0.05
        while (health := self.health(backend)) != "ok":
            if health == "gone":
                raise ServerError(f"the model server {backend.id} ended while it started{self._tail(backend)}")
            if time.monotonic() > until:
                raise ServerError(f"the model server {backend.id} is not up after {seconds:.0f} s{self._tail(backend)}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        if backend.kind == "local" and self.local.owns_its_port(backend) is False:
            if self.local.process(backend) is None:
                # It said that it was up, and ended on its weights before anybody looked whose port it is.
                raise ServerError(f"the model server {backend.id} ended while it started{self._tail(backend)}")
            raise ServerError(
                f"{backend.url} is answered by another process than the model server {backend.id}: an old server was "
                f"left running there. End it, and deploy again{self._tail(backend)}"
            )
        answer = self.complete(backend, _question(), timeout=max(1.0, until - time.monotonic()))
        self.catalog.observe_backend(backend.id, state="healthy", healthy_at=datetime.now().astimezone())
        return answer

    def stop(self, id: str) -> None:
        """Stop a server and all processes that it started from here, and take it off the record.

        It is asked first, so that requests in flight are answered, and killed after the policy's stop timeout. Raises
        ServerError when something is still there after that: the backend then stays on record as `stopping`. Stopping
        what does not run is no error.
        """
        backend = self.catalog.find_backend(id)
        if backend is None:
            for process in self.local.processes_of(id):
                process.kill()
            return
        self.catalog.unwant_backends([id])
        self.catalog.observe_backend(id, state="stopping")
        self._await_end(backend)
        self.catalog.remove_backend(id)

    def _await_end(self, backend: Backend) -> None:
        """End a server, the gentle way first; ServerError when it does not go."""
        runner, begun, timeout = self.runner(backend), time.monotonic(), self.policy.stop_timeout_seconds
        while left := runner.stop(backend, kill=time.monotonic() - begun > timeout):
            if time.monotonic() - begun > timeout + reconcile.KILL_SECONDS:
                raise ServerError(f"a model server does not end, even when killed: {', '.join(left)} is still there")
            time.sleep(0.05)

    # asking

    def alive(self, backend: Backend) -> bool:
        """Whether the backend runs; another process that was given its id since does not count."""
        return self.health(backend) != "gone"

    def health(self, backend: Backend, timeout: float = 2.0) -> Health:
        """What the backend says of itself: ok, failing (it says so), silent (no answer in time), or gone."""
        return self.runner(backend).observe(backend, timeout)

    def complete(
        self,
        backend: Backend,
        messages: list[dict[str, Any]],
        *,
        max_tokens: int = 16,
        token_ids: bool = False,
        tools: list[dict[str, Any]] | None = None,
        greedy: bool = True,
        timeout: float = 60,
    ) -> Answer:
        """Ask the backend itself, past the gateway, for a greedy completion, or for what a request gets that does not
        say how to sample; raises ServerError when it gives none."""
        more: dict[str, Any] = {"max_tokens": max_tokens, "token_ids": token_ids, "tools": tools, "greedy": greedy}
        try:
            return completions.complete(backend, messages, timeout=timeout, **more)
        except ServerError as error:
            # The log is only looked at where it is needed: of a container it is a call of the engine.
            raise ServerError(f"{error}{self._tail(backend)}") from error

    def prompt_tokens(self, backend: Backend, messages: list[dict[str, Any]]) -> int | None:
        """As many tokens as the backend itself makes of a conversation; None where it does not say. Raises
        ServerError."""
        return completions.prompt_tokens(backend, messages)

    def listed(self, backend: Backend) -> dict[str, Any]:
        """What the backend's list of models says of its model."""
        return completions.listed(backend)

    def _tail(self, backend: Backend) -> str:
        return log_tail(self.runner(backend), backend)


def _question() -> list[dict[str, Any]]:
    return [{"role": "user", "content": "안녕하세요"}]
