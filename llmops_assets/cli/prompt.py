"""`llmops prompt …`: prompts with versions, which endpoints put before what their users write."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Json, actor, fail, out, print_json, say, show, wiring

app = typer.Typer(help="Prompts with versions: add, list, show, promote.", no_args_is_help=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Of the prompt: letters, digits, . _ -")],
    file: Annotated[Path, typer.Argument(help="A text (.txt, .md), or messages with role and content (.yaml, .json).")],
    message: Annotated[str, typer.Option(help="What is new in this version.")] = "",
    json: Json = False,
) -> None:
    """Put a new version of a prompt into the registry. Its variables are written {{name}}.

    Example: `llmops prompt add desk greeting.txt --message "Answers in two sentences"`
    """
    import yaml

    from llmops_assets.operations.prompts import add_prompt

    try:
        text = file.read_text(encoding="utf-8")
        template = yaml.safe_load(text) if file.suffix in (".yaml", ".yml", ".json") else text
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"{file} cannot be read: {error}")
    added = add_prompt(wiring(), actor(), name, template, message)
    if json:
        print_json({"name": added.name, "version": added.version})
        return
    say(f"prompt {added.name}, version {added.version}")
    say(f"next: llmops prompt promote {added.name} {added.version} staging")


@app.command("list")
def list_(json: Json = False) -> None:
    """List prompts with their aliases.

    Example: `llmops prompt list`
    """
    from llmops_assets.operations.prompts import list_prompts

    found = list_prompts(wiring())
    if json:
        print_json([{"name": name, "aliases": aliases} for name, aliases in found])
        return
    rows = [(name, ", ".join(f"{alias}: {version}" for alias, version in of.items())) for name, of in found]
    show("prompts", ["prompt", "aliases"], rows)


@app.command("show")
def show_(
    name: Annotated[str, typer.Argument(help="Of the prompt.")],
    json: Json = False,
) -> None:
    """Show the versions of a prompt, newest first.

    Example: `llmops prompt show desk`
    """
    from llmops_assets.operations.prompts import prompt_versions

    found = prompt_versions(wiring(), name)
    if json:
        print_json([{**vars(one), "created_at": one.created_at.isoformat()} for one in found])
        return
    for one in found:
        aliases = f" ({', '.join(one.aliases)})" if one.aliases else ""
        out.print(f"version {one.version}{aliases}, {one.created_at:%Y-%m-%d %H:%M}, {one.author}: {one.message}")
        texts = (
            [one.template] if isinstance(one.template, str) else [f"{m['role']}: {m['content']}" for m in one.template]
        )
        for text in texts:
            out.print(text, markup=False)


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="Of the prompt.")],
    version: Annotated[int, typer.Argument(help="The version.")],
    alias: Annotated[str, typer.Argument(help="Such as staging or production.")],
) -> None:
    """Point an alias at a version: endpoints that name it use this version from now on.

    Example: `llmops prompt promote desk 2 production`
    """
    from llmops_assets.operations.prompts import promote_prompt

    moved = promote_prompt(wiring(), actor(), name, version, alias)
    say(f"{name}@{alias} is version {version}")
    for one in moved:
        say(f"endpoint {one.endpoint} uses {one.prompt}")
