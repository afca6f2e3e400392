"""The asset of usage: what an endpoint and its improvements cost, and what became better."""

import hashlib
import json
from dataclasses import asdict

import dagster as dg

from llmops_assets import plots
from llmops_assets.partitions import endpoints
from llmops_assets.specs.policy import Policy
from llmops_assets.usage import report
from llmops_assets.usage.regression import growth, pass_rates, plot
from llmops_assets.usage.spending import Books, improvements, spending_by
from resources.catalog import Catalog
from resources.records import Records


@dg.asset(
    group_name="serving",
    partitions_def=endpoints,
    deps=["deployment"],
    kinds={"python"},
    owners=["team:ml"],
    code_version="1",
    description="What an endpoint used by day, and what each of its improvements cost by point of rating, failed "
    "candidates included, with the interval of the gain, at the policy's prices. And "
    "how its suite of confirmed failures grows, with what each model passes of it.",
)
def usage_report(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    policy: dg.ResourceParam[Policy],
) -> dg.MaterializeResult:
    name, prices = context.partition_key, policy.prices
    books = Books(catalog, records, prices)
    days = [row for row in spending_by(books, ("day", "endpoint")) if row["endpoint"] == name]
    found = improvements(books, name)
    rows = [dg.TableRecord(row) for row in report.table(found, prices.currency)]
    facts: dict[str, object] = {
        "requests": sum(row["requests"] for row in days),
        "tokens": sum(row["tokens"] for row in days),
        "minutes of people": sum(row["human_minutes"] for row in days),
        f"cost ({prices.currency})": sum(row["cost"] for row in days),
        "improvements": dg.MetadataValue.table(rows) if rows else "none was promoted",
    }
    if days or found:
        picture = report.by_day(days, found, prices.currency)
        facts["plot"] = dg.MetadataValue.md(plots.png_markdown(picture, "usage and prices"))
    suites = growth(catalog, records, name)
    passed = pass_rates(catalog, records, suites)
    if suites:
        facts["regression suite"] = dg.MetadataValue.md(plots.png_markdown(plot(suites, passed), "regression suite"))
        facts["items of the regression suite"] = suites[-1].items
    if passed:
        facts["passed of the regression suite"] = passed[-1].share
    content = json.dumps([days, [asdict(one) for one in found]], sort_keys=True, default=str)
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    return dg.MaterializeResult(metadata=facts, data_version=dg.DataVersion(version))
