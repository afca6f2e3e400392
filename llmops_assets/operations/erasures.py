"""Erasing a person's rows: from every version of a dataset, and from all that was made of them."""

import os
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.erasure.carry_out import carry_out
from llmops_assets.erasure.plan import Plan, Platform, find
from llmops_assets.erasure.residual_scan import Leftover, blank_lines, residual_scan
from llmops_assets.erasure.search import Wanted
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused, Unavailable
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.retrieval import RetrievalIndexRecord
from llmops_assets.records.training import PlanRecord
from llmops_assets.serving.erased_rows import served_affected
from llmops_assets.specs.names import training_key
from llmops_assets.training.erased_rows import learned_nothing_erased
from llmops_assets.verdict import Verdict
from llmops_assets.wiring import Wiring
from resources.catalog import erasures
from resources.event_log import Busy, EventLog, Page, Report
from resources.retrieval.engine import EngineUnavailable
from resources.traffic.spool import spool_keys, spool_root

LOGS = (".log", ".out", ".err")
"""Files that may be open while they are searched: lines in them are blanked in place."""


@dataclass(frozen=True)
class Request:
    """Whose rows are erased, and where: `name` is a dataset's, without a version."""

    name: str
    wanted: Wanted
    everywhere: bool = False
    reason: str = "on request"


def erasure_request(
    name: str, *, texts: Iterable[str] = (), rows: Iterable[str] = (), everywhere: bool = False, reason: str
) -> Request:
    """A request by texts, found in any spelling, and by row ids. Raises Refused where that says too little."""
    try:
        return Request(name, Wanted(texts=tuple(texts), rows=tuple(rows)), everywhere, reason)
    except ValueError as error:
        raise Refused(str(error)) from error


@dataclass(frozen=True)
class Planned:
    """What a request would do; `unfinished` is the erasure of the same request that was cut off, if there is one."""

    plan: Plan
    digest: str
    unfinished: int | None

    @property
    def anything(self) -> bool:
        return self.plan.anything or self.unfinished is not None


@dataclass(frozen=True)
class Erased:
    """What was done. `left` is what could not be removed; `awaited` are versions that the graph has yet to ingest."""

    erasure: erasures.Erasure
    affected: list[erasures.Affected]
    endpoints: dict[str, list[str]]
    removed: dict[str, Any]
    elsewhere: dict[str, int]
    left: list[Leftover]
    awaited: list[str]


def plan_erasure(wiring: Wiring, request: Request) -> Planned:
    """What an erasure would do; nothing is changed.

    Raises Refused when the reason names the person: it is kept on record. NotFound for an unknown dataset.
    """
    if request.wanted.in_text(request.reason):
        raise Refused("--reason holds what is to be forgotten: it is kept on record, so leave the person out of it")
    plan = find(_platform(wiring), request.name, request.wanted, everywhere=request.everywhere)
    digest = request.wanted.digest(_key(wiring.settings.root))
    running = [
        e.id for e in erasures.erasures(wiring.catalog, request.name) if e.request == digest and e.state == "running"
    ]
    return Planned(plan, digest, running[0] if running else None)


def erase(
    wiring: Wiring, actor: str, request: Request, planned: Planned, say: Callable[[str], None] = lambda line: None
) -> Erased:
    """Do what was planned, and look whether anything is left; the same request again completes one that was cut off.

    Raises Unavailable while a run works on what is to be erased.
    """
    authorise(wiring, actor, "dataset.forget")
    platform, plan, catalog = _platform(wiring), planned.plan, wiring.catalog
    log = EventLog(wiring.settings.dagster_home)
    earlier = erasures.erasure(catalog, planned.unfinished).versions if planned.unfinished is not None else {}
    keys = {*plan.versions, *earlier}
    cells = {t.cell for t in plan.trainings} | set(plan.evaluated)
    indexed = [training_key(one.dataset, one.recipe) for one in wiring.records.all(RetrievalIndexRecord)]
    indexed += [intent.key for intent in catalog.intents.open("index")]
    cells |= {cell for cell in indexed if cell.partition("|")[0] in keys}
    try:
        log.refuse_busy(keys | cells)
        erasure = erasures.begin(
            catalog,
            name=request.name,
            request=planned.digest,
            looked_for=request.wanted.described(),
            reason=request.reason,
            actor=actor,
        )
        figures = carry_out(platform, plan, request.wanted, erasure, actor=actor, say=say)
        affected = [one for one in erasures.affected(catalog) if one.erasure == erasure.id]
        figures["runs"] = figures.get("runs", 0) + _clear_pages(wiring, log, keys, cells, affected)
    except (Busy, EngineUnavailable) as error:
        raise Unavailable(str(error)) from error
    _report(wiring, log, plan.endpoints, affected)
    left, figures["files_read"] = _search(wiring, request.wanted)
    if not left:
        erasures.finish(catalog, erasure.id, figures, actor)
    erasure = erasures.erasure(catalog, erasure.id)
    followers = [key for key in erasure.versions.values() if key is not None]
    # One that was cut off may have been ingested between the two calls.
    awaited = [key for key in followers if wiring.records.find(SplitsRecord, key) is None]
    return Erased(erasure, affected, plan.endpoints, figures, plan.elsewhere, left, awaited)


