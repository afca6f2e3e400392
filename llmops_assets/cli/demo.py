"""`llmops demo`: the whole loop on example data."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import Exit, actor, err, fail, out, print_json, say, show, wiring

if TYPE_CHECKING:
    from llmops_assets.local.demo import Example


def demo(
    users: Annotated[int, typer.Option(help="Simulated users of the A/B test.", min=400)] = 500,
    json_: Annotated[bool, typer.Option("--json", help="Print the closing table as JSON.")] = False,
) -> None:
    """Run the whole loop on example data: ingest, train, gate, deploy, compare, promote. Run again, it goes on.

    Example: `llmops demo`
    """
    from llmops_assets.local.demo import Demo, DemoError
    from llmops_assets.local.stack import platform
    from llmops_assets.local.watch import Watcher

    w, started = wiring(), time.monotonic()
    settings = w.settings
    with platform(settings) as stack:
        alive = stack.check if stack else lambda: None
        work = Demo(w, actor(), Watcher(settings, say), alive, users, say, _headline)
        try:
            lines = work.run()
        except DemoError as error:
            fail(f"{error}. Run the same command again to go on from here", Exit.FAILED)
        except KeyboardInterrupt:
            fail("interrupted; run the same command again to go on from here", Exit.FAILED)
        examples = work.examples_of_tuned()
    if json_:
        print_json([vars(line) for line in lines])
    else:
        show("The loop", ["", "result", "asset", "partition"], [[x.what, x.value, x.asset, x.partition] for x in lines])
    seconds = time.monotonic() - started
    out.print(
        f"\nDone in {seconds:,.0f} s. The answers are a fixed set that a very small model learned: this proves the "
        "pipeline, it is no assistant.\n"
        "Next:\n"
        f"  llmops up                              look at the graph: {settings.dagster_url}\n"
        + "".join(f"{_hint(example)}\n" for example in examples)
        + "  llmops dataset add mine@v1 FILE.jsonl --type sft_pair --wait   your own data; see README, «Your own data»",
        markup=False,
    )


def _headline(text: str) -> None:
    err.print(text, style="bold", markup=False)


def _hint(example: "Example") -> str:
    """How to ask the question oneself, while `llmops up` runs, and what to expect."""
    expectation = "it knows this one" if example.known else "and not this one"
    question = example.question.replace("\\", "\\\\").replace('"', '\\"')
    return f'  llmops chat desk "{question}"   ({expectation}; while `llmops up` runs)'
