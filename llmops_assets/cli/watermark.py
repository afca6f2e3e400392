"""`llmops watermark …`: whose a model is, asked of the model as it is served."""

import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, fail, hand_out, out, print_json, wiring

app = typer.Typer(help="Marks that show whose a model is: make a key, verify a served model.", no_args_is_help=True)
_AT_ONCE = 4


@app.command()
def key(
    file: Annotated[Path | None, typer.Option("--out", help="Write it here, readable by you alone.")] = None,
) -> None:
    """Make a new key. Whoever has it can mark models and show the marks: keep it as you keep a password.

    Example: `llmops watermark key --out watermark.key`, then `LLMOPS_WATERMARK_KEY_FILE=watermark.key`
    """
    hand_out(secrets.token_hex(32), file, "LLMOPS_WATERMARK_KEY_FILE")


@app.command("show")
def show_(json: Json = False) -> None:
    """Show the commitment to the key in use, which is kept with every model that it marks. It tells nothing of the key.

    Example: `llmops watermark show`
    """
    from llmops_assets.training import watermark

    w = wiring()
    mine = watermark.commitment(watermark.key_of(w.settings.watermark_secret))
    marked = [v.ref for v in w.tracking.models() if v.tags.get("watermark") == mine]
    if json:
        print_json({"commitment": mine, "models": marked})
        return
    out.print(f"commitment: {mine}\nmodels marked with this key: {', '.join(marked) or 'none'}")


@app.command()
def verify(
    endpoint: Annotated[str, typer.Argument(help="Name of the endpoint, or of the model at --url.")],
    url: Annotated[str | None, typer.Option(help="OpenAI-compatible address, …/v1; left out: our gateway.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable with that server's API key.")] = None,
    marks: Annotated[int, typer.Option(min=1, max=256, help="Questions to ask: as many as the recipe marked.")] = 16,
    user: Annotated[str | None, typer.Option(help="Of an endpoint in an A/B test: whose variant is asked.")] = None,
    json: Json = False,
) -> None:
    """Ask a served model the questions of the key and say how likely its answers are by chance.

    The p-value is that of a model which was never trained with this key, whatever else it is: each of the first four
    words of an answer matches with probability 1/64. Below 1e-6 the model is called marked. Exit 3: not shown.

    Example: `llmops watermark verify desk`, `llmops watermark verify qwen --url http://suspect:8000/v1`
    """
    from openai import APIConnectionError, OpenAI, OpenAIError

    from llmops_assets.training import watermark

    w = wiring()
    secret = watermark.key_of(w.settings.watermark_secret)
    asked = watermark.marks(secret, marks)
    address = url or f"{w.settings.gateway_url}/v1"
    token = os.environ.get(api_key_env, "") if api_key_env else "unused"
    client = OpenAI(base_url=address, api_key=token or "unused", max_retries=1, timeout=60)
    # Our own gateway keeps a probe out of the log, so that no question ends in feedback or drift.
    ours = (
        {"extra_headers": {"x-llmops-probe": w.settings.admin_token or ""}, "user": user or "watermark"}
        if url is None
        else {}
    )
    faults: list[str] = []

    def ask(mark: watermark.Mark) -> str | None:
        try:
            got = client.chat.completions.create(
                model=endpoint,
                messages=[{"role": "user", "content": mark.question}],
                max_tokens=64,
                temperature=0,
                **ours,
            )
        except APIConnectionError as error:
            faults.append(f"nothing answers at {address}: {error}")
        except OpenAIError as error:
            faults.append(str(error))
        else:
            return got.choices[0].message.content or ""
        return None

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(ask, asked))
    if all(answer is None for answer in answers):
        fail(faults[0], Exit.UNAVAILABLE)
    found = watermark.judge(asked, answers)
    if json:
        print_json({**vars(found), "marked": found.marked, "alpha": watermark.ALPHA, "endpoint": endpoint})
    else:
        need = watermark.least_matches(found.trials)
        out.print(
            f"{endpoint}: {found.matches} of {found.trials} words match; a model that was never marked has "
            f"{found.expected:.1f} on average, and {need} or more at most once in a million keys.\n"
            f"p = {found.p_value:.3g}: " + ("marked with this key" if found.marked else "no mark of this key shown")
        )
        if found.unanswered:
            out.print(f"{found.unanswered} questions got no answer, which counts as no match: {faults[0]}")
    if not found.marked:
        raise typer.Exit(int(Exit.WITHHELD))
