"""Gathers what a dossier tells from records, catalog, registry and the log of checks; it decides nothing."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from llmops_assets.evaluation.gate import judge_gate
from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.records.evaluation import Metric
from llmops_assets.records.registry import ParityRecord
from llmops_assets.registry.card import limits
from llmops_assets.registry.dossier.changes import changes
from llmops_assets.registry.dossier.content import Dossier, Fact, Gap, Section, Source, when
from llmops_assets.registry.dossier.monitoring import monitoring
from llmops_assets.registry.dossier.sources import Lineage, Sources
from llmops_assets.registry.licences import base_license
from llmops_assets.registry.lineage import code_version
from llmops_assets.registry.transition import parity_key
from llmops_assets.specs.training import TrainJobSpec
from resources.catalog import Endpoint, NotFound
from resources.catalog.erasures import affected, erasures
from resources.catalog.statements import ModelStatement

CHECKED = ("training_plan", "adapter", "merged_model", "evaluation", "registered_model")
CHECKED_DATA = ("dataset", "quality_report", "clean_dataset", "splits", "contamination")
UNKNOWN = "?"


def collect(ref: str, sources: Sources, statements: Mapping[str, ModelStatement], at: datetime) -> Dossier:
    """The dossier of a version of the registry, `at` a moment; statements: by gap, the last that holds for it.

    Raises UnknownModel for a version that is not there.
    """
    version = sources.tracking.version(ref)
    line = Lineage(version, sources.tracking.model(ref), sources)
    served = [e for e in sources.catalog.endpoints() if any(r["model_ref"] == version.ref for r in e.routes)]

    def section(name: str, facts: Iterator[Fact], *gaps: str) -> Section:
        return Section(name, tuple(facts), tuple(Gap(gap, statements.get(gap)) for gap in gaps))

    # What was trained elsewhere, nobody here knows the data of.
    base_gap = ("base_data",) if line.chain and line.chain[-1].base is not None else ()
    return Dossier(
        version.ref,
        at,
        code_version(),
        (
            section("general", _general(line, served), "provider", "intended_purpose"),
            section("data", _data(line), "data_origin", "data_bias", *base_gap),
            section("personal", _personal(line)),
            section("training", _training(line), "design_choices"),
            section("evaluation", _evaluation(line), "metric_choice"),
            section("limits", _limits(line), "misuse"),
            section("oversight", _oversight(line), "overseer"),
            section("changes", changes(version, sources.tracking)),
            section("monitoring", monitoring(line, served), "monitoring_plan"),
            section("security", _security(line)),
            section("risk", iter(()), "risk_management", "user_notice", "high_impact", "standards"),
        ),
    )


def _general(line: Lineage, served: list[Endpoint]) -> Iterator[Fact]:
    version, registry = line.version, Source("registered_model", line.cell)
    if line.merged is not None:
        merged = Source("merged_model", line.cell)
        values = {"family": line.record.family, "parameters": line.merged.parameters, "job_type": line.record.job_type}
        yield Fact("identity", merged, {"ref": version.ref, "method": version.tags.get("method", UNKNOWN), **values})
        if line.record.scheme is not None:
            values = {"scheme": line.record.scheme, "sha": line.merged.content_hash}
            yield Fact("compressed", Source("quantized_model", line.cell), values)
    else:
        yield Fact("superseded", registry, {"cell": line.cell, "card": line.record.card})
    yield Fact("registered", registry, {"at": when(version.created_at), "state": version.state})
    yield Fact("summary", registry, {"text": version.description})
    base = version.tags.get("base")
    if base:
        values = {
            "ref": base,
            "license": base_license(line.sources.catalog, line.sources.tracking, base) or UNKNOWN,
            "sha": version.tags.get("base_hash", UNKNOWN),
        }
        yield Fact("base", Source("training_plan", line.cell), values)
    elif base == "":
        yield Fact("no_base", Source("training_plan", line.cell))
    for endpoint in served:
        total = sum(route["weight"] for route in endpoint.routes) or 1
        share = sum(r["weight"] for r in endpoint.routes if r["model_ref"] == version.ref) / total
        engine = str(endpoint.spec.engine)
        yield Fact(
            "served",
            Source("deployment", endpoint.name),
            {"endpoint": endpoint.name, "share": share, "engine": engine},
        )
    if not served:
        yield Fact("not_served", Source("catalog: endpoints"))


def _data(line: Lineage) -> Iterator[Fact]:
    records = line.sources.records
    for number, key in enumerate(line.datasets):
        name, source = "dataset" if number == 0 else "dataset_base", Source("catalog: datasets", key)
        try:
            spec = line.sources.catalog.dataset(key)
        except NotFound:
            yield Fact(name, source, {"key": key, "type": UNKNOWN, "owner": UNKNOWN, "license": UNKNOWN})
        else:
            values = {"key": key, "type": spec.type, "owner": spec.owner, "license": spec.license or UNKNOWN}
            yield Fact(name, source, values)
            yield Fact("dataset_description", source, {"text": spec.description.strip()})
            if spec.derived_from:
                yield Fact("derived", source, {"keys": ", ".join(spec.derived_from)})
        if (read := records.find(DatasetRecord, key)) is not None:
            source = Source("dataset", key)
            values = {"rows": read.rows, "bytes": read.source_bytes, "refused": read.quarantined}
            yield Fact("read", source, values)
            if read.left_out:
                files = "; ".join(f"{name}: {why}" for name, why in read.left_out.items())
                yield Fact("left_out", source, {"files": files})
        if (quality := records.find(QualityRecord, key)) is not None:
            values = {"exact": quality.exact_duplicates, "near": quality.near_duplicates, "toxic": quality.toxic_rows}
            yield Fact("quality", Source("quality_report", key), {**values, "score": quality.score_mean})
        if (clean := records.find(CleanRecord, key)) is not None:
            values = {"counts": _counts(clean.dropped_by_reason), "rows": clean.rows}
            yield Fact("dropped", Source("clean_dataset", key), values)
        if (splits := records.find(SplitsRecord, key)) is not None:
            sizes = {name: splits.rows.get(name, 0) for name in ("train", "validation", "test")}
            values = {**sizes, "seed": splits.seed, "sha": splits.data_hash}
            yield Fact("splits", Source("splits", key), values)
        yield from _checks(line, key, CHECKED_DATA)


def _checks(line: Lineage, partition: str, assets: tuple[str, ...]) -> Iterator[Fact]:
    checks = line.sources.run_log.checks(partition, assets)
    for asset in assets:
        mine = [check for check in checks if check.asset == asset]
        if mine:
            passed = sum(check.passed for check in mine)
            values = {"asset": asset, "passed": passed, "n": len(mine)}
            yield Fact("checks", Source(asset, partition), values)
        for check in mine:
            if not check.passed:
                source = Source(asset, partition, check.name)
                yield Fact("check_failed", source, {"name": check.name, "text": check.description})


def _personal(line: Lineage) -> Iterator[Fact]:
    records, catalog = line.sources.records, line.sources.catalog
    for key in line.datasets:
        clean, quality = records.find(CleanRecord, key), records.find(QualityRecord, key)
        if clean is not None:
            values = {"key": key, "counts": _counts(clean.masked_by_type)}
            detector = quality.detector if quality is not None else ""
            yield Fact("masked", Source("clean_dataset", key), {**values, "detector": detector or UNKNOWN})
    names = {key.partition("@")[0] for key in line.datasets}
    concerning = [one for one in erasures(catalog) if one.name in names]
    for one in concerning:
        done = ", ".join(f"{old} → {new}" for old, new in one.versions.items() if new) or UNKNOWN
        values = {"id": one.id, "state": one.state, "reason": one.reason, "affected": done}
        yield Fact("erasures", Source("catalog: erasures", str(one.id)), values)
    if not concerning:
        yield Fact("no_erasures", Source("catalog: erasures"))
    for one in affected(catalog):
        if one.model_ref == line.version.ref or one.content_hash == line.record.content_hash:
            yield Fact("erasure_affects", Source("catalog: affected_models", one.cell), {"id": one.erasure})


def _training(line: Lineage) -> Iterator[Fact]:
    plan, adapter = line.plan, line.adapter
    if plan is not None and adapter is not None:
        source, settings = Source("training_plan", line.cell), TrainJobSpec.model_validate(plan.spec).hyperparams
        values = {
            "recipe": line.record.recipe,
            "steps": adapter.steps,
            "lr": settings.lr,
            "batch": settings.batch_size,
            "accumulation": settings.gradient_accumulation_steps,
            "length": settings.max_seq_len,
            "precision": plan.precision,
            "seed": settings.seed,
        }
        yield Fact("recipe", source, values)
        rows = plan.rows.get("train", 0)
        yield Fact("tokens", source, {"tokens": plan.tokens, "trainable": plan.trainable_tokens, "rows": rows})
        if line.merged is not None:
            # No more than the epochs have, and no more than fits into the steps that were made.
            places = adapter.steps * settings.batch_size * settings.gradient_accumulation_steps * settings.max_seq_len
            flops = 6.0 * line.merged.parameters * min(plan.tokens * settings.num_epochs, places)
            values = {"flops": flops, "seconds": adapter.seconds, "device": plan.device}
            yield Fact("compute", Source("adapter", line.cell), values)
        yield Fact("loss", Source("adapter", line.cell), {"first": adapter.first_loss, "last": adapter.last_loss})
    tags = line.version.tags
    values = {"code": tags.get("code", UNKNOWN), "image": tags.get("image", UNKNOWN)}
    yield Fact("made_by", Source("registered_model", line.cell), values)
    yield from _checks(line, line.cell, CHECKED[:3])


def _evaluation(line: Lineage) -> Iterator[Fact]:
    record, source = line.evaluation, Source("evaluation", line.cell)
    yield Fact("gate", Source("evaluation", line.cell, "accuracy_gate"), {"text": line.version.tags.get("gate", "")})
    if record is None:
        return
    for metric in record.metrics:
        yield Fact("metric", source, _metric(metric))
    for category, metric in record.by_category.items():
        yield Fact("metric", source, {**_metric(metric), "suite": f"{metric.suite}: {category}"})
    for one in record.differences:
        yield Fact("difference", source, one.model_dump(include={*one.__class__.model_fields}))
    for suite, share in record.leaked.items():
        yield Fact("leaked", source, {"suite": suite, "share": share})
    asked = sum(record.items.values())
    cut = {"empty": record.empty_answers, "cut": record.length_truncated, "refusals": record.refusals, "asked": asked}
    yield Fact("answers", source, cut)
    parity = line.sources.records.find(ParityRecord, parity_key(line.record))
    if parity is not None and parity.model_hash == line.record.content_hash:
        yield Fact("parity", Source("parity", parity_key(line.record)), {"text": parity.explanation})
    yield from _checks(line, line.cell, CHECKED[3:])


def _metric(metric: Metric) -> dict[str, object]:
    known = metric.low is not None and metric.high is not None
    interval = f" (95 %: {metric.low:.4g} – {metric.high:.4g})" if known else ""
    shown = {"suite": metric.suite, "name": metric.name, "value": metric.value, "n": metric.n, "model": metric.model}
    return {**shown, "interval": interval}


def _limits(line: Lineage) -> Iterator[Fact]:
    if line.plan is not None and line.evaluation is not None:
        bound = judge_gate(line.evaluation, line.sources.policy.gates[line.record.job_type]).bound
        for text in limits(TrainJobSpec.model_validate(line.plan.spec), line.evaluation, bound):
            yield Fact("limit", Source("evaluation", line.cell), {"text": text})


def _oversight(line: Lineage) -> Iterator[Fact]:
    catalog, ref = line.sources.catalog, line.version.ref
    lines = [*catalog.audit_of(line.cell), *catalog.audit_of(ref)]
    for step in sorted({one["id"]: one for one in lines}.values(), key=lambda one: one["id"]):
        values = {"action": step["action"], "actor": step["actor"], "at": when(step["at"])}
        yield Fact("step", Source("audit", str(step["id"])), values)
    for test in reversed(catalog.experiments()):
        if ref in (test.spec.control, test.spec.treatment):
            values = {
                "name": test.name,
                "control": test.spec.control,
                "treatment": test.spec.treatment,
                "endpoint": test.endpoint,
                "decision": test.decision or test.state,
                "reason": test.reason or "",
            }
            yield Fact("experiment", Source("ab_report", test.name), values)


def _security(line: Lineage) -> Iterator[Fact]:
    yield Fact("weights", Source("registered_model", line.cell), {"sha": line.record.content_hash})
    head = line.sources.catalog.audit_head()
    yield Fact("audit_chain", Source("audit"), {"lines": head.lines, "sha": head.sha256})
    mark = line.version.tags.get("watermark")
    if mark:
        yield Fact("watermark", Source("training_plan", line.cell), {"text": mark})


def _counts(by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in by_name.items() if count) or "0"
