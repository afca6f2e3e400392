"""The command `llmops`."""

import llmops_assets.cli.ahead  # noqa: F401

# isort: split
import sys

import typer

from llmops_assets.cli import (
    ab,
    access,
    alerts,
    api_keys,
    audit,
    dataset,
    deploy,
    endpoint,
    engines,
    index,
    keys,
    model,
    prompt,
    retrain,
    review,
    scan,
    spec,
    suite,
    toxicity,
    train,
    user,
    versions,
    watermark,
)
from llmops_assets.cli.at import at
from llmops_assets.cli.backup import backup, restore, verify
from llmops_assets.cli.chat import chat
from llmops_assets.cli.common import guard
from llmops_assets.cli.demo import demo
from llmops_assets.cli.doctor import doctor
from llmops_assets.cli.prune import prune
from llmops_assets.cli.reconciler import reconciler
from llmops_assets.cli.settings import settings
from llmops_assets.cli.tune import tune
from llmops_assets.cli.up import up
from llmops_assets.cli.upgrade import upgrade
from llmops_assets.cli.usage import usage

app = typer.Typer(
    help="From raw instruction data to a served, compared and promoted language model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(demo)
app.command()(up)
app.command()(reconciler)
versions.add_to(dataset.app)
scan.add_to(dataset.app)
toxicity.add_to(dataset.app)
app.add_typer(suite.app, name="suite")
app.add_typer(dataset.app, name="dataset")
app.add_typer(train.app, name="train")
app.add_typer(index.app, name="index")
app.command()(tune)
app.add_typer(spec.app, name="spec")
app.add_typer(model.app, name="model")
app.command("deploy")(deploy.deploy)
app.add_typer(endpoint.app, name="endpoint")
app.command()(chat)
app.add_typer(ab.app, name="ab")
app.add_typer(prompt.app, name="prompt")
app.add_typer(review.app, name="review")
app.add_typer(retrain.app, name="retrain")
app.add_typer(api_keys.app, name="key")
app.add_typer(access.app, name="access")
app.add_typer(user.app, name="user")
app.command()(usage)
app.add_typer(keys.app, name="keys")
app.add_typer(alerts.app, name="alerts")
app.add_typer(audit.app, name="audit")
app.add_typer(watermark.app, name="watermark")
app.add_typer(engines.app, name="engines")
app.command()(prune)
app.command()(settings)
app.command()(backup)
app.command()(restore)
app.command()(verify)
app.command()(upgrade)
app.command()(doctor)
app.command()(at)


def main() -> None:
    """Entry point; the exit code says what happened (see `common.Exit`)."""
    sys.exit(guard(app))
