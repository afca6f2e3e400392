"""Model servers that somebody else runs: an OpenAI-compatible address of vLLM, KServe or a router before many."""

from dataclasses import replace

from resources.backends.completions import authorization, health_page
from resources.backends.protocol import Health, Record, ServerError
from resources.catalog import Backend


class UrlServers:
    """Knows the address alone: starting takes note of it, stopping forgets it."""

    def start(self, backend: Backend, record: Record) -> Backend:
        url = backend.runtime.get("url")
        if not url:
            raise ServerError(f"{backend.id} has no address: write runtime.url")
        authorization(backend)
        known = replace(backend, url=str(url).rstrip("/").removesuffix("/v1"), pid=None, pid_started=None)
        known = replace(known, state="starting", log_path=None)
        record(known)
        return known

    def observe(self, backend: Backend, timeout: float = 2.0) -> Health:
        """Its list of models, which every OpenAI-compatible server has; not all have a health page. It is never gone:
        nobody here could start it again."""
        if not backend.url:
            return "gone"
        return health_page(f"{backend.url}/v1/models", timeout, authorization(backend))

    def stop(self, backend: Backend, *, kill: bool = False) -> list[str]:
        return []

    def logs(self, backend: Backend, lines: int = 15) -> str:
        return ""
