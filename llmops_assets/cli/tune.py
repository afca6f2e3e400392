"""`llmops tune`: search for better hyperparameters; each trial is a training of the graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmops_assets.cli.common import Exit, Json, actor, fail, load_checked, out, pinned, print_json, say, show, wiring
from llmops_assets.specs.base import SpecError, SpecFault
from llmops_assets.specs.training import TrainJobSpec

if TYPE_CHECKING:
    import optuna


def tune(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A TrainJobSpec with a block `search`.")],
    trials: Annotated[
        int, typer.Option(min=1, help="Trials of the study altogether, those of earlier calls included.")
    ],
    parallel: Annotated[int | None, typer.Option(min=1, help="Trials at once; left out: one a GPU, or one.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File of the best recipe's spec; left out: SPEC.best.yaml.")
    ] = None,
    json: Json = False,
) -> None:
    """Search the ranges of a spec for the lowest validation loss: TPE proposes, and what falls behind is cut off.

    Each trial is a training with a partition of its own. Killed, it is gone on with by the same command. The best
    recipe is written to a file; `llmops train` takes it on to evaluation without training it again.

    Example: `llmops tune sft.yaml --trials 20`
    """
    from llmops_assets.local.stack import platform
    from llmops_assets.local.study import StudyDriver, ended
    from llmops_assets.local.watch import Watcher
    from llmops_assets.records.datasets import SplitsRecord
    from llmops_assets.training import search

    spec = pinned(load_checked(file, TrainJobSpec))
    if spec.search is None:
        fault = SpecFault("search", "missing, so there is nothing to vary", "Add search: {lr: {low: …, high: …}}")
        raise SpecError([SpecFault(fault.field, fault.message, fault.hint, file=str(file))])
    w = wiring()
    splits = w.records.find(SplitsRecord, w.catalog.dataset_entry(spec.dataset_ref).key)
    if splits is None or not splits.rows.get("validation"):
        fail(f"{spec.dataset_ref} has no validation rows to compare trials on: see `llmops dataset show`")
    w.settings.root.mkdir(parents=True, exist_ok=True)
    study = search.open_study(spec, f"sqlite:///{w.settings.root / 'studies.db'}")
    target = output or file.with_name(f"{file.stem}.best.yaml")
    at_once = parallel or max(1, sum(device.kind == "cuda" for device in w.devices()))
    if ended(study) < trials:
        with platform(w.settings) as stack:
            if stack is not None:
                say("no platform is running here: this command runs one until it is done (`llmops up` keeps one)")
            watch = Watcher(w.settings, lambda line: None)
            alive = stack.check if stack else lambda: None
            StudyDriver(w, actor(), spec, study, watch, trials, at_once, alive, say).run()
    _conclude(spec, study, target, json)


def _conclude(spec: TrainJobSpec, study: "optuna.Study", target: Path, json: bool) -> None:
    from llmops_assets.training import search

    found = search.outcomes(study)
    top = search.best(found)
    shares, no_shares = search.importances(study)
    if top is not None:
        search.write_spec(target, search.spec_text(spec, top, study.study_name))
    if json:
        print_json(
            {
                "study": study.study_name,
                "best": top.as_dict() if top else None,
                "spec": str(target) if top else None,
                "importances": shares,
                "importances_missing": no_shares or None,
                "trials": [t.as_dict() for t in found],
            }
        )
    else:
        names = sorted({name for t in found for name in t.params})
        rows = [
            [t.number, *(t.params.get(n) for n in names), None if t.value is None else f"{t.value:.4f}", t.state]
            for t in found
        ]
        show(f"Study {study.study_name}", ["trial", *names, "validation loss", "state"], rows)
    if top is None:
        fail(f"no trial of {study.study_name} came to its end", Exit.FAILED)
    if not json:
        share = ", ".join(f"{name} {value:.0%}" for name, value in sorted(shares.items(), key=lambda item: -item[1]))
        out.print(f"importance: {share or f'not known: {no_shares}'}", markup=False)
        out.print(f"best: trial {top.number}, validation loss {top.value:.4f}, training {top.partition}", markup=False)
        out.print(f"its spec: {target} (`llmops train {target}` evaluates and registers it)", markup=False)
