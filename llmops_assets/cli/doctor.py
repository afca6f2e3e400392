"""`llmops doctor`: what is wrong with an installation, and what to do."""

from typing import Annotated

import typer

from llmops_assets.cli.common import Exit, Json, out, print_json, show, wiring

_EXIT = {"ok": Exit.OK, "note": Exit.OK, "warning": Exit.OK, "fault": Exit.FAILED}


def doctor(
    strict: Annotated[bool, typer.Option("--strict", help="Exit 4 for warnings too.")] = False, json: Json = False
) -> None:
    """Look at every component, version, connection, disk, clock, key and migration, at what waits and what is stuck.

    Exit 4 where something is broken; nothing is changed. For a probe: `llmops doctor --json`.

    Example: `llmops doctor`
    """
    from llmops_assets.local.stack import running
    from llmops_assets.operations.doctor import examine, summary, worst

    w = wiring()
    # Of a server the processes are not those of this container.
    findings = examine(w, is_running=running(w.settings) is not None or w.settings.reconciler == "service")
    state = worst(findings)
    if json:
        print_json(summary(findings))
    else:
        show("", ["part", "state", "what", "what to do"], [[f.part, f.state, f.what, f.advice] for f in findings])
        bad = [f for f in findings if f.state in ("warning", "fault")]
        out.print(f"{len(bad)} of {len(findings)} need somebody" if bad else "nothing is wrong", markup=False)
    raise typer.Exit(int(Exit.FAILED if strict and state == "warning" else _EXIT[state]))
