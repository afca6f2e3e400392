"""`llmops retrain …`: rules by which recipes are trained anew, and what they ask for."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, out, print_json, show, wiring

app = typer.Typer(help="Rules by which recipes are trained anew.", no_args_is_help=True)


@app.command("set")
def set_(file: Annotated[Path, typer.Argument(help="YAML of a rule (docs/traffic.md).", exists=True)]) -> None:
    """Write a rule, in the place of one of that name. It holds for what comes from now on.

    Example: `llmops retrain set retrain-desk.yaml`
    """
    from llmops_assets.operations.retrainings import set_rule
    from llmops_assets.operations.specs import load_checked
    from llmops_assets.specs.retraining import RetrainingRule

    rule = load_checked(wiring(), file, RetrainingRule)
    is_new = set_rule(wiring(), actor(), rule)
    out.print(f"rule {rule.name} {'holds from now on' if is_new else 'is as it was'}")


@app.command("list")
def list_(json: Json = False) -> None:
    """List the rules, what each asks for as things are, and what was asked for.

    Example: `llmops retrain list`
    """
    from llmops_assets.operations.retrainings import preview

    found, made = preview(wiring()), wiring().catalog.retrainings.made()
    if json:
        print_json({"rules": [vars(one) for one in found], "made": [vars(one) for one in made]})
        return
    rows = [(one.rule, "due" if one.is_due else "held" if one.is_held else "-", one.reason) for one in found]
    show("rules of retraining", ["rule", "", "reason"], rows)
    if made:
        columns = ["at", "rule", "training", "reason"]
        show("asked for", columns,
             [(f"{m.at:%Y-%m-%d %H:%M}", m.rule, f"{m.dataset}|{m.recipe}", m.reason) for m in made])  # fmt: skip


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Name of the rule.")]) -> None:
    """Take a rule away; what it asked for goes on.

    Example: `llmops retrain remove desk`
    """
    from llmops_assets.operations.retrainings import remove_rule

    remove_rule(wiring(), actor(), name)
    out.print(f"rule {name} was removed")


@app.command()
def check(json: Json = False) -> None:
    """Ask for what is due now, as the sensor does from time to time.

    Example: `llmops retrain check`
    """
    from llmops_assets.operations.retrainings import request_due

    found = request_due(wiring(), actor())
    if json:
        print_json([vars(one) for one in found])
        return
    for one in found:
        out.print(f"{one.rule}: {f'asked for {one.dataset}|{one.recipe}: ' if one.is_due else ''}{one.reason}")