def _clear_pages(
    wiring: Wiring, log: EventLog, keys: set[str], cells: set[str], affected: Iterable[erasures.Affected]
) -> int:
    """Take what Dagster remembers of versions and trainings away; the number of runs that went.

    The key of a version stays a partition where a model of it is still in use: its page, with the failed check, is
    what says that it is affected.
    """
    plans = wiring.records.all(PlanRecord)
    of_versions = {training_key(p.dataset, p.recipe) for p in plans if p.dataset in keys}
    in_use = {one.cell.split("|")[0] for one in affected if _in_use(wiring, one)}
    return log.forget(keys | cells | of_versions, {str(dataset_versions.name): keys - in_use})


def _in_use(wiring: Wiring, one: erasures.Affected) -> bool:
    """Whether a model is in staging or production, or served by an endpoint."""
    if one.model_ref is None:
        return False
    served = {route["model_ref"] for endpoint in wiring.catalog.endpoints() for route in endpoint.routes}
    return one.model_ref in served or bool(wiring.tracking.version(one.model_ref).aliases)


def _report(wiring: Wiring, log: EventLog, endpoints: Iterable[str], affected: Iterable[erasures.Affected]) -> None:
    """Show on the pages of registered models and of endpoints that they are affected, by their own checks."""

    def report(asset: str, check: str, partition: str, verdict: Verdict) -> Report:
        return Report(asset, check, partition, verdict.passed, verdict.text)

    registered = [one for one in affected if one.model_ref is not None]
    log.show(
        Page(
            "registered_model",
            one.cell,
            {
                "model": one.model_ref or "",
                "affected by erasure": one.erasure,
                "why": one.why,
                "what to do": learned_nothing_erased(wiring.catalog, one.cell).text,
            },
        )
        for one in registered
        if _in_use(wiring, one)
    )
    checks = [
        report("registered_model", "no_erased_rows", one.cell, learned_nothing_erased(wiring.catalog, one.cell))
        for one in registered
    ]
    checks += [
        report("deployment", "no_erased_rows_learned", name, served_affected(wiring.catalog, name))
        for name in endpoints
    ]
    log.report(checks)


def _search(wiring: Wiring, wanted: Wanted) -> tuple[list[Leftover], int]:
    """Read every byte of the home folder, and of the artifacts where they lie elsewhere; mend logs on the way."""
    roots = [wiring.settings.root]
    if wiring.artifacts.is_local and not Path(str(wiring.artifacts.root)).is_relative_to(wiring.settings.root):
        roots.append(Path(str(wiring.artifacts.root)))
    spool = spool_root(wiring.settings)
    # What the gateway keeps there is sealed by a key of its own where the installation has none.
    keys = spool_keys(spool, wiring.keys) if spool.exists() else wiring.keys
    left, files = residual_scan(roots, wanted, keys)
    logs = [Path(one.path) for one in left if Path(one.path).suffix in LOGS]
    for path in logs:
        blank_lines(path, wanted)
    return residual_scan(roots, wanted, keys) if logs else (left, files)


def _platform(wiring: Wiring) -> Platform:
    # On an object store there is nothing to erase by this command, and no index either.
    indexes = wiring.indexes if wiring.artifacts.is_local else None
    return Platform(
        wiring.catalog,
        wiring.artifacts,
        wiring.store,
        wiring.records,
        wiring.tracking,
        wiring.policy,
        indexes,
        spool_root(wiring.settings),
    )


def _key(root: Path) -> bytes:
    """The key of the hashes that requests are known by, made once: without it nobody can try numbers against them."""
    path = root / "erasure.key"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
    return path.read_bytes()
