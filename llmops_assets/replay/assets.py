"""The asset of a replay: what an endpoint's users asked lately, asked of a candidate before anybody gets it."""

import hashlib
import json
from collections.abc import Sequence

import dagster as dg

from llmops_assets.evaluation import answers as questions
from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.items import Item
from llmops_assets.partitions import endpoints
from llmops_assets.records.replay import ReplayRecord
from llmops_assets.replay import verdicts
from llmops_assets.replay.carry_out import replay
from llmops_assets.replay.compare import Answer
from llmops_assets.replay.sample import Asked
from llmops_assets.specs.policy import Policy
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer

BATCH = 8
TIMED = 8


class ReplayConfig(dg.Config):
    """Which model is asked."""

    model_ref: str | None = None
    """NAME@VERSION or NAME@ALIAS of the registry; left out, the model that the endpoint is wanted to serve."""


@dg.asset(
    group_name="serving",
    partitions_def=endpoints,
    # By their common dimension: the days of an endpoint are its own.
    deps=["traffic"],
    kinds={"python", "huggingface"},
    owners=["team:ml"],
    code_version="1",
    description="Consented, masked requests of an endpoint's last days, asked of a candidate offline and compared with "
    "what was answered then: the share of better answers with an always-valid interval, the answers that changed most, "
    "refusals, length, latency, personal data. Nobody is exposed, no tool is called, and a budget of tokens is kept. "
    "With `serving.replay.required` of the policy a deployment asks for it before it gives a model users.",
)
def replay_report(
    context: dg.AssetExecutionContext,
    config: ReplayConfig,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    artifacts: dg.ResourceParam[Artifacts],
    tracking: dg.ResourceParam[Tracking],
    trainer: dg.ResourceParam[Trainer],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    name = context.partition_key
    spec = catalog.endpoint(name).spec
    model = tracking.model(tracking.version(config.model_ref or spec.model_ref).ref)

    def ask(asked: Sequence[Asked], max_new_tokens: int) -> list[Answer]:
        items = [Item(one.request_id, "replay", "traffic", one.messages, ()) for one in asked]
        found, result = questions.ask(
            trainer,
            context,
            Model(model.path, model.content_hash),
            items,
            artifacts.path("answers"),
            max_new_tokens=max_new_tokens,
            batch_size=BATCH,
            latency_items=min(TIMED, len(items)),
        )
        seconds = {row["id"]: float(row["seconds"]) for row in result.get("latency") or []}
        return [Answer(a.text, a.tokens, a.finish_reason, seconds.get(a.key)) for a in found]

    record = replay(model, spec, artifacts, policy, ask, artifacts.path("answers"))
    records.save(name, record)
    verdict = verdicts.replayed(record, policy.serving.replay)
    rows = [dg.TableRecord(row) for row in rows_of(record)]
    content = record.model_dump(mode="json", exclude={"at", "latency_ms_now"})
    return dg.MaterializeResult(
        metadata={
            "verdict": verdict.text,
            "answers that changed most": dg.MetadataValue.table(rows) if rows else "none",
            "left out": dg.MetadataValue.json(record.left_out),
            **{k.replace("_", " "): v for k, v in record.model_dump(exclude=_SHOWN_ELSEWHERE).items() if v is not None},
        },
        data_version=dg.DataVersion(hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]),
    )


_SHOWN_ELSEWHERE = {"changed_most", "left_out", "rules", "at", "days", "judged_by", "models_then", "endpoint"}


def rows_of(record: ReplayRecord) -> list[dict[str, str]]:
    """The answers that changed most, as rows of a table."""
    words = {0.0: "worse", 0.5: "as good", 1.0: "better"}
    return [
        {
            "question": one.question,
            "then": one.then,
            "now": one.now,
            "it is": words.get(one.win, f"{one.win:g}"),
            "judged by": one.judged_by,
            "changed": f"{one.change:.0%}",
        }
        for one in record.changed_most
    ]
