"""Whether a replay lets a model have users: the one on record, or one that its new servers are asked now."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.replay import ReplayRecord
from llmops_assets.replay import verdicts
from llmops_assets.replay.carry_out import replay
from llmops_assets.replay.compare import Answer
from llmops_assets.replay.sample import Asked
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.verdict import Verdict
from resources.artifacts import Artifacts
from resources.catalog import Backend, Catalog
from resources.model_server import ModelServers
from resources.records import Records


def replay_verdict(
    model: RegisteredModelRecord,
    backends: Sequence[Backend],
    spec: DeploymentSpec,
    *,
    catalog: Catalog,
    records: Records,
    artifacts: Artifacts,
    cache: Path,
    policy: Policy,
    servers: ModelServers,
) -> Verdict:
    """Whether what users asked lately speaks against a model that nobody has had yet.

    A way back is never in the way: a model that the endpoint's users had before is not asked. Raises ServerError where
    the new servers do not answer, JudgeError where the policy's judge does not.
    """
    rules = policy.serving.replay
    if not rules.required:
        return Verdict(True, "the policy asks for no replay (serving.replay.required)")
    known = {route["model_ref"] for routes in catalog.phases(spec.endpoint).values() for route in routes}
    if model.ref in known:
        return Verdict(True, f"users of {spec.endpoint} have had {model.ref} already")
    record = records.find(ReplayRecord, spec.endpoint)
    if record is None or not verdicts.is_of(record, model.content_hash, policy, datetime.now(UTC)):
        backend = backends[0]

        def ask(asked: Sequence[Asked], max_new_tokens: int) -> list[Answer]:
            limit = backend.runtime.get("max_output_tokens")
            most = min(max_new_tokens, int(limit)) if limit else max_new_tokens
            return [_answer(servers, backend, one, most) for one in asked]

        record = replay(model, spec, artifacts, policy, ask, cache)
        records.save(spec.endpoint, record)
    return verdicts.replayed(record, rules)


def _answer(servers: ModelServers, backend: Backend, asked: Asked, most: int) -> Answer:
    begun = time.monotonic()
    found = servers.complete(backend, list(asked.messages), max_tokens=most)
    return Answer(found.text or "", found.tokens or 0, found.finish_reason, time.monotonic() - begun)
