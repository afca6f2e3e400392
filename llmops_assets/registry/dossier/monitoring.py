"""What a dossier tells of a version in use."""

from collections.abc import Iterator, Sequence

from llmops_assets.records.serving import DriftRecord
from llmops_assets.registry.dossier.content import Fact, Source, when
from llmops_assets.registry.dossier.sources import Lineage
from resources.catalog import Catalog, Endpoint

INCIDENTS = ("model.affected", "model.archive", "experiment.drop")
FAILED_DEPLOYMENT = "deploy.failed"


def monitoring(line: Lineage, served: Sequence[Endpoint]) -> Iterator[Fact]:
    """What came of serving a version: drift, requests that were refused, incidents."""
    for endpoint in served:
        drift = line.sources.records.find(DriftRecord, endpoint.name)
        if drift is not None and drift.model_ref == line.version.ref:
            values = {"endpoint": endpoint.name, "requests": drift.requests, "drifted": ", ".join(drift.drifted) or "–"}
            yield Fact("drift", Source("drift_report", endpoint.name), values)
    catalog = line.sources.catalog
    for endpoint in served:
        yield refused_at(catalog, endpoint.name)
    lines = [*catalog.audit_of(line.version.ref), *catalog.audit_of(line.cell)]
    found = [one for one in lines if one["action"] in INCIDENTS]
    for endpoint in served:
        found += [one for one in catalog.audit_of(endpoint.name) if one["action"] == FAILED_DEPLOYMENT]
    for one in sorted({one["id"]: one for one in found}.values(), key=lambda one: one["id"]):
        text = ", ".join(f"{key}: {value}" for key, value in (one["detail"] or {}).items())
        values = {"action": one["action"], "at": when(one["at"]), "text": text}
        yield Fact("incident", Source("audit", str(one["id"])), values)
    if not found:
        yield Fact("no_incidents", Source("audit"))


def refused_at(catalog: Catalog, endpoint: str) -> Fact:
    """What is on record of requests to an endpoint that reached no model: why, how many, of how many callers."""
    source = Source("catalog: refusals", endpoint)
    reasons = catalog.refusals.by(["reason"], endpoint=endpoint)
    if not reasons:
        return Fact("no_refusals", source, {"endpoint": endpoint})
    callers = sum(row["key"] != "" for row in catalog.refusals.by(["key"], endpoint=endpoint))
    values = {
        "endpoint": endpoint,
        "requests": sum(row["requests"] for row in reasons),
        "reasons": ", ".join(f"{row['reason']} {row['requests']:,}" for row in reasons),
        "callers": callers,
    }
    return Fact("refused", source, values)
